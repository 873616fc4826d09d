"""How a task ended, and what a task is to the session that receives its runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..metrics.catalogs import EventRouting, catalog


class Outcome(str, Enum):
    """How a task ended.

    `success` and `failure` make the success rate; `cancelled` and `abandoned` are counted beside
    it, in neither numerator nor denominator.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"

    __hash__ = str.__hash__  # Enum's own is Python code, and each run is counted by its outcome

    @property
    def finished(self) -> bool:
        """Whether a run that ended so has a success rate and a duration."""
        return self is Outcome.SUCCESS or self is Outcome.FAILURE


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

    def routing(self, suffix: str) -> EventRouting | None:
        """The event routing of the metric with this *suffix*, None when the task does not feed it."""
        event_key = self.metrics.get(suffix)
        return None if event_key is None else catalog.routing(event_key)

    @property
    def values_per_run(self) -> int:
        """How many values one finished run is worth."""
        return len(self.metrics.keys() & {"success_rate", "duration"})

    @property
    def unfinished(self) -> TaskDefinition:
        """The same task for counting a run that was cancelled or abandoned: worth no value."""
        return TaskDefinition(self.key, self.interaction, {})


INTERACTION = TaskDefinition("", True, {})

_CANCELLING_LIBRARIES = ("asyncio", "concurrent", "trio", "anyio", "curio")


def outcome_of(error: BaseException, expected: tuple[type[BaseException], ...] = ()) -> Outcome:
    """How a task ended that raised *error*; an *expected* exception is a success.

    `SystemExit` with 0 is a success; a cancellation or `KeyboardInterrupt` is no failure; a group
    is a failure when one of its members is.
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
    if isinstance(members, tuple) and members and isinstance(error, _group_type()):
        outcomes = {outcome_of(member, expected) for member in members}
        return next(worst for worst in _WORST_FIRST if worst in outcomes)
    return Outcome.FAILURE


_WORST_FIRST = (Outcome.FAILURE, Outcome.CANCELLED, Outcome.ABANDONED, Outcome.SUCCESS)


def _group_type() -> type[BaseException]:
    """`BaseExceptionGroup`; on Python 3.10 that of the backport, when somebody has loaded it."""
    import builtins

    found = getattr(builtins, "BaseExceptionGroup", None) or getattr(
        sys.modules.get("exceptiongroup"), "BaseExceptionGroup", None
    )
    return found if isinstance(found, type) else _NoGroup


class _NoGroup(BaseException):
    """Stands for exception groups where Python has none."""


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return True
    # By name: importing asyncio for its CancelledError would cost a program without it 50 ms;
    # trio's is `Cancelled`.
    return any(
        kind.__name__ in ("CancelledError", "Cancelled")
        and kind.__module__.partition(".")[0] in _CANCELLING_LIBRARIES
        for kind in type(error).__mro__
    )


def is_closing(error: BaseException) -> bool:
    """Whether *error* came out while a stream was being closed, perhaps by the garbage
    collector.
    """
    return any(isinstance(one, GeneratorExit) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and what was being handled when it was raised, innermost first; a loop in it ends."""
    current: BaseException | None = error
    for _ in range(50):
        if current is None:
            return
        yield current
        current = current.__context__


def _closed(exit: GeneratorExit) -> Outcome:
    """A stream was closed early: by a consumer that is itself being cancelled, or by one that had
    enough.
    """
    if any(_is_cancellation(one) for one in _chain(exit)) or is_cancelling(current_task()):
        return Outcome.CANCELLED
    return Outcome.ABANDONED


def current_task() -> Any:
    """The running asyncio task, or None; asks only where asyncio is in use."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not hasattr(asyncio, "current_task"):
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def is_cancelling(task: Any) -> bool:
    """Whether the asyncio *task* is being or was cancelled; before Python 3.11 one can only see
    that it was.
    """
    if task is None:
        return False
    cancelling = getattr(task, "cancelling", None)
    return bool(task.cancelled() or (cancelling is not None and cancelling()))
