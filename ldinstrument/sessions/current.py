"""The current session: a `ContextVar`, read by tasks and set by whatever opens a session.

It is set by value, never by token: a token is bound to the `Context` it was made in, and generators
are resumed, closed and collected in others.

Decorating a function needs this module, and no session: those load with `opening`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..callables.context_variables import pickle_by_name

if TYPE_CHECKING:
    from .session import Session

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
