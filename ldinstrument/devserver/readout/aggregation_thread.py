"""Aggregating in the background: what has arrived is counted at once, a moment at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...diagnostics import guard

SLICE_SECONDS = 0.05
PAUSE_SECONDS = 0.001
"""Between two slices, for whoever waits to read."""
WAIT_SECONDS = 0.05
"""So long, at most, does one piece of work wait for POSTs: they go first, and starve nobody."""


class AggregationThread:
    """A thread that aggregates what has arrived, and lets POSTs go first.

    Args:
        aggregate: aggregates for so many seconds; returns whether nothing is left.
    """

    def __init__(self, aggregate: Callable[[float], bool]):
        self.aggregate = aggregate
        self._posts = 0
        self._no_post = threading.Event()
        self._no_post.set()
        self._arrived = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run, name="ldinstrument-devserver-aggregation", daemon=True
        )

    def start(self) -> None:
        """Begin; what an earlier run has left is aggregated first."""
        self._arrived.set()
        self._thread.start()

    def stop(self) -> None:
        """End after the slice that it is at; harmless when it never began."""
        self._stopped = True
        self._arrived.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def post(self) -> Iterator[None]:
        """Hold the aggregation up while a POST is received; on the loop."""
        self._posts += 1
        self._no_post.clear()
        try:
            yield
        finally:
            self._posts -= 1
            if not self._posts:
                self._no_post.set()
            self._arrived.set()

    def give_way(self) -> None:
        """Wait until no POST is being received, but not for long; on any thread."""
        self._no_post.wait(WAIT_SECONDS)

    def _run(self) -> None:
        while not self._stopped:
            self._arrived.wait()
            self._arrived.clear()
            while not self._stopped and not self._aggregate():
                time.sleep(PAUSE_SECONDS)

    def _aggregate(self) -> bool:
        """Aggregate for a moment; after an error wait for the next POST.

        The thread goes on; whoever reads meets the error.
        """
        with guard("count what a local LaunchDarkly received"):
            return self.aggregate(SLICE_SECONDS)
        return True
