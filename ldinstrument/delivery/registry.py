"""The workers and clients of this process, and what happens to them at a fork."""

from __future__ import annotations

import weakref
from typing import Any

from .. import sdk
from ..diagnostics import diagnostics
from ..ledger import ledger
from ..process import on_fork
from . import worker as worker_module
from .memory_spool import memory_spool
from .worker import DeliveryWorker, worker_of

_workers: weakref.WeakSet[DeliveryWorker] = weakref.WeakSet()
_clients: weakref.WeakSet[Any] = weakref.WeakSet()
_paused: list[DeliveryWorker] = []
_held: list[Any] = []


def register(worker: DeliveryWorker) -> None:
    """Let flushes without a client, forks and the interpreter's exit reach *worker*."""
    _workers.add(worker)
    memory_spool.notify = _wake_all


def _wake_all() -> None:
    for worker in running_workers():
        worker.look_for_undelivered()


def register_client(client: Any) -> bool:
    """Let flushes without a client reach *client*; tell whether it is new."""
    new = client not in _clients
    _clients.add(client)
    return new


def running_workers() -> list[DeliveryWorker]:
    """Return the workers that still take events."""
    return [worker for worker in list(_workers) if not worker.closed]


def all_workers() -> list[DeliveryWorker]:
    """Return the workers of this process, closed ones too."""
    return list(_workers)


def foreign_clients() -> list[Any]:
    """Return the open clients we know of that were built without our event processor."""
    known = list(_clients)
    singleton = sdk.singleton_client()
    if singleton is not None and singleton not in known:
        known.append(singleton)
    return [
        client
        for client in known
        if worker_of(client) is None
        and sdk.discards_everything(client) is None
        and not sdk.has_ended(client)
    ]


def _before_fork() -> None:
    for lock in (diagnostics.lock, ledger.lock):
        lock.acquire()
        _held.append(lock)
    _paused.extend(_workers)
    for worker in _paused:
        worker.pause()


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().resume()
    _release_held()


def _after_fork_in_child() -> None:
    """Forget what is the parent's to send; workers begin afresh when the child first needs them."""
    _paused.clear()
    worker_module.forked()
    for worker in list(_workers):
        worker.forked()
    memory_spool.clear()
    ledger.clear()
    diagnostics.clear()
    _release_held()


def _release_held() -> None:
    """Release the very locks that were taken: their owners may have new ones by now."""
    while _held:
        _held.pop().release()


on_fork(before=_before_fork, in_parent=_after_fork_in_parent, in_child=_after_fork_in_child)
