"""What a program says becomes samples: LaunchDarkly's recipe, without a session or a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ldinstrument.sessions.clock import clock
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.recording import SampleRecorder
from ldinstrument.sessions.registry import stats


class Recorder(SampleRecorder):
    """Keeps its samples."""

    def __init__(self) -> None:
        self.samples: list[Any] = []

    def append(self, entry: Any) -> None:
        self.samples.append(entry)

    def told(self) -> list[tuple[str, float | None, Mapping[str, Any] | None]]:
        """Event key, value and data of each recorded value."""
        return [(routing.event_key, value, data) for routing, value, data, *_ in self.samples]


@pytest.fixture(name="said")
def _said() -> Recorder:
    return Recorder()


def test_an_interaction_ends_as_it_is_said(said: Recorder) -> None:
    """An outcome stays itself; anything else is a success or a failure."""
    for success in (True, False, "yes", 0, Outcome.ABANDONED, Outcome.FAILURE):
        said.interaction(success)  # type: ignore[arg-type]
    assert [outcome for _, outcome, *_ in said.samples] == [
        Outcome.SUCCESS,
        Outcome.FAILURE,
        Outcome.SUCCESS,
        Outcome.FAILURE,
        Outcome.ABANDONED,
        Outcome.FAILURE,
    ]


def test_an_interaction_is_dated_now_unless_it_says_when(said: Recorder) -> None:
    """By the clock that measures everything here."""
    before = clock()
    said.interaction()
    said.interaction(at=12.5)
    (_, _, started, ended, _), (_, _, *given, _) = said.samples
    assert before <= started == ended <= clock()
    assert given == [12.5, 12.5]


def test_the_recipe_has_launchdarklys_names(said: Recorder) -> None:
    """Event keys, and the words of their data on the wire; other words stay as they are."""
    said.conversion(9.5, config_key="prompt", plan="pro")
    said.satisfaction(80, feedback_type="survey")
    said.revenue(3, task_type="x")
    said.task_success("search", True, config_key="prompt")
    said.task_success("search", False)
    assert said.told() == [
        ("business.conversion", 9.5, {"configKey": "prompt", "plan": "pro"}),
        ("user.satisfaction", 80, {"feedbackType": "survey"}),
        ("revenue.impact", 3, {"taskType": "x"}),
        ("task.success_rate", 1.0, {"configKey": "prompt", "taskType": "search"}),
        ("task.success_rate", 0.0, {"taskType": "search"}),
    ]


@pytest.mark.parametrize(
    ("score", "negative"), [(0, True), (49.9, True), (50, False), (100, False)]
)
def test_a_score_below_50_is_negative_feedback(
    said: Recorder, score: float, negative: bool
) -> None:
    """Both ends of the scale belong to it."""
    said.satisfaction(score)
    keys = [key for key, _, _ in said.told()]
    assert keys == ["user.satisfaction", *["user.negative_feedback"] * negative]


@pytest.mark.parametrize("score", [-0.1, 100.1, "5", None, float("nan")])
def test_a_score_that_is_none_is_counted_once(said: Recorder, score: Any) -> None:
    """And makes nobody unhappy."""
    said.satisfaction(score)
    assert said.samples == []
    assert sum(stats().values.discarded.values()) == 1


@pytest.mark.parametrize(("value", "recorded"), [(0, False), (-3, False), (0.01, True)])
def test_only_revenue_above_0_is_any(said: Recorder, value: float, recorded: bool) -> None:
    """What is no number is counted, as everywhere; 0 is no mistake."""
    said.revenue(value)
    assert bool(said.samples) is recorded
    assert not stats().values.discarded
    said.revenue("5")
    assert stats().values.discarded == {"not_a_number": 1}


def test_a_comment_stays_here_unless_it_may_leave(said: Recorder) -> None:
    """A thumb down is a score of 0 and negative feedback."""
    said.feedback(True, comment="lovely")
    said.feedback(False, comment="no", send_comment=True, plan="pro")
    thumb = {"feedbackType": "thumb"}
    assert said.told() == [
        ("user.satisfaction", 100, thumb),
        ("user.satisfaction", 0, {**thumb, "comment": "no", "plan": "pro"}),
        ("user.negative_feedback", None, {**thumb, "comment": "no", "plan": "pro"}),
    ]
