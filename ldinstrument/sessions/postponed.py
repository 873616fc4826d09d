"""Work that must not happen now: what finalizers leave for the next safe moment.

A finalizer runs wherever the garbage collector struck, perhaps inside the SDK's queue with its lock
held: `track` from there would wait for itself. Appending to a deque is all that it may do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..diagnostics import guard

later: deque[Callable[[], None]] = deque()
"""What is left to do; look here before calling `run_postponed`."""


def postpone(work: Callable[[], None]) -> None:
    """Leave *work* for the next safe moment; at exit, when modules have been emptied, there is
    none.
    """
    if later is not None:
        later.append(work)


def run_postponed() -> None:
    """Run what finalizers have left."""
    while later:
        try:
            work = later.popleft()
        except IndexError:  # another thread took the last one
            return
        with guard("postponed work"):
            work()


def forget() -> None:
    """Drop what is postponed (tests, and a forked child, whose parent keeps its own)."""
    later.clear()
