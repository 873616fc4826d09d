"""The current session: a `ContextVar`, read by tasks and set by whatever opens a session.

It is set by value, never by token: a token is bound to the `Context` it was made in, and generators
are resumed, closed and collected in others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..callables.context_variables import pickle_by_name
from ..settings import disabled
from . import emission, registry
from .clients import Tracker
from .contexts import as_context, same
from .inert import InertSession
from .session import Session, session_id

if TYPE_CHECKING:
    from ldclient import Context

    from .observers import SessionObserver

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


def open_session(context: Any = None, *, id: str | None = None, **options: Any) -> Session:
    """Open a session without making it current; somebody must `end()` it.

    Args:
        context: whose; anything that `as_context` takes.
        id: of the session; random when None.
        options: of `Session`.
    """
    if disabled():
        return InertSession(None, id=id, name=options.get("name", "session"))
    return opened(as_context(context), id=id, **options)


def opened(context: Context | None, **options: Any) -> Session:
    """Open a session of a *context* that is known to be valid."""
    emission.settle()
    session = Session(context, **options)
    registry.remember(session)
    for make in _observing:
        session.observe(make(session))
    return session


_observing: list[Callable[[Session], SessionObserver]] = []


def observe_sessions(make: Callable[[Session], SessionObserver] | None) -> None:
    """Let *make* give each session that is opened from now on its observer; None: none."""
    _observing[:] = [] if make is None else [make]


def joinable(
    around: Session, name: str, context: Context | None, id: str | None, client: Tracker | None
) -> Session | None:
    """Return the open session, *around* or around that, which one of this *name* and *context*
    joins; None when there is none.
    """
    found: Session | None = around
    while found is not None:
        if (
            found.name == name
            and not found.ended
            and (id is None or session_id(id) == found.id)
            and (client is None or client is found.client)
            and (context is None or found.context is None or same(found.context, context))
        ):
            return found
        found = found.outer
    return None
