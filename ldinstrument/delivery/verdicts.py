"""What was decided under a lock, and is told without it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ..ledger import ledger


class Verdicts:
    """Calls that must not be made under the engine's lock: entries into the ledger, and the release of whoever waits.

    A signal handler may have interrupted a thread that holds the ledger's lock, and then want the engine's: so nobody
    may wait for the one while holding the other. They are made in the order in which they were noted, so that whoever
    is released finds the ledger as it should be.
    """

    def __init__(self) -> None:
        self._noted: deque[Callable[[], object]] = deque()
        self._speaking = threading.Lock()

    def note(self, call: Callable[[], object]) -> None:
        """Leave *call* for `pronounce`."""
        self._noted.append(call)

    def pronounce(self) -> None:
        """Make the calls, unless somebody is at it, who then makes these, too. Never waits."""
        while self._noted and self._speaking.acquire(blocking=False):
            try:
                while self._noted:
                    _guarded(self._noted.popleft())
            finally:
                self._speaking.release()


def _guarded(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:
        ledger.failure("delivery", error)
