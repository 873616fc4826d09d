"""Flush clients that were built without our event processor, as well as that can be done.

They cannot tell what became of their events; only the deadline is ours to keep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from .. import sdk
from ..diagnostics import guard, raise_if_interrupted
from ..process import start_thread


def left(deadline: float) -> float:
    """Return the seconds until *deadline* (`time.monotonic`), never below 0."""
    return max(0.0, deadline - time.monotonic())


def flush_foreign_clients(clients: Iterable[Any], deadline: float) -> bool:
    """Flush *clients*; tell whether the deadline ended the wait for one of them."""
    late = [not _flush_client(client, deadline) for client in clients]
    return any(late)


async def flush_foreign_clients_async(clients: Iterable[Any], deadline: float) -> bool:
    """Do `flush_foreign_clients` without blocking the event loop."""
    late = [not await _flush_client_async(client, deadline) for client in clients]
    return any(late)


def _flush_client(client: Any, deadline: float) -> bool:
    """Tell whether there is nothing more to wait for before *deadline*."""
    if _has_nothing_to_wait_for(client) or sdk.is_async_client(client):
        return True  # the queue of an async one belongs to its loop, and this is not `aflush`
    processor = sdk.event_processor_of(client)
    if hasattr(processor, "_inbox"):
        with guard("flush of a client built elsewhere"):
            return sdk.flush_sdk_processor(processor, deadline)
        return True
    done = threading.Lock()
    done.acquire()

    def work() -> None:  # whatever it does, and however long
        with guard("flush of a client built elsewhere"):
            client.flush()
        done.release()

    # Without a thread nobody would keep the deadline, and nothing of it is known.
    return start_thread("delivery.flush", work) is not None and done.acquire(timeout=left(deadline))


def _has_nothing_to_wait_for(client: Any) -> bool:
    return (
        bool(sdk.discards_everything(client))
        or not hasattr(client, "flush")
        or sdk.has_ended(client)
    )


async def _flush_client_async(client: Any, deadline: float) -> bool:
    import asyncio

    if _has_nothing_to_wait_for(client):
        return True
    if sdk.is_async_client(client):
        try:
            return bool(
                await asyncio.wait_for(client.flush_and_wait(left(deadline)), left(deadline))
            )
        except asyncio.TimeoutError as error:
            raise_if_interrupted(error)
            return False
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    in_time: list[bool] = []

    def work() -> None:
        in_time.append(_flush_client(client, deadline))
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:  # the loop has been closed in the meantime
            return

    if start_thread("delivery.flush", work) is None:
        return False
    return await set_in_time(done, deadline) and in_time == [True]


async def set_in_time(done: Any, deadline: float) -> bool:
    """Wait for the `asyncio.Event` *done* until *deadline*; tell whether it is set."""
    import asyncio

    try:
        await asyncio.wait_for(done.wait(), left(deadline))
    except asyncio.TimeoutError as error:  # a signal's handler may raise one, too
        raise_if_interrupted(error)
        return bool(done.is_set())
    return True
