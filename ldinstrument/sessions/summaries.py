"""What a session has seen so far, as frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..values import Frozen
from .outcomes import Tallies


class TaskSummary(Frozen):
    """The runs of one task in one session; `duration_ms` adds up the runs that succeeded or
    failed.
    """

    __slots__ = (
        "successes",
        "failures",
        "cancelled",
        "abandoned",
        "duration_ms",
    )
    successes: int
    failures: int
    cancelled: int
    abandoned: int
    duration_ms: float

    def __init__(
        self,
        successes: int = 0,
        failures: int = 0,
        cancelled: int = 0,
        abandoned: int = 0,
        duration_ms: float = 0.0,
    ) -> None:
        self._fill(successes, failures, cancelled, abandoned, duration_ms)

    def __iter__(self) -> Iterator[float]:
        return iter(
            (self.successes, self.failures, self.cancelled, self.abandoned, self.duration_ms)
        )


class Summary(Frozen):
    """What a session has seen so far.

    Args:
        duration_ms: from its start to its last activity.
        interactions: those that succeeded or failed.
        success_rate: percent of the interactions, None when there were none.
        tasks: by task key.
    """

    __slots__ = (
        "duration_ms",
        "interactions",
        "successes",
        "failures",
        "cancelled",
        "abandoned",
        "success_rate",
        "tasks",
    )
    duration_ms: float
    interactions: int
    successes: int
    failures: int
    cancelled: int
    abandoned: int
    success_rate: float | None
    tasks: Mapping[str, TaskSummary]

    def __init__(
        self,
        duration_ms: float,
        interactions: int,
        successes: int,
        failures: int,
        cancelled: int,
        abandoned: int,
        success_rate: float | None,
        tasks: Mapping[str, TaskSummary],
    ) -> None:
        self._fill(
            duration_ms,
            interactions,
            successes,
            failures,
            cancelled,
            abandoned,
            success_rate,
            tasks,
        )


def summarised(duration_ms: float, tallies: Tallies, tasks: Mapping[str, list[float]]) -> Summary:
    """Sum up a session: *tallies* of its interactions, *tasks* by key in `TaskSummary`'s order."""
    successes, failures, cancelled, abandoned = tallies
    interactions = successes + failures
    return Summary(
        duration_ms=max(0.0, duration_ms),
        interactions=interactions,
        successes=successes,
        failures=failures,
        cancelled=cancelled,
        abandoned=abandoned,
        success_rate=100.0 * successes / interactions if interactions else None,
        tasks={key: _of_task(tally) for key, tally in sorted(tasks.items())},
    )


def _of_task(tally: list[float]) -> TaskSummary:
    successes, failures, cancelled, abandoned = map(int, tally[:4])
    return TaskSummary(successes, failures, cancelled, abandoned, tally[4])
