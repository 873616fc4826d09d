"""A thread that acts shortly before a function's time-out: after it nothing of ours runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ...diagnostics import guard, log_internal_error
from ...errors import StrictError
from ...process import start_thread


class Watchdog:
    """One thread for all invocations of the process, started at the first.

    Lambda's invocations come one after the other, but a handler may call another one, and a local
    server may call several at once. Arming takes a microsecond: the thread sleeps on until the
    first alarm that it knows of is due, and looks again; it is only woken for an earlier one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: dict[Callable[[], object], float] = {}
        self._sleeps_until: float | None = None
        self._started = False

    def arm(self, at: float, action: Callable[[], object]) -> None:
        """Call *action* at *at* (seconds of `time.monotonic()`), unless disarmed before."""
        with self._changed:
            self._alarms[action] = at
            if not self._started:
                self._start()
            elif self._sleeps_until is None or at < self._sleeps_until:
                self._changed.notify()

    def _start(self) -> None:
        # The process may have no thread left; the handler shall run all the same.
        self._started = start_thread("watchdog", self._run) is not None

    def disarm(self, action: Callable[[], object]) -> None:
        """Forget the alarm of *action*; one that is due at this very moment still runs."""
        with self._changed:
            self._alarms.pop(action, None)

    def _run(self) -> None:
        while True:
            action = self._due()
            try:
                with guard("watchdog"):
                    action()
            except StrictError as error:  # nobody waits for this thread
                log_internal_error("watchdog", error)

    def _due(self) -> Callable[[], object]:
        """Sleep until an alarm is due, and take it."""
        with self._changed:
            while True:
                action = min(self._alarms, key=self._alarms.__getitem__, default=None)
                self._sleeps_until = None if action is None else self._alarms[action]
                if action is not None and self._alarms[action] <= time.monotonic():
                    del self._alarms[action]
                    return action
                self._changed.wait(self._left())

    def _left(self) -> float | None:
        until = self._sleeps_until
        return None if until is None else max(0.0, until - time.monotonic())
