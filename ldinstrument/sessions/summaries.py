"""What a session has seen so far, as frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .outcomes import Tallies


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """The runs of one task in one session; `duration_ms` adds up the runs that succeeded or
    failed.
    """

    successes: int = 0
    failures: int = 0
    cancelled: int = 0
    abandoned: int = 0
    duration_ms: float = 0.0

    def __iter__(self) -> Iterator[float]:
        return iter(
            (self.successes, self.failures, self.cancelled, self.abandoned, self.duration_ms)
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What a session has seen so far.

    Args:
        duration_ms: from its start to its last activity.
        interactions: those that succeeded or failed.
        success_rate: percent of the interactions, None when there were none.
        tasks: by task key.
    """

    duration_ms: float
    interactions: int
    successes: int
    failures: int
    cancelled: int
    abandoned: int
    success_rate: float | None
    tasks: Mapping[str, TaskSummary] = field(default_factory=dict)


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
