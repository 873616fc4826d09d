"""Evaluations: which of them are exposures, whom they name, and that no fold crosses one."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from ldclient import Context
from session_values import USER, expose, value

import ldinstrument as ld
from ldinstrument.sessions.evaluations import lost, see
from ldinstrument.sessions.exposures import exposures
from ldinstrument.testing import RecordingClient


def test_no_fold_crosses_an_exposure(ld_events: RecordingClient) -> None:
    """Before a flag's first evaluation the session emits what it holds; the second evaluation
    changes nothing.
    """
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:
        s.record("r.sum", 1)
        expose("flag", USER)
        s.record("r.sum", 2)
        expose("flag", USER)
        s.record("r.sum", 4)

    assert [1, 6] == ld_events.values("r.sum")


@pytest.mark.parametrize("times", [1, 3])
def test_an_exposure_in_a_session_joined_again_is_seen_by_the_one_in_between(
    ld_events: RecordingClient, times: int
) -> None:
    """A request, a chat in it, and a block of the request again: what the chat holds does not cross
    its exposure.
    """
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1", name="request"), ld.session(name="chat") as chat:
        chat.record("r.sum", 1)
        for n in range(times):
            with ld.session("u-1", name="request") as request:
                assert request is chat.outer
                expose(f"flag-{n}")
            chat.record("r.sum", 2)

    assert [1, *[2] * times] == ld_events.values("r.sum")


def test_a_fold_without_identity_does_not_cross_an_exposure_either(
    ld_events: RecordingClient,
) -> None:
    """It waits for the identity that the exposure brings, apart from what comes after."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session() as s:
        s.record("r.sum", 1)
        expose("flag", USER)
        s.see_exposure(USER)
        s.record("r.sum", 2)

    assert [1, 2] == ld_events.values("r.sum")


def test_a_flag_seen_with_somebody_else_is_still_to_be_seen(ld_events: RecordingClient) -> None:
    """The exposure is of a flag and a context; a login makes every flag unseen."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:
        expose("flag", Context.create("other"))
        s.record("r.sum", 1)
        expose("flag", USER)
        s.record("r.sum", 2)
        s.identify("u-2")
        s.record("r.sum", 4)
        expose("flag", Context.create("u-2"))
        s.record("r.sum", 8)

    assert [1, 2, 4, 8] == ld_events.values("r.sum")


def test_an_evaluation_for_somebody_else_breaks_no_fold(ld_events: RecordingClient) -> None:
    """An administrator's session that looks at a customer's flags is not exposed to them."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("u-1") as s:
        s.record("r.sum", 1)
        expose("flag", Context.create("other"))
        s.record("r.sum", 2)

    assert [3] == ld_events.values("r.sum")


def test_a_request_around_a_chat_learns_who_it_is(ld_events: RecordingClient) -> None:
    """An exposure inside the innermost session identifies those around it that know nobody; an
    explicit one shields.
    """
    with ld.session(name="request"), ld.session(name="chat"):
        expose("flag")
    with ld.session(name="job"), ld.session("u-2", name="chat"):
        expose("flag", Context.create("u-2"))

    assert {"request.duration", "chat.duration"} <= set(ld_events.keys())
    assert "job.duration" not in set(ld_events.keys())


def evaluation(context: Any = USER, *, date: int = 5000, **reason: Any) -> Any:
    """An event as the SDK hands it to its event processor."""
    return SimpleNamespace(
        key="flag",
        flag=SimpleNamespace(version=3),
        context=context,
        timestamp=date,
        reason={"kind": "RULE_MATCH", **reason} if reason else None,
    )


def test_an_evaluation_in_an_experiment_is_an_exposure() -> None:
    """Noted with flag, version, unit and date; its client will take the session's events."""
    client = RecordingClient()
    see(evaluation(inExperiment=True), weakref.ref(client))
    (noted,) = exposures.of(["u-1"])
    assert (noted.name, noted.date) == ("flag 3 u-1", 5000)
    assert noted.client() is client


@pytest.mark.parametrize(
    "event",
    [
        evaluation(),
        evaluation(inExperiment=False),
        evaluation(inExperiment="true"),
        evaluation(Context.create(""), inExperiment=True),
        SimpleNamespace(key="area.key"),
    ],
)
def test_whatever_else_is_evaluated_is_none(event: Any) -> None:
    """Off, by a rule, for nobody valid, and events of other kinds."""
    see(event)
    lost(event)
    assert exposures.noted == {}


def test_a_repetition_is_never_dated_before_the_first() -> None:
    """A wall clock that was set back would make it the first."""
    see(evaluation(inExperiment=True))
    later, earlier = (
        evaluation(date=9000, inExperiment=True),
        evaluation(date=10, inExperiment=True),
    )
    see(later)
    see(earlier)
    assert (later.timestamp, earlier.timestamp) == (9000, 5000)


def test_an_exposure_whose_event_was_dropped_is_noted_anew() -> None:
    """The next one is the first that LaunchDarkly sees."""
    see(evaluation(inExperiment=True))
    lost(evaluation(inExperiment=True))
    assert exposures.noted == {}
    see(evaluation(date=9000, inExperiment=True))
    assert max(exposures.noted.values()) == 9000


def test_a_repetition_still_names_whose_a_new_session_is() -> None:
    """Noted long ago, and new to this session."""
    see(evaluation(inExperiment=True))
    with ld.session(client=RecordingClient()) as s:
        see(evaluation(date=6000, inExperiment=True))
        assert s.context == USER
