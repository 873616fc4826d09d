"""Tell how a task ended: from its exception, the table of control flow, or the consumer's fate."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any

from ..diagnostics import came_by_a_signal
from ..errors import DefinitionError
from .control_flow import outcome_by_name


class Outcome(str, Enum):
    """How a task ended.

    `success` and `failure` make the success rate. `cancelled` and `abandoned` are unfinished: in
    neither numerator nor denominator of the rate, and without a duration. `suspended` work goes on
    elsewhere (a retry, a rerun, a human's answer): it is in no metric.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    SUSPENDED = "suspended"

    __hash__ = str.__hash__  # Enum's own is Python code, and each run is counted by its outcome

    @property
    def finished(self) -> bool:
        """Whether a run that ended so has a success rate and a duration."""
        return self is Outcome.SUCCESS or self is Outcome.FAILURE

    @property
    def unfinished(self) -> bool:
        """Whether a run that ended so was given up: cancelled or abandoned."""
        return self is Outcome.CANCELLED or self is Outcome.ABANDONED


OUTCOMES = (Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED, Outcome.ABANDONED)
"""The outcomes that sessions tally, in the order of their tallies; suspended runs are in none."""

FINISHED = frozenset((Outcome.SUCCESS, Outcome.FAILURE))
"""The outcomes of runs that have a success rate and a duration."""

Tallies = tuple[int, int, int, int]
"""How many ended so: successes, failures, cancelled, abandoned."""
NO_TALLIES: Tallies = (0, 0, 0, 0)


def added(one: Tallies, other: Tallies) -> Tallies:
    """Add tallies up."""
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


_WORST_FIRST = (
    Outcome.FAILURE,
    Outcome.CANCELLED,
    Outcome.ABANDONED,
    Outcome.SUSPENDED,
    Outcome.SUCCESS,
)
_added: dict[type[BaseException], Outcome] = {}


def outcome_of_exception(kind: type[BaseException], outcome: Outcome) -> None:
    """Declare how a run ends that raises *kind* or a subclass: `ld.outcome_of_exception(MyPause,
    ld.Outcome.SUSPENDED)`.

    It holds for tasks, sessions and requests of the whole process, and comes before the table of
    known frameworks; a subclass comes before its base.

    Raises:
        DefinitionError: *kind* is no exception class, or *outcome* no `Outcome`.
    """
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        raise DefinitionError(f"outcome_of_exception: give an exception class, not {kind!r:.60}")
    try:
        _added[kind] = Outcome(outcome)
    except ValueError:
        raise DefinitionError(
            f"outcome_of_exception: give an Outcome, such as Outcome.SUSPENDED, not {outcome!r:.60}"
        ) from None


def forget_exceptions() -> None:
    """Forget what `outcome_of_exception` was told (tests)."""
    _added.clear()


def outcome_of(error: BaseException, expected: tuple[type[BaseException], ...] = ()) -> Outcome:
    """Tell how a task ended that raised *error*; an *expected* exception is a success.

    `SystemExit` with 0 is a success where the run itself leaves by it, and a cancellation where a
    signal's handler does, as `KeyboardInterrupt` is, and so is what is no `Exception` and known to
    nobody: a library stops a run from outside by such a class, past the program's `except
    Exception`. A group is as bad as the worst of its members.
    """
    if expected and isinstance(error, expected):
        return Outcome.SUCCESS
    declared = _declared_outcome(error)
    if declared is not None:
        return declared
    if isinstance(error, GeneratorExit):
        return _closed(error)
    known = outcome_by_name(error)
    if known is not None:
        return Outcome(known)
    if isinstance(error, SystemExit):
        if error.code not in (None, 0):
            return Outcome.FAILURE
        return Outcome.CANCELLED if came_by_a_signal(error) else Outcome.SUCCESS
    members = getattr(error, "exceptions", None)
    if isinstance(members, tuple) and members and isinstance(error, _group_type()):
        outcomes = {outcome_of(member, expected) for member in members}
        return next(worst for worst in _WORST_FIRST if worst in outcomes)
    return Outcome.FAILURE if isinstance(error, Exception) else Outcome.CANCELLED


def _declared_outcome(error: BaseException) -> Outcome | None:
    if not _added:
        return None
    return next((_added[kind] for kind in type(error).__mro__ if kind in _added), None)


def _group_type() -> type[BaseException]:
    """Return `BaseExceptionGroup`; on Python 3.10 the backport's, when somebody has loaded it."""
    import builtins

    found = getattr(builtins, "BaseExceptionGroup", None) or getattr(
        sys.modules.get("exceptiongroup"), "BaseExceptionGroup", None
    )
    return found if isinstance(found, type) else _NoGroup


class _NoGroup(BaseException):
    """Stands for exception groups where Python has none."""


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt) or outcome_by_name(error) == "cancelled"


def is_closing(error: BaseException) -> bool:
    """Tell whether *error* came out while a stream was being closed, perhaps by the garbage
    collector.
    """
    return any(isinstance(link, GeneratorExit) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and what was being handled when it was raised, innermost first."""
    current: BaseException | None = error
    for _ in range(50):  # a loop in the chain ends
        if current is None:
            return
        yield current
        current = current.__context__


def _closed(exit: GeneratorExit) -> Outcome:
    """Tell who closed a stream early: a consumer that is itself cancelled, or that had enough."""
    if any(_is_cancellation(link) for link in _chain(exit)) or is_cancelling(current_task()):
        return Outcome.CANCELLED
    return Outcome.ABANDONED


def current_task() -> Any:
    """Return the running asyncio task, or None; asks only where asyncio is in use."""
    asyncio = sys.modules.get("asyncio")
    running_loop = getattr(asyncio, "_get_running_loop", None)
    if asyncio is None or running_loop is None or running_loop() is None:
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def is_cancelling(task: Any) -> bool:
    """Tell whether the asyncio *task* is being or was cancelled; before Python 3.11 one can only
    see that it was.
    """
    if task is None:
        return False
    cancelling = getattr(task, "cancelling", None)
    return bool(task.cancelled() or (cancelling is not None and cancelling()))
