"""Open sessions: checked, known to the registry, observed; or find the open one that is joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..settings import disabled
from . import emission, registry
from .clients import Tracker
from .contexts import as_context, same
from .inert import InertSession
from .session import Session, session_id

if TYPE_CHECKING:
    from ldclient import Context

    from .observers import SessionObserver


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
