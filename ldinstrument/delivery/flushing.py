"""Flushing: wait, until a true deadline, for what became of the events; never raise."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .. import sdk, settings
from ..diagnostics import log_internal_error, log_once
from ..ledger import ledger
from ..sessions import emission
from .lifecycle import engine_of, living, strangers
from .payloads import Payload
from .worker import Engine, Ticket

if TYPE_CHECKING:
    from .reports import FlushReport


LONGEST = 3600.0
LEFT = ("waiting", "flying", "failed")


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
    if settings.disabled():
        return _unknown()
    try:
        deadline = _deadline(timeout)
        engines, others = _targets(client)
        return _report(
            _flush_by(deadline, engines), _settle_strangers(others, deadline), engines, others
        )
    except Exception as error:
        log_internal_error("flush", error)
        return _unknown()


async def aflush(timeout: float = 2.0, client: Any | None = None) -> FlushReport:
    """`flush` for an event loop, which it never blocks.

    Args:
        timeout: seconds, a true deadline.
        client: the client to flush; None means every client of this process that we know of.

    Returns:
        The report. Only cancellation raises.
    """
    if settings.disabled():
        return _unknown()
    try:
        deadline = _deadline(timeout)
        engines, others = _targets(client)
        counts = await flush_async(engines, _left(deadline))
        late = [not await _settle_stranger_async(one, deadline) for one in others]
        return _report(counts, any(late), engines, others)
    except Exception as error:
        log_internal_error("aflush", error)
        return _unknown()


def flush_engines(engines: Iterable[Engine], timeout: float) -> Counter[str]:
    """Wait for *engines*; custom events by state, and `timed_out`."""
    return _flush_by(_deadline(timeout), list(engines))


def _flush_by(deadline: float, engines: list[Engine]) -> Counter[str]:
    counts: Counter[str] = Counter()
    sent: list[Payload] | None = []
    if (
        len(engines) == 1
    ):  # of two, the second would not even be asked before the first has answered
        sent = engines[0].flush_here(deadline, counts)
        if sent is None:
            return counts
    waits: list[tuple[Engine, Ticket, threading.Lock]] = []
    for engine in engines:
        done = (
            threading.Lock()
        )  # not an Event: its own lock may be held by what a signal handler has interrupted
        done.acquire()
        waits.append((engine, engine.open_ticket(done.release, deadline, sent or ()), done))
    for engine, ticket, done in waits:
        counts["timed_out"] += not (
            done.acquire(blocking=False) or done.acquire(timeout=_left(deadline))
        )
        engine.close_ticket(ticket, counts)
    return counts


async def flush_async(engines: Iterable[Engine], timeout: float) -> Counter[str]:
    """`flush_engines` for an event loop."""
    import asyncio

    deadline = _deadline(timeout)
    loop = asyncio.get_running_loop()
    waits: list[tuple[Engine, Ticket, asyncio.Event]] = []
    for engine in engines:
        done = asyncio.Event()
        waits.append((engine, engine.open_ticket(_setter(loop, done), deadline), done))
    counts: Counter[str] = Counter()
    try:
        for _, _, done in waits:
            counts["timed_out"] += not await _set_in_time(done, deadline)
    finally:
        for engine, ticket, _ in waits:
            engine.close_ticket(ticket, counts)
    return counts


def _setter(loop: Any, done: Any) -> Callable[[], None]:
    return lambda: loop.call_soon_threadsafe(done.set)


async def _set_in_time(done: Any, deadline: float) -> bool:
    import asyncio

    try:
        await asyncio.wait_for(done.wait(), _left(deadline))
    except asyncio.TimeoutError:
        return bool(done.is_set())
    return True


def _deadline(timeout: float) -> float:
    if not isinstance(timeout, (int, float)) or timeout != timeout:
        log_once(
            "bad_timeout",
            "",
            "flush: timeout: give seconds, such as flush(timeout=2.0); 2 seconds are used",
        )
        timeout = 2.0
    return time.monotonic() + min(max(0.0, timeout), LONGEST)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _targets(client: Any | None) -> tuple[list[Engine], list[Any]]:
    """The engines to flush, and the clients that cannot tell, after the core has handed over what
    it still had.
    """
    try:
        emission.settle()
    except Exception as error:
        log_internal_error("settle", error)
    if client is None:
        return living(), strangers()
    engine = engine_of(client)
    return ([engine], []) if engine is not None else ([], [client])


# -- clients built without our event processor: the best that is possible --------------------------


def _settle_strangers(clients: list[Any], deadline: float) -> bool:
    """Whether the deadline ended the wait for one of *clients*."""
    late = [not _settle_stranger(client, deadline) for client in clients]
    return any(late)


def _settle_stranger(client: Any, deadline: float) -> bool:
    """Whether there is nothing more to wait for before *deadline*; what became of its events,
    *client* cannot tell.
    """
    if _has_nothing_to_wait_for(client) or sdk.is_async_client(client):
        return True  # the queue of an async one belongs to its loop, and this is not `aflush`
    processor = sdk.event_processor_of(client)
    if hasattr(processor, "_inbox"):
        return _guarded(lambda: sdk.nudge(processor, deadline))
    done = threading.Lock()
    done.acquire()

    def work() -> None:  # whatever it does, and however long
        _guarded(client.flush)
        done.release()

    threading.Thread(target=work, name="ldinstrument.delivery.nudge", daemon=True).start()
    return done.acquire(timeout=_left(deadline))


def _has_nothing_to_wait_for(client: Any) -> bool:
    return (
        bool(sdk.discards_everything(client))
        or not hasattr(client, "flush")
        or sdk.has_ended(client)
    )


def _guarded(work: Callable[[], Any]) -> bool:
    try:
        return bool(work())
    except Exception as error:
        log_internal_error("flush of a client built elsewhere", error)
        return True


async def _settle_stranger_async(client: Any, deadline: float) -> bool:
    import asyncio

    if _has_nothing_to_wait_for(client):
        return True
    if sdk.is_async_client(client):
        try:
            return bool(
                await asyncio.wait_for(client.flush_and_wait(_left(deadline)), _left(deadline))
            )
        except asyncio.TimeoutError:
            return False
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    fate: list[bool] = []

    def work() -> None:
        fate.append(_settle_stranger(client, deadline))
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:  # the loop has gone in the meantime
            return

    threading.Thread(target=work, name="ldinstrument.delivery.nudge", daemon=True).start()
    return await _set_in_time(done, deadline) and fate == [True]


# -- the report ------------------------------------------------------------------------------------


def _unknown() -> FlushReport:
    from .reports import FlushReport

    return FlushReport(confirmed=False)


def _report(
    counts: Counter[str], late: bool, engines: list[Engine], others: list[Any]
) -> FlushReport:
    from .reports import FlushReport

    unconfirmed = ledger.newly_unconfirmed()
    return FlushReport(
        delivered=counts["delivered"],
        failed=counts["failed"],
        dropped=counts["dropped"],
        pending=counts["waiting"] + counts["flying"] + emission.held(),
        unconfirmed=unconfirmed,
        timed_out=bool(counts["timed_out"]) or late,
        confirmed=bool(engines) and not others and not unconfirmed,
    )
