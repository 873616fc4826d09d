"""The sessions that are open in this process: counted, ended at exit, begun afresh in a forked
child.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Collection

from ..diagnostics import diagnostics, log
from ..ledger import Stats, ledger
from ..process import on_exit, on_fork
from . import clients, emission
from .exposures import exposures
from .open_table import before_opening, open_references
from .session import Session
from .unattached import count_unattached_runs

_lock = threading.RLock()


# -- what is open ---------------------------------------------------------------------------------


def open_sessions() -> list[Session]:
    """Return the sessions that are open now, oldest first."""
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
                session.ended, session.open_entries = True, None
        for reference in list(open_references):
            if id(reference()) not in kept:
                open_references.pop(reference, None)


@functools.lru_cache(maxsize=1)
def watch_exit() -> None:
    """End what is open at exit, also where no event processor of ours would: before a client is
    closed that was there before the first session.
    """
    on_exit(_at_exit)
    before_opening.clear()


def _at_exit() -> None:
    log.disabled, before = True, log.disabled
    try:
        end_open_sessions("abandoned")
    except Exception:  # noqa: S110 - the interpreter is going; there is nobody left to tell
        pass
    finally:
        log.disabled = before


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


on_fork(in_child=_after_fork, in_parent=exposures.note_fork)
before_opening.append(watch_exit)
