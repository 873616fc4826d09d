"""How a task ended, and what a task is to the session that receives its runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .metrics import EventRule, catalog


class Outcome(str, Enum):
    """How a task ended.

    `success` and `failure` make the success rate; `cancelled` and `abandoned` are counted beside it, in neither
    numerator nor denominator.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


OUTCOMES = tuple(Outcome)


@dataclass(frozen=True, slots=True, eq=False)
class TaskDefinition:
    """What a session must know of a task to fold its runs.

    Args:
        key: the task's key; empty for a bare interaction.
        interaction: whether a run counts as an interaction of its session.
        metrics: event key by suffix (`success_rate`, `duration`, `time_to_first_item`).
    """

    key: str
    interaction: bool
    metrics: dict[str, str]

    def rule(self, suffix: str) -> EventRule | None:
        """The event rule of the metric with this *suffix*, None when the task does not feed it."""
        event_key = self.metrics.get(suffix)
        return None if event_key is None else catalog.rule(event_key)

    @property
    def values_per_run(self) -> int:
        """How many values one finished run is worth."""
        return len(self.metrics.keys() & {"success_rate", "duration"})


INTERACTION = TaskDefinition("", True, {})


def outcome_of(error: BaseException, expected: tuple[type[BaseException], ...] = ()) -> Outcome:
    """How a task ended that raised *error*; an *expected* exception is a success.

    `SystemExit` with 0 is a success; a cancellation or `KeyboardInterrupt` is no failure; a group is what all of its
    members are, and a failure when they differ.
    """
    if expected and isinstance(error, expected):
        return Outcome.SUCCESS
    if isinstance(error, GeneratorExit):
        return _closed(error)
    if isinstance(error, SystemExit):
        return Outcome.SUCCESS if error.code in (None, 0) else Outcome.FAILURE
    if _is_cancellation(error):
        return Outcome.CANCELLED
    members = getattr(error, "exceptions", None)
    if isinstance(members, tuple) and members:  # an exception group, also the 3.10 backport's
        outcomes = {outcome_of(member, expected) for member in members if isinstance(member, BaseException)}
        return outcomes.pop() if len(outcomes) == 1 else Outcome.FAILURE
    return Outcome.FAILURE


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return True
    # By name: importing asyncio for its CancelledError would cost a program without it 50 ms; trio's is `Cancelled`.
    return any(kind.__name__ in ("CancelledError", "Cancelled") for kind in type(error).__mro__)


def _closed(exit: GeneratorExit) -> Outcome:
    """A stream was closed early: by a consumer that is itself being cancelled, or by one that had enough."""
    cause = exit.__context__
    return Outcome.CANCELLED if cause is not None and _is_cancellation(cause) else Outcome.ABANDONED
