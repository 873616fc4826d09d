"""Whether a call comes back for its deadline, told apart from a machine that is busy."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ldclient import LDClient

from ldinstrument.delivery import flush
from ldinstrument.ledger import ledger

Result = TypeVar("Result")

NEVER = 100.0
"""Seconds that a network takes here which does not answer."""
LATE = 0.5
ATTEMPTS = 5


def in_time(act: Callable[[], Result], timeout: float) -> Result:
    """Call *act* until it comes back no more than `LATE` after *timeout* seconds.

    A plain wait of *timeout* seconds runs beside it: what the machine delays that by is not
        *act*'s.

    Returns:
        What that call returned.

    Raises:
        AssertionError: each of `ATTEMPTS` calls was late.
    """
    late = []
    for _ in range(ATTEMPTS):
        waits: list[float] = []
        beside = threading.Thread(target=lambda waits=waits: waits.append(_wait(timeout)))
        beside.start()
        began = time.monotonic()
        result = act()
        took = time.monotonic() - began
        beside.join()
        late.append(took - max(timeout, waits[0]))
        if late[-1] <= LATE:
            return result
    raise AssertionError(f"late by {[round(seconds, 2) for seconds in late]} s")


def _wait(seconds: float) -> float:
    began = time.monotonic()
    threading.Event().wait(seconds)
    return time.monotonic() - began


@contextlib.contextmanager
def held(lock: Any) -> Iterator[None]:
    """Let another thread hold *lock* for as long as the block."""
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def until_settled(client: LDClient, seconds: float = 30.0) -> None:
    """Flush *client* until nothing is pending, for *seconds* at most."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (
        flush(1.0, client).timed_out or ledger.stats().events.pending
    ):
        time.sleep(0.01)
