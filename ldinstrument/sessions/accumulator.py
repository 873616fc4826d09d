"""What a session has been given: entries as they come, folded by the rollups of their metrics,
taken out as events.

The hot path appends a tuple to a list and looks at one integer; folding belongs to the end, or to
every n-th entry.
"""

from __future__ import annotations

import threading
from typing import Any

from ..clock import clock, wall_offset
from ..ledger import ledger
from ..metrics.catalogs import EventRouting
from .outcomes import OUTCOMES, Outcome
from .rate_limit import within_rate
from .rollups import Emission, Fold

FOLD_AT = 256
"""Entries that are held before they are folded: each `track` costs about 20 us, and this bounds the
stall.
"""

Sample = tuple[Any, Any, Any, Any, Any]
"""`(TaskDefinition, Outcome, started, ended, data)` or `(EventRouting, value, data, recorded, None)`,
in clock seconds.
"""


class Accumulator:
    """Entries, folds and tallies of one session; it says nothing of whose they are, nor where they
    go.

    Args:
        limited: each value is subject to its metric's `limit`.
    """

    __slots__ = (
        "_folding",
        "_folds",
        "_last",
        "_limited",
        "_lock",
        "_offset_ms",
        "_tallies",
        "_tasks",
        "_waiting",
        "_withheld",
        "entries",
        "fold_at",
    )

    def __init__(self, *, limited: bool = False) -> None:
        self._limited = limited
        self._lock = threading.RLock()
        self.entries: list[Sample] = []
        self.fold_at = FOLD_AT
        self._folding = False
        self._folds: dict[str, Fold] = {}
        self._waiting: list[Emission] = []
        self._withheld = 0
        self._tasks: dict[str, list[float]] = {}
        self._tallies = dict.fromkeys(OUTCOMES, 0)
        self._last = clock()
        self._offset_ms = wall_offset()

    # -- folding ---------------------------------------------------------------------------------
    def _fold(self) -> None:
        if self._folding:  # a finaliser struck inside: the loop below will find what it appended
            return
        self._folding = True
        try:
            while self.entries:
                batch = self.entries[:]
                del self.entries[: len(batch)]
                for entry in batch:
                    if type(entry[0]) is EventRouting:
                        self._fold_value(entry)
                    else:
                        self._fold_run(entry)
        finally:
            self._folding = False

    def _fold_value(self, entry: Sample) -> None:
        routing, value, data, at, _ = entry
        self._last = max(self._last, at)
        self._into(routing, value, data, at)
        ledger.recorded()

    def _fold_run(self, entry: Sample) -> None:
        task, outcome, started, ended, data = entry
        self._last = max(self._last, ended)
        if outcome is Outcome.SUSPENDED:
            ledger.suspended(task.key)
            return
        counted = task.counted_as(outcome)
        if task.interaction:
            self._tallies[counted] += 1
        if not task.key:
            return
        milliseconds = max(0.0, (ended - started) * 1000)
        tally = self._tasks.setdefault(task.key, [0, 0, 0, 0, 0.0])
        tally[OUTCOMES.index(counted)] += 1
        if outcome.finished:
            tally[4] += milliseconds
        values = task.values(outcome, milliseconds)
        ledger.recorded(len(values))
        for routing, value in values:
            self._into(routing, value, data, ended)

    def _into(
        self, routing: EventRouting, value: Any, data: dict[str, Any] | None, at: float
    ) -> None:
        if self._limited and not within_rate(routing.event_key, routing.rate):
            self._withheld += 1
            ledger.discarded("rate_limited")
            return
        fold = self._folds.get(routing.event_key)
        if fold is None or (fold.routing is not routing and fold.routing != routing):
            if (
                fold is not None
            ):  # the catalog changed under us: what was folded under the old routing leaves under it
                self._waiting.extend(fold.take())
            fold = self._folds[routing.event_key] = Fold(routing)
        fold.add(value, data, self._date(at))

    def _date(self, at: float) -> int:
        """The wall-clock date of a clock reading: a wall clock set back in between cannot disorder
        events.
        """
        return int(at * 1000 + self._offset_ms)

    # -- taking out; the lock is held ------------------------------------------------------------
    def _take(self) -> list[Emission]:
        self._fold()
        return self._take_folded()

    def _take_folded(self) -> list[Emission]:
        waiting, self._waiting = self._waiting, []
        return waiting + [one for fold in self._folds.values() for one in fold.take()]

    def _take_loose(self) -> list[Emission]:
        loose, self._waiting = self._waiting, []
        for fold in self._folds.values():
            if fold.loose:
                taken, fold.loose = fold.loose, []
                loose.extend(taken)
        return loose
