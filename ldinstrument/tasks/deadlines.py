"""`within=`: decide at the right moment that a run which is still open has missed its time.

One daemon thread serves all tasks. Runs of one task have the same limit, so their deadlines come in
order: a queue per limit, whose finished runs leave from its head, is all the bookkeeping.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ..diagnostics import guard
from ..process import on_fork, start_thread
from ..sessions.clock import clock

_LONGEST_SLEEP = 3600.0


class Deadline:
    """The moment at which a run counts as not in time, unless it has ended.

    Whoever takes the one token decides: the run at its end, or the thread at the moment.
    """

    __slots__ = ("_token", "at", "missed")

    def __init__(self, at: float, missed: Callable[[], None]) -> None:
        self.at = at
        self.missed = missed
        self._token = [None]

    def decide(self) -> bool:
        """Take the decision; False when it was taken before."""
        try:
            self._token.pop()  # atomic, without a lock: a finaliser may call this
        except IndexError:
            return False
        return True

    @property
    def decided(self) -> bool:
        """Whether the decision was taken."""
        return not self._token


class Deadlines:
    """The open deadlines of the process, and the thread that waits for them."""

    def __init__(self) -> None:
        self._forked()

    def _forked(self) -> None:
        self._wakeup = threading.Condition(threading.RLock())
        self._queues: dict[float, deque[Deadline]] = {}
        self._thread: threading.Thread | None = None
        self._sleeping_until = 0.0

    def add(self, limit: float, deadline: Deadline) -> None:
        """Wait for *deadline*, which is *limit* seconds after its run's start."""
        with self._wakeup:
            queue = self._queues.setdefault(limit, deque())
            while queue and queue[0].decided:
                queue.popleft()
            queue.append(deadline)
            if self._thread is None:
                self._start()
            elif deadline.at < self._sleeping_until:
                self._wakeup.notify()

    def open_queues(self) -> list[deque[Deadline]]:
        """Return the queue of each limit (tests)."""
        with self._wakeup:
            return list(self._queues.values())

    def forked(self) -> None:
        """Begin afresh in a forked child: the parent's runs are the parent's."""
        self._forked()

    def _start(self) -> None:
        self._thread = start_thread("within", self._work)

    def _work(self) -> None:
        while True:
            for deadline in self._due():
                if deadline.decide():
                    with guard("within", strict=False):
                        deadline.missed()

    def _due(self) -> list[Deadline]:
        """Wait for the next deadline; return those that have passed."""
        with self._wakeup:
            self._sleeping_until = self._next()
            pause = min(self._sleeping_until - clock(), _LONGEST_SLEEP)
            if pause > 0:
                self._wakeup.wait(pause)
            now, due = clock(), []
            for limit in list(self._queues):
                queue = self._queues[limit]
                while queue and (queue[0].decided or queue[0].at <= now):
                    due.append(queue.popleft())
                if not queue:
                    del self._queues[limit]
            return due

    def _next(self) -> float:
        heads = [queue[0].at for queue in self._queues.values() if queue]
        return min(heads, default=clock() + _LONGEST_SLEEP)


deadlines = Deadlines()
on_fork(in_child=deadlines.forked)


def deadline_of(limit: float, started: float, missed: Callable[[], None]) -> Deadline:
    """Return the deadline of a run: *missed* is called on another thread unless it is decided."""
    deadline = Deadline(started + limit, missed)
    with guard("within"):
        deadlines.add(limit, deadline)
    return deadline
