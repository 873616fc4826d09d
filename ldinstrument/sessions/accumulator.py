"""What a session has been given: samples as they come, folded by the rollups of their metrics.

The hot path appends a tuple to a list and looks at one integer. Folding comes every few samples
and at the end, and only then are the exposures of the session's units looked up: samples before
one are folded apart from those after it.
"""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..clock import clock, forward_offset, wall_offset
from ..diagnostics import warn_once
from ..ledger import ledger
from ..metrics.catalogs import EventRouting
from .contexts import kinds
from .exposures import Exposure, exposures
from .outcomes import OUTCOMES, Outcome
from .parts import Segment, Tallies
from .rate_limit import within_rate
from .rollups import Emission, FinishedRuns, Fold, Group, expanded, loose_value, unfolded

if TYPE_CHECKING:
    from ldclient import Context

    from .task_definition import TaskDefinition, TaskPlan

_SUCCESS, _FAILURE = Outcome.SUCCESS, Outcome.FAILURE
HELD_RUNS = 64
"""Finished runs that are held as they are before they leave."""
FOLD_AT = 32
"""Samples that are held before they are folded; it bounds how long one call may take."""
MAX_WAITING = 10_000
"""Values that wait for an identity; beyond, the oldest are dropped."""

Sample = tuple[Any, Any, Any, Any, Any]
"""`(TaskDefinition, Outcome, started, ended, data)` or
`(EventRouting, value, data, recorded, None)`, in clock seconds.
"""

_Item = tuple[float, "EventRouting | None", Any, "dict[str, Any] | None"]
"""A sample taken apart: when, and `(routing, value, data)`, or `(None, Outcome, None)`."""

_when = itemgetter(0)


