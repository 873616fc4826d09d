"""A thread that acts shortly before a function's time-out, because after it nothing of ours runs any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ...ledger import ledger


class Watchdog:
    """One thread for all invocations of the process, started at the first.

    Lambda's invocations come one after the other, so there is one alarm at most. Arming takes a microsecond: the thread
    sleeps on until the alarm before this one would have rung, and looks again; it is only woken to ring earlier.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarm: tuple[float, Callable[[], object]] | None = None
        self._sleeps_until: float | None = None
        self._started = False

    def arm(self, at: float, action: Callable[[], object]) -> None:
        """Call *action* at *at* (seconds of `time.monotonic()`), unless disarmed before."""
        with self._changed:
            self._alarm = at, action
            if not self._started:
                self._start()
            elif self._sleeps_until is None or at < self._sleeps_until:
                self._changed.notify()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="ldinstrument-watchdog", daemon=True).start()
            self._started = True
        except RuntimeError as error:  # the process has no thread left; the handler shall run all the same
            ledger.failure("watchdog", error)

    def disarm(self) -> None:
        """Forget the alarm; one that rings at this very moment still does."""
        with self._changed:
            self._alarm = None

    def _run(self) -> None:
        while True:
            action = self._due()
            try:
                action()
            except Exception as error:
                ledger.failure("watchdog", error)

    def _due(self) -> Callable[[], object]:
        """Sleep until an alarm is due, and take it."""
        with self._changed:
            while self._alarm is None or self._alarm[0] > time.monotonic():
                self._sleeps_until = None if self._alarm is None else self._alarm[0]
                self._changed.wait(self._left())
            _, action = self._alarm
            self._alarm = None
            return action

    def _left(self) -> float | None:
        return None if self._alarm is None else max(0.0, self._alarm[0] - time.monotonic())
