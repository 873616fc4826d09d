"""Sweeper: the thread that sweeps a store.

There is one per worker and store, with jitter, so that a fleet does not come in step.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from typing import Protocol

from ..diagnostics import guard
from ..process import start_thread
from .protocol import Rules
from .reporting import SweepReport

SOON = 0.1
"""Seconds after the end of a window in which a session ended on request."""
LONGEST_WAIT = 60.0


class Swept(Protocol):
    """What a sweeper works on: a `SessionStore`."""

    interval: float
    """Seconds between two sweeps."""

    rules: Rules
    """When a session is over."""

    def next_attempt(self) -> float:
        """Return the seconds until it makes sense to `catch_up`."""

    def catch_up(self) -> None:
        """Bring to the store what waited for it."""

    def sweep_in_background(self) -> SweepReport:
        """Report what has ended."""

    def finish(self) -> None:
        """End this process's part."""


class Sweeper:
    """A thread that brings in what waits for the store, and sweeps, until `stop`.

    Args:
        swept: held weakly; a store that is forgotten takes its sweeper with it.

    Attributes:
        runs: whether the thread could be started.
    """

    def __init__(self, swept: Swept) -> None:
        self._swept = weakref.ref(swept)
        self._wakeup = threading.Event()
        self._ended = threading.Event()
        self._stopped = False
        self._due = time.monotonic() + _jittered(swept.interval)
        self._window = swept.rules.window
        self.runs = start_thread("stores.sweeper", self._run) is not None

    def sweep_soon(self) -> None:
        """Sweep when the window is over in which a session has just ended."""
        self._due = min(self._due, time.monotonic() + self._window + SOON)
        self._wakeup.set()

    def wake(self) -> None:
        """Look now at what waits to be brought in."""
        self._wakeup.set()

    def stop(self, timeout: float) -> bool:
        """End the thread after the store's final flush; tell whether that was within *timeout*
        seconds.
        """
        self._stopped = True
        self._wakeup.set()
        return self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            self._watch()
            swept = self._swept()
            if swept is not None:
                swept.finish()
        finally:
            self._ended.set()

    def _watch(self) -> None:
        while not self._stopped:
            swept = self._swept()
            if swept is None:
                return
            wait = min(self._due - time.monotonic(), swept.next_attempt(), LONGEST_WAIT)
            del swept
            if wait > 0:
                self._wakeup.wait(wait)
                self._wakeup.clear()
            if not self._stopped:
                self._work()

    def _work(self) -> None:
        swept = self._swept()
        if swept is None:
            return
        with guard("the sweeper of a session store"):
            swept.catch_up()
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + _jittered(swept.interval)
                swept.sweep_in_background()


def _jittered(interval: float) -> float:
    return interval * random.uniform(0.5, 1.5)