class Accumulator:
    """Samples, folds and tallies of one session. Its owner holds the session's lock.

    Args:
        limited: each value is subject to its metric's `limit`.
        single: so many entries get a segment of their own, whatever exposures are known: an
            exposure in another process, which only a store hears of, may lie between any two.
    """

    __slots__ = (
        "_active",
        "_changes",
        "_consulted",
        "_first",
        "_folding",
        "_folds",
        "_groups",
        "_loose",
        "_low",
        "_offset",
        "_runs",
        "_segment_tallies",
        "_since",
        "_single",
        "_waiting",
        "entries",
        "keys",
        "last",
        "limited",
        "started",
        "tallies",
        "tasks",
        "units",
        "values",
    )

    def __init__(self, *, limited: bool = False, single: int = 0) -> None:
        self.entries: list[Sample] = []
        self.limited = limited
        self._single = single
        self.keys: dict[str, str] = {}
        """Keys by context kind; empty while nobody is known."""
        self.tallies = dict.fromkeys(OUTCOMES, 0)
        self.tasks: dict[str, list[float]] = {}
        self.started = self.last = clock()
        self._offset = wall_offset()
        self.units: tuple[str, ...] = ()
        self._waiting: list[_Item] = []
        self._folding = False
        self._folds: dict[str, Fold] = {}
        self._groups: list[tuple[EventRouting, Group]] = []
        self._loose: list[Emission | FinishedRuns] = []
        self._runs: FinishedRuns | None = None
        self._segment_tallies: dict[Outcome, int] | None = None
        self._since = self.started
        self._low = 0
        self._first: float | None = None
        self._active: float | None = None
        self._changes = -1
        self._consulted = self.started
        self.values = 0
        """How many values the last `fold` took."""

    # -- whose it is -----------------------------------------------------------------------------
    def belong_to(self, context: Context) -> None:
        """Fold for *context* from now on; what waited for an identity is its, too."""
        parts = kinds(context).values()
        self.keys = {part.kind: part.key for part in parts}
        self.units = tuple(part.fully_qualified_key for part in parts)
        self._changes = -1

    # -- dates -----------------------------------------------------------------------------------
    def date(self, reading: float) -> int:
        """Return the date of a clock reading, never before an exposure that lies before it."""
        return max(self._low, int(reading * 1000 + self._offset))

    def date_not_before(self, other: Accumulator) -> None:
        """Date nothing earlier than *other*, which is around this one, would."""
        self._offset = max(self._offset, other._offset)

    # -- folding ---------------------------------------------------------------------------------
    def fold(
        self, *, folds: bool = True, at_last: bool = False, for_store: bool = False
    ) -> list[Segment]:
        """Fold what has come.

        Args:
            folds: whether values fold; they may not where exposures are made that nobody sees.
            at_last: also when nobody is known: then nothing folds, for nobody's exposures are known
                either.
            for_store: values of nobody fold, too: a store divides them later.

        Returns:
            The segments that exposures have ended meanwhile.
        """
        self.values = 0
        if self._folding:  # a finalizer struck inside: the loop below will find what it appended
            return []
        self._folding = True
        try:
            self._offset = forward_offset(self._offset)
            self._take_apart()
            if not self.units and not at_last:
                self._drop_surplus()
                return []
            return self._route(folds=folds and (for_store or bool(self.units)))
        finally:
            self._folding = False

    def _take_apart(self) -> None:
        while self.entries:
            batch = self.entries[:]
            del self.entries[: len(batch)]
            for sample in self._keep_runs(batch) if self._may_keep_runs() else batch:
                if type(sample[0]) is EventRouting:
                    routing, value, data, at, _ = sample
                    self.last = max(self.last, at)
                    self._waiting.append((at, routing, value, data))
                    self.values += 1
                else:
                    self._take_run_apart(sample)
        if self.values:
            ledger.recorded(self.values)

    def _may_keep_runs(self) -> bool:
        """Tell whether runs that do not fold may stay as they are: nothing divides them."""
        if not self.units or self._single or self.limited or self._waiting:
            return False
        if self._changes != exposures.changes and self._later_exposures():
            return False
        # Where the wall clock was set back since an exposure, their own dates would lie before it.
        return self._low <= self._since * 1000 + self._offset

    def _keep_runs(self, batch: list[Sample]) -> list[Sample]:
        """Keep the finished runs in *batch* whose values become an event each.

        Returns:
            The other samples.
        """
        rest: list[Sample] = []
        runs = self._runs
        if runs is None or runs.offset_ms != self._offset:
            runs = self._begin_runs()
        keep, since, last = runs.entries.append, self._since, self.last
        first, active = self._first, self._active
        current, plan = None, None
        for sample in batch:
            task, outcome, started, ended, _ = sample
            if task is not current:
                current = task
                plan = None if type(task) is EventRouting else self._plain_plan(task)
                if plan is not None:
                    tally = self.tasks.setdefault(task.key, [0, 0, 0, 0, 0.0])
            if plan is None or ended < since or not (outcome is _SUCCESS or outcome is _FAILURE):
                rest.append(sample)
                continue
            keep(sample)
            tally[outcome is _FAILURE] += 1
            if ended > started:
                tally[4] += (ended - started) * 1000
            if task.interaction:
                self.tallies[outcome] += 1
                self._tally(outcome)
            if ended > last:
                last = ended
            if first is None or ended < first:
                first = ended
            if active is None or ended > active:
                active = ended
        self.last, self._first, self._active = last, first, active
        self._count_runs(runs, batch, rest)
        return rest

    def _plain_plan(self, task: TaskDefinition) -> TaskPlan | None:
        """Return the plan of *task* if its values become an event each, and remember it."""
        plan = task.plan()
        if not task.key or not plan.plain:
            return None
        runs = self._runs
        if runs is None or runs.plans.setdefault(task, plan) is not plan:
            return None  # the catalog changed under it: one by one until the next batch
        return plan

    def _begin_runs(self) -> FinishedRuns:
        if self._runs is not None and self._runs.entries:
            self._loose.append(self._runs)
        self._runs = FinishedRuns(self._offset)
        return self._runs

    def _count_runs(self, runs: FinishedRuns, batch: list[Sample], rest: list[Sample]) -> None:
        kept = len(batch) - len(rest)
        if not kept:
            return
        values = 0
        counts = Counter([entry[0] for entry in runs.entries[-kept:]])
        for task, count in counts.items():
            task.note_finished(count)
            values += count * runs.plans[task].worth
        runs.values += values
        self.values += values

    def _take_run_apart(self, sample: Sample) -> None:
        task, outcome, started, ended, data = sample
        self.last = max(self.last, ended)
        if outcome is Outcome.SUSPENDED:
            ledger.suspended(task.key)
            self._waiting.append((ended, None, None, None))
            return
        counted = task.counted_as(outcome)
        if task.interaction:
            self.tallies[counted] += 1
        self._waiting.append((ended, None, counted if task.interaction else None, None))
        if not task.key:
            return
        milliseconds = max(0.0, (ended - started) * 1000)
        tally = self.tasks.setdefault(task.key, [0, 0, 0, 0, 0.0])
        tally[OUTCOMES.index(counted)] += 1
        if outcome.finished:
            tally[4] += milliseconds
        for routing, value in task.values(outcome, milliseconds):
            self._waiting.append((ended, routing, value, data))
            self.values += 1

    def _drop_surplus(self) -> None:
        surplus = self._waiting[:-MAX_WAITING]
        if not surplus:
            return
        del self._waiting[:-MAX_WAITING]
        dropped = 0
        for at, routing, value, _ in surplus:
            if routing is None:
                self._note(at, value)
            else:
                dropped += 1
        ledger.discarded("no_context", dropped)
        warn_once(
            "no_context",
            "",
            "too many values of one session wait for an identity; call identify()",
        )

    def _route(self, *, folds: bool) -> list[Segment]:
        boundaries = self._boundaries()
        uncertain = exposures.forgotten if exposures.forgotten > self._consulted else 0.0
        self._consulted = clock()
        items, self._waiting = self._waiting, []
        if boundaries:
            items.sort(key=_when)
        ended = []
        for item in items:
            while boundaries and boundaries[0].read <= item[0]:
                ended.append(self._divide(boundaries.pop(0)))
            if self._single and self._active is not None:
                ended.append(self._single_entry(item[0]))
            self._put(item, folds=folds and item[0] > uncertain)
        ended += [self._divide(boundary) for boundary in boundaries]
        return [segment for segment in ended if segment is not None]

    def _single_entry(self, at: float) -> Segment | None:
        """End the segment before an entry of another date."""
        if self._active is None or self.date(at) == self.date(self._active):
            return None
        self._single -= 1
        return self._segment(at, 0, once=False)

    def _boundaries(self) -> list[Exposure]:
        """Return the exposures of its units after the last boundary, oldest first."""
        if self._changes == exposures.changes:
            return []
        self._changes = exposures.changes
        return self._later_exposures()

    def _later_exposures(self) -> list[Exposure]:
        """Return the exposures after the last boundary; those before it bound the dates."""
        found = []
        for exposure in exposures.of(self.units):
            if exposure.read > self._since:
                found.append(exposure)
            else:
                self._low = max(self._low, exposure.date)
        return found

    def _put(self, item: _Item, *, folds: bool) -> None:
        at, routing, value, data = item
        if routing is None:
            self._note(at, value)
            return
        if self.limited and not within_rate(routing):
            return
        self._note(at, None)
        if at >= self._since:
            self._fold_of(routing if folds else unfolded(routing)).add(value, data, self.date(at))
        else:  # another thread was late: the segment that it belongs to has been folded already
            date = min(int(at * 1000 + self._offset), self._low - 1)
            self._loose += loose_value(routing, value, data, date)

    def _note(self, at: float, outcome: Outcome | None) -> None:
        if outcome is not None:
            self._tally(outcome)
        if at >= self._since:
            self._active = at if self._active is None else max(self._active, at)
            self._first = at if self._first is None else min(self._first, at)

    def _tally(self, outcome: Outcome) -> None:
        if self._segment_tallies is None:
            self._segment_tallies = dict.fromkeys(OUTCOMES, 0)
        self._segment_tallies[outcome] += 1

    def _fold_of(self, routing: EventRouting) -> Fold:
        fold = self._folds.get(routing.event_key)
        if fold is None or (fold.routing is not routing and fold.routing != routing):
            if fold is not None:
                # What was folded under another routing (the catalog has changed) leaves under it.
                self._groups += fold.take_groups(once=True)
                self._loose += fold.take_loose()
            fold = self._folds[routing.event_key] = Fold(routing)
        return fold

    # -- segments --------------------------------------------------------------------------------
    def _divide(self, boundary: Exposure) -> Segment | None:
        """End the segment at *boundary*: date what is held before it, and what follows after it.

        Also an empty one ends: what came before it must not leave with what follows.
        """
        self._date_before(boundary.date)
        segment = self._segment(boundary.read, boundary.date, once=False)
        self._low = max(self._low, boundary.date)
        self._offset = max(self._offset, boundary.date - boundary.read * 1000)
        return segment

    def _date_before(self, date: int) -> None:
        for fold in self._folds.values():
            fold.date_before(date, self._low)
        for _, group in self._groups:
            group.date_before(date, self._low)
        loose = [*expanded(self._loose), *self._take_runs()]
        for emission in loose:
            emission.date_before(date, self._low)
        self._loose = list(loose)

    def close(self) -> Segment | None:
        """End the segment for a change of identity, or for good; occurrences leave, too.

        Returns:
            It; None when nothing is in it.
        """
        return self._segment(clock(), 0, once=True)

    def _segment(self, until: float, boundary: int, *, once: bool) -> Segment | None:
        groups, self._groups = self._groups, []
        for fold in self._folds.values():
            groups += fold.take_groups(once=once)
        tallies, self._segment_tallies = self._segment_tallies, None
        first, active, began = self._first, self._active, self._since
        self._first, self._active, self._since = None, None, max(until, began)
        if not groups and active is None and tallies is None and not boundary:
            return None
        last = self.date(began if active is None else active)
        return Segment(
            keys=self.keys,
            first=self.date(began if first is None else first),
            last=max(self._low, min(last, boundary - 1)) if boundary else last,
            tallies=_ordered(tallies),
            groups=tuple(groups),
            began=began,
            active=active,
            exposed=bool(boundary),
        )

    def empty_segment(self) -> Segment:
        """Make a segment of the present identity in which nothing has happened."""
        now = clock()
        return Segment(
            self.keys, self.date(now), self.date(now), (0, 0, 0, 0), (), now, None, exposed=False
        )

    def touch(self, at: float) -> None:
        """Note activity that leaves no sample."""
        self.last = max(self.last, at)
        if at >= self._since:
            self._note(at, None)

    def _take_runs(self) -> list[Emission]:
        runs, self._runs = self._runs, None
        return [] if runs is None else runs.expanded()

    def take_loose(self, *, hold: int = 0) -> list[Emission | FinishedRuns]:
        """Hand over the values that do not fold, but for fewer than *hold* runs."""
        loose, self._loose = self._loose, []
        runs = self._runs
        if runs is not None and len(runs.entries) >= max(1, hold):
            loose.append(runs)
            self._runs = None
        for fold in self._folds.values():
            if fold.loose:
                loose += fold.take_loose()
        return loose

    def clear(self) -> None:
        """Forget what is held (a forked child: its parent sends it)."""
        self._folding = False
        self.entries.clear()
        self._waiting.clear()
        self._folds.clear()
        self._groups.clear()
        self._loose.clear()
        self._runs = None
        self._segment_tallies = None


def _ordered(tallies: dict[Outcome, int] | None) -> Tallies:
    if tallies is None:
        return 0, 0, 0, 0
    successes, failures, cancelled, abandoned = (tallies[outcome] for outcome in OUTCOMES[:4])
    return successes, failures, cancelled, abandoned
