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
        self._running = threading.RLock()
        self.runner = 0
        """The thread that makes calls (`threading.get_ident`); 0 when none does."""
        self.add = self.queued.append
        """Queue a call."""

    def run(self) -> None:
        """Make the queued calls; what one of them raises is logged."""
        me = threading.get_ident()
        while self.runner != me:  # else a signal's handler has interrupted it
            # For the lock, see `EventQueue.batch`.
            try:
                if not self._running.acquire(timeout=self._wait):
                    return
                self.runner = me
                while self.queued:
                    with guard("delivery"):
                        self.queued.popleft()()
            finally:
                if self.runner == me:
                    self.runner = 0
                try:
                    self._running.release()
                except RuntimeError:
                    pass
            if not self.queued:
                return
