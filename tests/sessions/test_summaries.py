"""Summaries: what a session has seen so far, as values."""

from __future__ import annotations

import pytest

import ldinstrument as ld
from ldinstrument.sessions.summaries import TaskSummary, summarised
from ldinstrument.testing import RecordingClient


def test_summary_is_frozen_and_complete(ld_events: RecordingClient) -> None:
    """Interactions, their rate, and the runs of each task; nobody can change it."""
    with ld.session("u-1") as s:
        with ld.track_task("area.work"):
            pass
        s.interaction()
        s.interaction(False)
        seen = s.summary()

    assert (seen.interactions, seen.successes, seen.failures, seen.success_rate) == (2, 1, 1, 50.0)
    successes, failures, cancelled, abandoned, duration = seen.tasks["area.work"]
    assert (successes, failures, cancelled, abandoned) == (1, 0, 0, 0)
    assert duration >= 0
    with pytest.raises(AttributeError):
        seen.successes = 9  # type: ignore[misc]


def test_the_rate_is_of_those_that_succeeded_or_failed() -> None:
    """In percent; of none there is none. A duration is never negative."""
    found = summarised(-1.0, (3, 1, 5, 7), {})
    assert (found.interactions, found.success_rate, found.duration_ms) == (4, 75.0, 0.0)
    assert (found.cancelled, found.abandoned) == (5, 7)
    assert summarised(2.5, (0, 0, 1, 0), {}).success_rate is None


def test_tasks_are_listed_by_key() -> None:
    """Whole numbers of runs, and the time of those that ended by themselves."""
    found = summarised(1.0, (0, 0, 0, 0), {"b": [1.0, 0, 0, 2.0, 30.5], "a": [0, 0, 0, 0, 0.0]})
    assert list(found.tasks) == ["a", "b"]
    assert found.tasks["b"] == TaskSummary(1, 0, 0, 2, 30.5)
    assert tuple(found.tasks["b"]) == (1, 0, 0, 2, 30.5)
