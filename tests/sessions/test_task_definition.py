"""Tasks as sessions know them: which values a run is worth, and how it is tallied."""

from __future__ import annotations

import pickle

import pytest

import ldinstrument as ld
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.registry import stats
from ldinstrument.sessions.task_definition import TaskDefinition, declared_task
from ldinstrument.testing import RecordingClient


def test_a_decorator_on_an_inner_function_changes_nothing_of_the_rate(
    ld_events: RecordingClient,
) -> None:
    """Tasks are not interactions."""

    @ld.track_task("area.inner")
    def inner() -> None:
        raise ValueError

    @ld.track_interaction("area.outer")
    def outer() -> None:
        with pytest.raises(ValueError):
            inner()

    with ld.session("u-1"):
        outer()

    assert [100.0] == ld_events.values("session.success_rate")
    assert [0.0] == ld_events.values("area.inner.success_rate")


def test_a_task_outlives_a_cleared_catalog(ld_events: RecordingClient) -> None:
    """`testing.reset()` between tests must not turn the numbers of module-level tasks into events
    without value.
    """

    @ld.track_task("area.kept")
    def kept() -> None:
        pass

    ld.catalog.clear()
    with ld.session("u-1"):
        kept()

    assert [1.0] == ld_events.values("area.kept.success_rate")
    assert "area.kept.duration" in ld.catalog


ALL = ("success_rate", "duration", "unfinished")


def worth(task: TaskDefinition, outcome: Outcome) -> dict[str, float]:
    """The values of a run of 250 ms that ended so, by the suffix of their event key."""
    found = task.plan().values(outcome, 250.0)
    return {routing.event_key.rpartition(".")[2]: value for routing, value in found}


@pytest.mark.parametrize(
    ("outcome", "values"),
    [
        (Outcome.SUCCESS, {"success_rate": 1.0, "duration": 250.0, "unfinished": 0.0}),
        (Outcome.FAILURE, {"success_rate": 0.0, "duration": 250.0, "unfinished": 0.0}),
        (Outcome.CANCELLED, {"unfinished": 1.0}),
        (Outcome.ABANDONED, {"unfinished": 1.0}),
        (Outcome.SUSPENDED, {}),
    ],
)
def test_a_run_is_worth_what_its_outcome_says(outcome: Outcome, values: dict[str, float]) -> None:
    """How long an unfinished one takes is unknown; suspended work goes on elsewhere."""
    task = declared_task("area.task", False, ALL)
    assert worth(task, outcome) == values
    assert task.values_of(outcome) == task.count({outcome: 1}) == len(values)


def test_unfinished_runs_may_be_failures() -> None:
    """In the rate and in the tallies of the session, too."""
    task = declared_task("area.task", False, ALL, True)
    assert worth(task, Outcome.CANCELLED) == {"success_rate": 0.0, "unfinished": 1.0}
    assert task.values_of(Outcome.CANCELLED) == 2
    outcomes = {Outcome.SUCCESS: 1, Outcome.FAILURE: 2, Outcome.CANCELLED: 3, Outcome.ABANDONED: 4}
    assert task.tallied(outcomes) == (1, 9, 0, 0)
    assert declared_task("area.other", False, ALL).tallied(outcomes) == (1, 2, 3, 4)


def test_only_what_is_asked_for_is_declared_and_fed() -> None:
    """In the catalog's order, whatever the order it was asked in."""
    task = declared_task("area.few", True, ("unfinished", "success_rate"))
    assert list(task.metrics) == ["success_rate", "unfinished"]
    assert "area.few.duration" not in ld.catalog
    assert worth(task, Outcome.SUCCESS) == {"success_rate": 1.0, "unfinished": 0.0}


def test_another_rollup_changes_the_plan_from_then_on() -> None:
    """Each value an event of its own is a plain plan; one that folds is not."""
    task = declared_task("area.folded", False, ("duration",))
    first = task.plan()
    assert first.plain
    assert task.plan() is first
    metric = ld.catalog["area.folded.duration"]
    ld.catalog.replace(metric.replace(aggregation="sum", rollup=None))
    assert task.plan() is not first
    assert not task.plan().plain


def test_unfinished_runs_that_no_metric_tells_are_counted_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the tenth on, when they are one in a hundred."""
    task = declared_task("area.untold", False, ("duration",))
    task.count({Outcome.SUCCESS: 1500, Outcome.CANCELLED: 14})
    assert caplog.messages == []
    task.count({Outcome.ABANDONED: 2})
    task.count({Outcome.ABANDONED: 2})
    (line,) = caplog.messages
    assert "task 'area.untold': 16 of 1516 runs" in line
    few = declared_task("area.few", False, ("duration",))
    few.count({Outcome.CANCELLED: 9})
    assert len(caplog.messages) == 1
    few.count({Outcome.CANCELLED: 1})
    assert len(caplog.messages) == 2
    assert stats().unfinished == {"area.untold": 18, "area.few": 10}


def test_a_definition_is_pickled_by_its_key() -> None:
    """On the other side it is declared as here; nothing of its counts goes along."""
    task = declared_task("area.sent", True, ALL, True)
    copied = pickle.loads(pickle.dumps(task))
    assert copied is not task
    assert (copied.key, copied.interaction, copied.metrics, copied.unfinished_fails) == (
        task.key, task.interaction, task.metrics, task.unfinished_fails,
    )  # fmt: skip
