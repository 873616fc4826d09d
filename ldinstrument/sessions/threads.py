"""Carry the session into a thread. `asyncio.to_thread` and tasks inherit it by themselves; nothing
is patched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from ..callables.compiler import shaped
from ..callables.decorating import kind_of
from ..callables.templates import TEMPLATES
from .current import current_session, set_current
from .session import Session

P = ParamSpec("P")
R = TypeVar("R")


class ThreadWatcher:
    """Swaps a session in, by value, while what was carried runs."""

    __slots__ = ("_before", "_mine")
    delegates = False

    def __init__(self, mine: Session | None) -> None:
        self._mine = mine
        self._before: Session | None = None

    def resume(self) -> None:
        """In: remember what the thread has."""
        self._before = set_current(self._mine)

    def pause(self) -> None:
        """Out: give the thread its own back, and remember mine (the body may have entered another
        session).
        """
        self._mine = set_current(self._before)

    def first(self) -> None:
        """Nothing to note."""

    def returned(self, result: Any) -> None:
        """Nothing to note."""

    def raised(self, error: BaseException) -> None:
        """Nothing to note."""


def propagate(fn: Callable[P, R]) -> Callable[P, R]:
    """Return *fn* bound to the session that is current now, for `Thread(target=...)` and
    `executor.submit(...)`.

    The session is that of the moment of this call (None included); the worker thread's own is
    restored afterwards. A coroutine or generator function stays one, and runs in the session to its
    end.
    """
    session = current_session()
    names = {"_begin": lambda: ThreadWatcher(session), "_settle": _as_it_is}
    return cast("Callable[P, R]", shaped(TEMPLATES[kind_of(fn)], fn, names))


def _as_it_is(result: Any, watcher: Any) -> Any:
    return result
