"""Calls that are queued while a lock is held, and made after it has been released.

A signal handler, or a finaliser, may interrupt a thread that holds the ledger's lock, and then want
the sender's: so nobody may wait for the one while holding the other. The calls are made in the
order in which they were queued, so that a flush that is woken finds the ledger as it should be.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ..diagnostics import guard


class UnlockedCalls:
    """Queue calls under a lock; `run` makes them outside it, one thread at a time.

    Args:
        wait: seconds that `run` waits for another thread which is making calls. With 0 it leaves
            its own to that thread, and never waits: a signal handler may have interrupted that
            very thread. Otherwise what was queued before `run` is done when it returns in time.
    """

    def __init__(self, wait: float = 0.0) -> None:
        self._wait = wait
        self.queued: deque[Callable[[], object]] = deque()
        """The calls that `run` has not begun."""
        self.running = threading.Lock()
        """Held while `run` makes calls."""
        self.add = self.queued.append
        """Queue a call."""

    def run(self) -> None:
        """Make the queued calls; what one of them raises is logged."""
        while self.running.acquire(timeout=self._wait):
            try:
                while self.queued:
                    with guard("delivery"):
                        self.queued.popleft()()
            finally:
                self.running.release()
            if not self.queued:
                return
