"""Flush: wait, until a true deadline, for what became of the events; never raise."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from .. import sdk
from ..diagnostics import guard, log, log_once, withhold
from ..ledger import ledger
from ..process import (
    on_exit_of_multiprocessing_child,
    on_exit_of_rq_work_horse,
    watch_forking_thread,
)
from ..sessions import emission, postponed
from ..sessions.registry import end_open_sessions
from ..settings import DISABLED_KEY, disabled, encoded, environ, scans
from .flush_report import FlushReport
from .foreign import flush_foreign_clients, flush_foreign_clients_async, set_in_time
from .memory_spool import memory_spool
from .registry import all_workers, foreign_clients, running_workers
from .sender import Flush
from .worker import DeliveryWorker

LONGEST = 3600.0
EXIT_TIMEOUT = 2.0
UNDELIVERED = ("waiting", "in_flight", "failed")


def flush(timeout: float = 2.0, client: Any | None = None) -> FlushReport:
    """Send what is recorded, wait for LaunchDarkly's answers, and tell what became of it.

    Returns early when nothing more can happen in time: nothing is left, the key is refused, or the
    next attempt is due after the deadline. On an event loop, await `aflush` instead.

    Args:
        timeout: seconds, a true deadline in every state: busy threads, a full queue, a server that
            never answers, a name that never resolves, a forked child, a closed or an offline
            client.
        client: the client to flush; None means every client of this process that we know of.

    Returns:
        The report. This function never raises.
    """
    try:
        if (scans or DISABLED_KEY in encoded or os.environ is not environ) and disabled():
            return FlushReport(confirmed=False)
        deadline, workers, others = _targets(timeout, client)
        counts = flush_workers(workers, deadline)
        late = bool(others) and flush_foreign_clients(others, deadline)
        return _report(counts, late, workers, others)
    except Exception as error:
        withhold("flush", error)
        return FlushReport(confirmed=False)


async def aflush(timeout: float = 2.0, client: Any | None = None) -> FlushReport:
    """Do `flush` for an event loop, which it never blocks.

    Args:
        timeout: seconds, a true deadline.
        client: the client to flush; None means every client of this process that we know of.

    Returns:
        The report. Only cancellation raises.
    """
    try:
        if not disabled():
            deadline, workers, others = _targets(timeout, client)
            counts = await flush_workers_async(workers, deadline)
            late = await flush_foreign_clients_async(others, deadline)
            return _report(counts, late, workers, others)
    except Exception as error:
        withhold("aflush", error)
    return FlushReport(confirmed=False)


def flush_workers(workers: Iterable[DeliveryWorker], deadline: float) -> Counter[str]:
    """Wait for *workers* until *deadline* (`time.monotonic`).

    Returns:
        `track` events by state of their payload, `dropped` since the last report, `others` (events
        of other kinds that are not delivered) and `timed_out`.
    """
    counts: Counter[str] = Counter()
    waits: list[tuple[DeliveryWorker, Flush, threading.Lock]] = []
    try:
        for worker in workers:
            if worker.thread is None or memory_spool.left:
                worker.prepare_flush()
            # Not an Event: its own lock may be held by what a signal handler has interrupted.
            done = threading.Lock()
            done.acquire()
            waits.append((worker, worker.events.open_flush(done.release, deadline), done))
        for _, _, done in waits:
            in_time = done.acquire(timeout=max(0.0, deadline - time.monotonic()))
            counts["timed_out"] += not in_time
    finally:
        for worker, waiting, _ in waits:
            worker.sender.close_flush(waiting, counts, worker.events.unbatched)
    return counts


async def flush_workers_async(workers: Iterable[DeliveryWorker], deadline: float) -> Counter[str]:
    """Do `flush_workers` without blocking the event loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    waits: list[tuple[DeliveryWorker, Flush, asyncio.Event]] = []
    for worker in workers:
        if worker.thread is None or memory_spool.left:
            worker.prepare_flush()
        done = asyncio.Event()
        waits.append((worker, worker.events.open_flush(_setter(loop, done), deadline), done))
    counts: Counter[str] = Counter()
    try:
        for _, _, done in waits:
            counts["timed_out"] += not await set_in_time(done, deadline)
    finally:
        for worker, waiting, _ in waits:
            worker.sender.close_flush(waiting, counts, worker.events.unbatched)
    return counts


def _setter(loop: Any, done: Any) -> Callable[[], None]:
    def set_done() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed in the meantime
            loop.call_soon_threadsafe(done.set)

    return set_done


def _targets(timeout: float, client: Any | None) -> tuple[float, list[DeliveryWorker], list[Any]]:
    """Return the deadline (`time.monotonic`), the workers to flush, and the clients that cannot
    tell.

    Sessions hand over before what they still hold.
    """
    if type(timeout) is float and 0.0 <= timeout <= LONGEST:
        deadline = time.monotonic() + timeout
    else:
        deadline = deadline_of(timeout)
    if emission.held_events or postponed.later:
        with guard("settle"):
            emission.settle()
    if client is None:
        return deadline, running_workers(), foreign_clients()
    try:
        worker = sdk.worker_in(client)
    except AttributeError:  # of another event processor
        worker = None
    if isinstance(worker, DeliveryWorker):
        return deadline, [worker], []
    return deadline, [], [client]


def deadline_of(timeout: float) -> float:
    """Return when a flush of *timeout* seconds, whatever that is, ends (`time.monotonic`)."""
    if not issubclass(type(timeout), (int, float)) or timeout != timeout:
        log_once(
            "bad_timeout",
            "",
            "flush: timeout: give seconds, such as flush(timeout=2.0); 2 seconds are used",
        )
        timeout = 2.0
    return time.monotonic() + min(max(0.0, timeout), LONGEST)


def _report(
    counts: Counter[str], late: bool, workers: list[DeliveryWorker], others: list[Any]
) -> FlushReport:
    unconfirmed = ledger.take_newly_unconfirmed() if ledger.newly_unconfirmed else 0
    return FlushReport(
        delivered=counts["delivered"],
        failed=counts["failed"],
        dropped=counts["dropped"],
        pending=counts["waiting"] + counts["in_flight"] + len(emission.held_events),
        unconfirmed=unconfirmed,
        others=counts["others"],
        timed_out=bool(counts["timed_out"]) or late,
        confirmed=bool(workers) and not others and not unconfirmed,
    )


# -- the exit --------------------------------------------------------------------------------------


def watch_exit_of_child() -> None:
    """Deliver at the end of a child that leaves without `atexit`.

    Children of `multiprocessing` do, RQ's work horses, and those that were forked from a thread.
    """
    on_exit_of_multiprocessing_child(leave)
    on_exit_of_rq_work_horse(leave)
    watch_forking_thread()


def leave() -> None:
    """Do `at_exit`, and keep the logger silent after it: posting threads go on for a moment."""
    log.disabled = True
    at_exit()


def at_exit() -> None:
    """End open sessions as abandoned, deliver for at most `close_timeout`, and log nothing."""
    before, log.disabled = log.disabled, True
    try:
        end_open_sessions("abandoned")
        workers = running_workers()
        flush(
            timeout=min((worker.options.close_timeout for worker in workers), default=EXIT_TIMEOUT)
        )
        for worker in workers:
            worker.close()
        for worker in all_workers():
            worker.wait_for_end(0.2)
    except Exception:  # noqa: S110 - the interpreter exits; there is nobody left to tell
        pass
    finally:
        log.disabled = before
