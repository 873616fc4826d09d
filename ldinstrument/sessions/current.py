"""The current session, a `ContextVar` that tasks read and whatever opens a session sets; and who
entered a scope.

The variable is set by value, never by token: a token is bound to the `Context` it was made in, and
generators are resumed, closed and collected in others.

Decorating a function needs this module, and no session: those load with `scopes`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..callables.context_variables import pickle_by_name
from .outcomes import current_task

if TYPE_CHECKING:
    from .session import Session

T = TypeVar("T")

current_variable: ContextVar[Session | None] = ContextVar("ldinstrument_session", default=None)
pickle_by_name(current_variable, __name__, "current_variable")


def current_session() -> Session | None:
    """Return the innermost open session of this context, or None; never an ended one."""
    found = innermost = current_variable.get()
    while found is not None and found.ended:
        found = found.outer
    if found is None and innermost is not None:
        return next(filter(None, (find() for find in _finders)), None)
    return found


_finders: list[Callable[[], Session | None]] = []


def add_finder(finder: Callable[[], Session | None]) -> None:
    """Ask *finder* for the session of work whose own has ended, once however often it is added.

    A server may run what a request asks for in a task that began in an earlier one, and so has the
    context of that.
    """
    if finder not in _finders:
        _finders.append(finder)


def set_current(session: Session | None) -> Session | None:
    """Make *session* the current one and return the one before."""
    before = current_variable.get()
    current_variable.set(session)
    return before


def identify(context: Any) -> None:
    """Say whose the current session is; without a session, do nothing.

    Args:
        context: an `ldclient.Context`, or a key of kind `user`.
    """
    found = current_session()
    if found is not None:
        found.identify(context)


@contextmanager
def entered(session: Session | None) -> Iterator[Session | None]:
    """Run a block with *session* as the current session, None included, so that nobody's session
    leaks in.
    """
    before = set_current(session)
    try:
        yield session
    finally:
        set_current(before)


# -- who entered: one scope may be entered by many threads and tasks at once -----------------------


class EntryStack(list[tuple[int, Any, T]]):
    """What was entered and not left yet, each with the thread and task that entered it.

    It takes no lock: a thread that finds an entry taken by another one looks again.
    """

    __slots__ = ()

    def push(self, entered: T) -> None:
        """Note that this thread and task entered *entered*."""
        asyncio = sys.modules.get("asyncio")
        on_loop = asyncio is not None and asyncio._get_running_loop() is not None
        self.append((threading.get_ident(), current_task() if on_loop else None, entered))

    def take(self, preferred: Callable[[T], bool] | None = None) -> T | None:
        """Take out what is left here: the innermost that this thread and task entered, else any.

        Args:
            preferred: tells which to take before others, of those entered here and elsewhere.
        """
        while latest := self[::-1]:
            found = latest[0] if len(latest) == 1 else _best(latest, preferred)
            try:
                self.remove(found)
            except ValueError:  # another thread left it meanwhile
                continue
            return found[2]
        return None


def _best(
    latest: list[tuple[int, Any, T]], preferred: Callable[[T], bool] | None
) -> tuple[int, Any, T]:
    here = threading.get_ident(), current_task()
    mine = [entry for entry in latest if entry[:2] == here]
    liked = [entry for entry in latest if preferred is not None and preferred(entry[2])]
    both = [entry for entry in liked if entry[:2] == here]
    return next(iter((*both, *mine, *liked, *latest)))


class Block(Protocol):
    """A run that a `with` block is: it begins and ends there."""

    def resume(self) -> None:
        """Note that the block's code is about to run."""

    def pause(self) -> None:
        """Note that the block's code has stopped."""

    def returned(self, result: Any) -> None:
        """End the run, without an exception."""

    def raised(self, error: BaseException) -> None:
        """End the run, out of which *error* came."""


B = TypeVar("B", bound=Block)


class BlockScope(Generic[B]):
    """A scope that can be entered with `with` and `async with`: reusable, and by many threads and
    tasks at once.
    """

    def __init__(self) -> None:
        self._runs: EntryStack[B] = EntryStack()

    def begin(self) -> B:
        """Begin a run that you end yourself, by `returned` or `raised`; it is nobody's current
        one.
        """
        raise NotImplementedError

    def __enter__(self) -> B:
        run = self.begin()
        run.resume()
        self._runs.push(run)
        return run

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run = self._runs.take()
        if run is None:
            return
        run.pause()
        if error is None:
            run.returned(None)
        else:
            run.raised(error)

    async def __aenter__(self) -> B:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)
