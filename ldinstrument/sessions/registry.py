"""The sessions that are open in this process: known weakly, capped, ended at exit, begun afresh in
a forked child.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from ..diagnostics import diagnostics, log, warn_once
from ..ledger import Stats, ledger
from ..metrics.catalogs import catalog
from ..process import on_exit, on_fork
from . import emission
from .unattached import count_unattached_runs, forget_unattached_runs

if TYPE_CHECKING:
    from .session import Session


MAX_OPEN = 10_000

_lock = threading.RLock()
_open: dict[int, weakref.ref[Session]] = {}


def remember(opened: Session) -> None:
    """Note that *opened* is open; when that is one too many, the oldest ends as abandoned."""
    evicted: list[Session] = []
    _watch_exit()
    with _lock:
        _open[id(opened)] = weakref.ref(opened)
        for oldest in list(itertools.islice(_open, max(0, len(_open) - MAX_OPEN))):
            stale = _open.pop(oldest)()
            if stale is not None:
                evicted.append(stale)
    for stale in evicted:
        ledger.evicted()
        warn_once(
            "evicted",
            stale.name,
            f"more than {MAX_OPEN} open {stale.name} sessions: the oldest ended early; end yours",
        )
        stale.end("abandoned")


def forget(ended: Session) -> None:
    """Note that *ended* is open no more."""
    with _lock:
        _open.pop(id(ended), None)


def open_sessions() -> list[Session]:
    """The sessions that are open now, oldest first."""
    with _lock:
        found = [reference() for reference in _open.values()]
    return [one for one in found if one is not None and not one.ended]


def end_open_sessions(reason: str = "abandoned") -> int:
    """End every open session (at exit: as abandoned). Returns how many there were."""
    emission.settle()
    ending = open_sessions()
    for one in ending:
        one.end(reason)
    emission.settle()
    return len(ending)


def stats() -> Stats:
    """The ledger as it stands now, with what open sessions hold and what no session received."""
    count_unattached_runs()
    emission.settle()
    for one in open_sessions():
        one.summary()  # folds what it holds, so that it is counted
    return replace(ledger.stats(), warnings=diagnostics.counts())


def forget_open_sessions() -> None:
    """Forget them without a word: nothing of theirs is emitted (tests)."""
    with _lock:
        for one in open_sessions():
            one.ended = True
        _open.clear()


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


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    forget_unattached_runs(forked=True)
    ledger.forked()
    diagnostics.forked()
    catalog.forked()
    emission.forget()
    for reference in list(_open.values()):
        one = reference()
        if one is not None:
            one._forked()


on_fork(in_child=_after_fork)
