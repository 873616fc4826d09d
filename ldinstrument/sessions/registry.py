"""The sessions that are open in this process: opened, found, capped, ended at exit, begun afresh in
a forked child.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from ..diagnostics import diagnostics, log, warn_once
from ..ledger import Stats, ledger
from ..process import on_exit, on_fork
from ..settings import disabled
from . import clients, emission
from .contexts import as_context, same
from .exposures import exposures
from .inert import InertSession
from .postponed import later
from .session import Session, open_references, session_id
from .unattached import count_unattached_runs

if TYPE_CHECKING:
    from ldclient import Context

    from .clients import Tracker
    from .observers import SessionObserver

MAX_OPEN = 10_000

_lock = threading.RLock()


# -- opening ---------------------------------------------------------------------------------------


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
    """Open a session of a *context* that is known to be valid; when that is one too many, the
    oldest ends as abandoned.
    """
    if later or emission.held_events:
        emission.settle()
    session = Session(context, **options)
    _watch_exit()
    open_references[weakref.ref(session)] = None
    if len(open_references) > MAX_OPEN:
        _evict(len(open_references) - MAX_OPEN)
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


def _evict(surplus: int) -> None:
    with _lock:
        oldest = list(itertools.islice(open_references, surplus))
        for reference in oldest:
            open_references.pop(reference, None)
    for reference in oldest:
        stale = reference()
        if stale is None:
            continue
        ledger.evicted()
        warn_once(
            "evicted",
            stale.name,
            f"more than {MAX_OPEN} open {stale.name} sessions: the oldest ended early; end yours",
        )
        stale.end("abandoned")


# -- what is open ---------------------------------------------------------------------------------


def open_sessions() -> list[Session]:
    """Return the sessions that are open now, oldest first."""
    with _lock:
        found = [reference() for reference in list(open_references)]
    return [session for session in found if session is not None and not session.ended]


def end_open_sessions(reason: str = "abandoned") -> int:
    """End every open session (at exit: as abandoned). Returns how many there were."""
    emission.settle()
    ending = open_sessions()
    for session in ending:
        session.end(reason)
    emission.settle()
    return len(ending)


def stats() -> Stats:
    """Read the ledger, with what open sessions hold and what no session received."""
    count_unattached_runs()
    emission.settle()
    for session in open_sessions():
        session.summary()  # folds what it holds, so that it is counted
    return ledger.stats().replace(warnings=diagnostics.counts())


def forget_open_sessions(keeping: Collection[Session] = ()) -> None:
    """Forget the open sessions but those in *keeping*: nothing of theirs is emitted (tests)."""
    kept = {id(session) for session in keeping}
    with _lock:
        for session in open_sessions():
            if id(session) not in kept:
                session.ended = session.detour = True
        for reference in list(open_references):
            if id(reference()) not in kept:
                open_references.pop(reference, None)


@functools.lru_cache(maxsize=1)
def _watch_exit() -> None:
    """End what is open at exit, also where no event processor of ours would: before a client is
    closed that was there before the first session.
    """
    on_exit(_at_exit)


def _at_exit() -> None:
    log.disabled, before = True, log.disabled
    try:
        end_open_sessions("abandoned")
    except Exception:  # noqa: S110 - the interpreter is going; there is nobody left to tell
        pass
    finally:
        log.disabled = before


def _name_open_sessions() -> None:
    """Let each open session have its id before a fork: the child tells its part of the same one.

    No lock is waited for whose holder may wait for one that other hooks hold by now.
    """
    for reference in list(open_references):
        if (session := reference()) is not None:
            _ = session.id


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    emission.forget()
    clients.forked()
    exposures.forked()
    for reference in list(open_references):
        session = reference()
        if session is not None:
            session.forked()


on_fork(before=_name_open_sessions, in_child=_after_fork)
