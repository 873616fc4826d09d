"""The sessions that are open in this process: known weakly, capped, ended at exit, begun afresh in
a forked child.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Collection
from typing import Any, Protocol

from ..diagnostics import diagnostics, log, warn_once
from ..ledger import Stats, ledger
from ..process import on_exit, on_fork
from . import clients, emission
from .exposures import exposures
from .unattached import count_unattached_runs


class OpenSession(Protocol):
    """What the registry asks of a session."""

    name: str
    ended: bool
    detour: bool
    store: Any
    outer: Any

    @property
    def id(self) -> str:
        """Its id, which is made when it is first asked for."""

    def end(self, reason: str = "ended") -> None:
        """End it and emit its metrics."""

    def summary(self) -> object:
        """Fold what it holds, so that it is counted."""

    def forget(self) -> None:
        """End it without a word."""

    def forked(self) -> None:
        """Begin afresh in a forked child."""


MAX_OPEN = 10_000

_lock = threading.RLock()
_open: dict[weakref.ref[OpenSession], None] = {}


def remember(opened: OpenSession) -> None:
    """Note that *opened* is open; when that is one too many, the oldest ends as abandoned."""
    _watch_exit()
    with _lock:
        _open[weakref.ref(opened)] = None
        surplus = len(_open) - MAX_OPEN
    if surplus > 0:
        _evict(surplus)


def _evict(surplus: int) -> None:
    with _lock:
        oldest = list(itertools.islice(_open, surplus))
        for reference in oldest:
            del _open[reference]
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


def forget(ended: OpenSession) -> None:
    """Note that *ended* is open no more."""
    with _lock:
        _open.pop(weakref.ref(ended), None)


def open_sessions() -> list[OpenSession]:
    """Return the sessions that are open now, oldest first."""
    with _lock:
        found = [reference() for reference in list(_open)]
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


def forget_open_sessions(keeping: Collection[OpenSession] = ()) -> None:
    """Forget the open sessions but those in *keeping*: nothing of theirs is emitted (tests)."""
    kept = {id(session) for session in keeping}
    with _lock:
        for session in open_sessions():
            if id(session) not in kept:
                session.ended = session.detour = True
        for reference in list(_open):
            if id(reference()) not in kept:
                del _open[reference]


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
    for reference in list(_open):
        if (session := reference()) is not None:
            _ = session.id


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    emission.forget()
    clients.forked()
    exposures.forked()
    for reference in list(_open):
        session = reference()
        if session is not None:
            session.forked()


on_fork(before=_name_open_sessions, in_child=_after_fork)
