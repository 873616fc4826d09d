"""The thread that sweeps, one per worker and store: with jitter, so that a fleet does not come in step."""

from __future__ import annotations

import random
import threading
import time
import weakref
from typing import TYPE_CHECKING

from ..ledger import ledger

if TYPE_CHECKING:
    from .keeping import SessionStore

SOON = 0.1
LOOK = 60.0


class Sweeper:
    """Brings in what waits for the store, and sweeps, until `stop`.

    Args:
        keeper: held weakly; a store that is forgotten takes its sweeper with it.
    """

    def __init__(self, keeper: SessionStore) -> None:
        self._keeper = weakref.ref(keeper)
        self._bell = threading.Event()
        self._ended = threading.Event()
        self._stopped = False
        self._due = time.monotonic() + _jittered(keeper.interval)
        self._thread = threading.Thread(target=self._run, name="ldinstrument.stores.sweeper", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Something has ended, or failed: look soon."""
        self._due = min(self._due, time.monotonic() + SOON)
        self._bell.set()

    def ring(self) -> None:
        """Something waits to be brought in: now, please."""
        self._bell.set()

    def stop(self, timeout: float) -> bool:
        """End the thread after its keeper's last words; whether that was within *timeout* seconds."""
        self._stopped = True
        self._bell.set()
        return self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            self._watch()
            keeper = self._keeper()
            if keeper is not None:
                keeper.last_words()
        finally:
            self._ended.set()

    def _watch(self) -> None:
        while not self._stopped:
            keeper = self._keeper()
            if keeper is None:
                return
            wait = min(self._due - time.monotonic(), keeper.next_attempt(), LOOK)
            del keeper
            if wait > 0:
                self._bell.wait(wait)
                self._bell.clear()
            if not self._stopped:
                self._guarded()

    def _guarded(self) -> None:
        keeper = self._keeper()
        if keeper is None:
            return
        try:
            keeper.catch_up()
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + _jittered(keeper.interval)
                keeper.sweep_in_background()
        except Exception as error:
            ledger.failure("sweeper", error)


def _jittered(interval: float) -> float:
    return interval * random.uniform(0.5, 1.5)
