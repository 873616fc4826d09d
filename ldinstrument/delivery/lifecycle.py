"""The engines that live in this process, and what happens to them at a fork and at exit."""

from __future__ import annotations

import codecs
import weakref
from typing import Any

from .. import sdk
from ..diagnostics import diagnostics, log
from ..ledger import ledger
from ..process import on_exit, on_exit_of_multiprocessing_child, on_fork
from . import worker as engines
from .undelivered import orphanage
from .worker import Engine

EXIT_TIMEOUT = 2.0

_living: weakref.WeakSet[Engine] = weakref.WeakSet()
_attached: weakref.WeakSet[Any] = weakref.WeakSet()
_paused: list[Engine] = []
_held: list[Any] = []
_watching = False


def enrol(engine: Engine) -> None:
    """Let flushes without a client, forks and the interpreter's exit reach *engine*."""
    global _watching
    _living.add(engine)
    if not _watching:
        _watching = True
        on_exit(_leave)
        orphanage.told = _tell
        engines.started = _watch_child


def _watch_child() -> None:
    on_exit_of_multiprocessing_child(_leave)


def _tell() -> None:
    for engine in living():
        engine.adopt_soon()


def remember(client: Any) -> bool:
    """Let flushes without a client reach *client*; whether it is new."""
    new = client not in _attached
    _attached.add(client)
    return new


def living() -> list[Engine]:
    """The engines that still take events."""
    return [engine for engine in list(_living) if not engine.closed]


def engine_of(client: Any) -> Engine | None:
    """The engine inside *client*, or None when it was built without ours."""
    found = getattr(sdk.event_processor_of(client), "_engine", None)
    return found if isinstance(found, Engine) else None


def strangers() -> list[Any]:
    """The clients we know of that were built without our event processor."""
    known = list(_attached)
    singleton = sdk.singleton_client()
    if singleton is not None and singleton not in known:
        known.append(singleton)
    return [
        client
        for client in known
        if engine_of(client) is None and sdk.discards_everything(client) is None
    ]


def _leave() -> None:
    """The interpreter's exit: posting threads go on for a moment, and have nobody left to tell
    either.
    """
    log.disabled = True
    at_exit()


def at_exit() -> None:
    """End open sessions as abandoned, deliver for at most `close_timeout`, and never say a word."""
    from ..sessions.registry import end_open_sessions
    from .flushing import flush

    before, log.disabled = log.disabled, True
    try:
        end_open_sessions("abandoned")
        patience = min((engine.options.close_timeout for engine in living()), default=EXIT_TIMEOUT)
        flush(timeout=patience)
        for engine in living():
            engine.quiet = True
            engine.close()
        for engine in list(_living):
            engine.wait_for_end(0.2)
    except Exception:  # noqa: S110 - the interpreter is going; there is nobody left to tell
        pass
    finally:
        log.disabled = before


def _before_fork() -> None:
    if _living:
        # The first name resolution imports it, perhaps on a thread at this moment: the child would
        # inherit that import's lock, held for ever, and wait for it with its first connection.
        codecs.lookup("idna")
    for lock in (diagnostics.lock, ledger.lock):
        lock.acquire()
        _held.append(lock)
    _paused.extend(_living)
    for engine in _paused:
        engine.pause()


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().resume()
    _release_held()


def _after_fork_in_child() -> None:
    """What the parent recorded is the parent's to send; engines begin afresh when the child first
    needs them.
    """
    _paused.clear()
    engines.forked()
    ledger.clear()
    diagnostics.clear()
    _release_held()


def _release_held() -> None:
    """Release the very locks that were taken: their owners may have new ones by now."""
    while _held:
        _held.pop().release()


on_fork(before=_before_fork, in_parent=_after_fork_in_parent, in_child=_after_fork_in_child)
