"""What a session has been given: samples as they come, folded by the rollups of their metrics.

The hot path appends a tuple to a list and looks at one integer. Folding comes every few samples
and at the end, and only then are the exposures of the session's units looked up: samples before
one are folded apart from those after it.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import compress, groupby
from operator import itemgetter, sub
from struct import pack
from typing import TYPE_CHECKING, Any

from ..diagnostics import warn_once
from ..ledger import ledger
from ..metrics.catalogs import EventRouting, catalog
from . import clock as clocks
from .clock import STEP, clock, forward_offset, wall_offset
from .contexts import kinds
from .exposures import Exposure, exposures
from .outcomes import FINISHED, NO_TALLIES, Outcome, Tallies, added
from .parts import Segment
from .rate_limit import within_rate
from .rollups import Emission, FinishedRuns, Fold, Group, expanded, loose_value, unfolded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ldclient import Context

    from .task_definition import TaskDefinition, TaskPlan

_NEVER = float("inf")
HELD_RUNS = 64
"""Finished runs that are held before they leave."""
FOLD_AT = 32
"""Samples that are held before they are folded; it bounds how long one call may take."""
MOST_RUNS = 1000
"""Finished runs that are written as one text."""
MAX_WAITING = 10_000
"""Samples that wait for an identity; beyond, the oldest are dropped."""

Sample = tuple[Any, Any, Any, Any, Any]
"""`(TaskDefinition, Outcome, started, ended, data)` or
`(EventRouting, value, data, recorded, None)`, in clock seconds.
"""

_what, _when = itemgetter(0), itemgetter(3)
_SUCCESS, _FAILURE = Outcome.SUCCESS, Outcome.FAILURE


class Accumulator:
    """Samples, folds and tallies of one session. Its owner holds the session's lock.

    Args:
        entries: where the samples come; a new list when None.
        context: whose they are, when that is known.
        started: its start, a clock reading; now when None.
        offset: what dates a clock reading, in milliseconds; the present one when None.
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
        "_runs",
        "_segment_tallies",
        "_since",
        "_single",
        "_waiting",
        "entries",
        "keys",
        "last",
        "limited",
        "offset",
        "started",
        "tallies",
        "tasks",
        "units",
        "values",
    )

    def __init__(
        self,
        entries: list[Sample] | None = None,
        *,
        context: Context | None = None,
        started: float | None = None,
        offset: float | None = None,
        limited: bool = False,
        single: int = 0,
    ) -> None:
        self.entries: list[Sample] = [] if entries is None else entries
        self.limited = limited
        self._single = single
        self.keys: dict[str, str] = {}
        """Keys by context kind; empty while nobody is known."""
        self.units: tuple[str, ...] = ()
        self._changes = -1
        if context is not None:
            if context.multiple:
                self.belong_to(context)
            else:
                self.keys, self.units = {context.kind: context.key}, (context.fully_qualified_key,)
        self.tallies: Tallies = NO_TALLIES
        self.tasks: dict[str, list[float]] = {}
        self.started = clock() if started is None else started
        self.last = self._since = self._consulted = self.started
        self.offset = wall_offset() if offset is None else offset
        self._low = 0
        self._waiting: list[Sample] = []
        self._folding = False
        self._folds: dict[str, Fold] = {}
        self._groups: list[tuple[EventRouting, Group]] = []
        self._loose: list[Emission | FinishedRuns] = []
        self._runs: FinishedRuns | None = None
        self._segment_tallies: Tallies = NO_TALLIES
        self._first: float | None = None
        self._active: float | None = None
        self.values = 0
        """How many values the last `fold` took."""

    # -- whose it is -----------------------------------------------------------------------------
    def belong_to(self, context: Context) -> None:
        """Fold for *context* from now on; what waited for an identity is its, too."""
        parts = kinds(context)
        self.keys = {kind: part.key for kind, part in parts.items()}
        self.units = tuple([part.fully_qualified_key for part in parts.values()])
        self._changes = -1

    # -- dates -----------------------------------------------------------------------------------
    def date(self, reading: float) -> int:
        """Return the date of a clock reading, never before an exposure that lies before it."""
        return max(self._low, int(reading * 1000 + self.offset))

    # -- taking ----------------------------------------------------------------------------------
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
        if self._folding:  # a finalizer struck inside: what it appended is left for the next time
            return []
        self._folding = True
        try:
            now, changes = clock(), exposures.changes
            if (clocks.wall.time() - now) * 1000 - self.offset >= STEP:
                self.offset = forward_offset(self.offset)
            samples = self.entries[:]
            del self.entries[: len(samples)]

            # By what was measured; nearly always all are runs of one task.
            groups: list[tuple[list[Sample], list[tuple[Any, ...]]]] = []
            if samples:
                columns = list(zip(*samples, strict=True))
                whats, _, _, dates, _ = columns
                first, last = min(dates), max(dates)
                self.last = max(self.last, last)
                groups = [(samples, columns)]
                if whats[0] is not whats[-1] or whats.count(whats[0]) < len(samples):
                    parts = [list(part) for _, part in groupby(samples, _what)]
                    groups = [(part, list(zip(*part, strict=True))) for part in parts]

            # Mostly no exposure lies between any of them, and they fold at once.
            folds = folds and (for_store or bool(self.units))
            waits = not (self.units or at_last)
            boundaries: list[Exposure] | None = None
            whole = False
            apart = self._single and (len(samples) > 1 or self._active is not None)
            if folds and not (waits or apart or self._waiting or self.limited):
                if changes == self._changes or not exposures.of(self.units, lost=True):
                    boundaries, self._changes = [], changes
                else:
                    boundaries = self._boundaries()
                late = samples and first < self._since
                whole = not (boundaries or late or exposures.forgotten > self._consulted)
                if whole:
                    self._consulted = now

            for runs, columns in groups:
                what = columns[0][0]
                if type(what) is not EventRouting:
                    self._take_runs(what, runs, columns, whole)
                    continue
                self.values += len(runs)
                if whole:
                    for _, value, data, at, _ in runs:
                        self._fold_value(what, value, data, at, 0.0)

            if not whole:
                return self._fold_apart(samples, boundaries, folds=folds, waits=waits)
            if samples:
                self._first = first if self._first is None else min(first, self._first)
                self._active = last if self._active is None else max(last, self._active)
            return []
        finally:  # a signal's handler may have raised: what is folded is counted all the same
            self._folding = False
            if self.values:
                ledger.count(recorded=self.values)

    def _take_runs(
        self,
        task: TaskDefinition,
        runs: Sequence[Sample],
        columns: Sequence[tuple[Any, ...]],
        whole: bool,
    ) -> None:
        """Count *runs* of one *task*; fold them, too, where all samples fold as a *whole*.

        Args:
            task: whose runs.
            runs: in order, at least one.
            columns: the same, by what they are made of.
            whole: whether no exposure lies between any samples.
        """
        plan = task.latest_plan  # mostly what `plan()` would return
        if plan is None or plan.version != catalog.version:
            plan = task.plan()
        _, outcomes, started, ended, _ = columns
        seconds = took = list(map(sub, ended, started))
        successes = outcomes.count(_SUCCESS)
        failures = 0 if successes == len(runs) else outcomes.count(_FAILURE)
        finished = successes + failures == len(runs)
        if finished:
            counted: Tallies = (successes, failures, 0, 0)
            if task.key:
                task.runs += len(runs)
                self.values += len(runs) * plan.worth
        else:
            found = _counted(outcomes)
            self.values += task.count(found)
            counted = task.tallied(found)
            took = [*compress(seconds, [outcome in FINISHED for outcome in outcomes])]

        if task.interaction:
            so_far = self.tallies
            self.tallies = counted if so_far is NO_TALLIES else added(so_far, counted)
        if task.key:
            tally = self.tasks.setdefault(task.key, [0, 0, 0, 0, 0.0])
            for place, count in enumerate(counted):
                tally[place] += count
            tally[4] += max(0.0, sum(took) * 1000)

        if whole:
            if task.interaction:
                so_far = self._segment_tallies
                self._segment_tallies = counted if so_far is NO_TALLIES else added(so_far, counted)
            # Where the wall clock was set back since an exposure, the dates of runs as they are
            # would lie before it.
            if finished and plan.plain and self._low <= self._since * 1000 + self.offset:
                self._hold(task, plan, columns, seconds)
            elif plan.worth:
                self._fold_runs(task, runs, 0.0)

    def _without_surplus(self, samples: list[Sample]) -> list[Sample]:
        """Return the latest samples, as many as may wait for an identity."""
        surplus = samples[:-MAX_WAITING]
        if surplus:
            dropped = sum(
                1 if type(what) is EventRouting else len(what.plan().values(outcome, 0.0))
                for what, outcome, *_ in surplus
            )
            ledger.discarded("no_context", dropped)
            warn_once(
                "no_context",
                "",
                f"more than {MAX_WAITING} values of one session wait for an identity: the "
                "oldest are dropped; call identify(), or give the session context=",
            )
        return samples[-MAX_WAITING:]

    # -- folding ---------------------------------------------------------------------------------
    def _fold_apart(
        self,
        samples: list[Sample],
        boundaries: list[Exposure] | None,
        *,
        folds: bool,
        waits: bool,
    ) -> list[Segment]:
        """Fold *samples*, divided at the exposures that were made meanwhile.

        Args:
            samples: as they came, counted.
            boundaries: those exposures; None where nobody has looked yet.
            folds: whether values fold.
            waits: whether they wait for an identity instead.

        Returns:
            The segments that have ended.
        """
        if self._waiting:
            samples, self._waiting = self._waiting + samples, []
        if waits:
            self._waiting = self._without_surplus(samples)
            return []
        if self.limited and samples and self._since == self.started:
            # One run, which was over before its session was opened for it.
            self._since = min(self._since, *map(_when, samples))
        if boundaries is None:
            boundaries = self._boundaries()
        uncertain = exposures.forgotten if exposures.forgotten > self._consulted else 0.0
        self._consulted = clock()
        folds_after = uncertain if folds else _NEVER
        ended: list[Segment | None] = []
        if boundaries:
            samples.sort(key=_when)
        for place, boundary in enumerate(boundaries):
            cut = bisect_left(samples, boundary.read, key=_when)
            before = min(later.date for later in boundaries[place:])
            ended += self._fold(samples[:cut], folds_after, before)
            ended.append(self._divide(boundary))
            samples = samples[cut:]
        ended += self._fold(samples, folds_after)
        return [segment for segment in ended if segment is not None]

    def _boundaries(self) -> list[Exposure]:
        """Return the exposures after the last boundary, oldest first; earlier ones bound dates."""
        if self._changes == exposures.changes:
            return []
        self._changes = exposures.changes
        later = []
        for exposure in exposures.of(self.units, lost=True):
            if exposure.read > self._since:
                later.append(exposure)
            else:
                self._low = max(self._low, exposure.date)
        return later

    def _single_segment(self, until: float, before: int) -> Segment | None:
        """End the segment of one entry, whose date is *before* that of the exposure that follows.

        An exposure that was dated by a wall clock which was set back may be earlier than it.
        """
        segment = self.close(until, once=False)
        if segment is None or not before:
            return segment
        latest = max(self._low, before - 1)
        for _, group in segment.groups:
            group.date_before(before, self._low)
        return segment.replace(first=min(segment.first, latest), last=min(segment.last, latest))

    def _fold(
        self, samples: Sequence[Sample], folds_after: float, before: int = 0
    ) -> Sequence[Segment | None]:
        """Fold *samples*, between which no exposure lies that is known here.

        Args:
            samples: in order.
            folds_after: what was recorded earlier does not fold.
            before: the date of an exposure that follows; 0 for none.

        Returns:
            The segments that ended all the same: single ones.
        """
        if self._single:
            return self._fold_singly(samples, folds_after, before)
        if not samples:
            return ()
        dates = list(map(_when, samples))
        first, last = min(dates), max(dates)
        if first < self._since:
            return self._fold(self._without_late(samples), folds_after)
        self._first = first if self._first is None else min(first, self._first)
        self._active = last if self._active is None else max(last, self._active)
        for what, group in groupby(samples, _what):
            if type(what) is EventRouting:
                for _, value, data, at, _ in group:
                    self._fold_value(what, value, data, at, folds_after)
            else:
                runs = list(group)
                if what.interaction:
                    self._tally(what, runs)
                self._fold_runs(what, runs, folds_after)
        return ()

    def _fold_singly(
        self, samples: Sequence[Sample], folds_after: float, before: int
    ) -> Sequence[Segment | None]:
        """Fold each of *samples* into a segment of its own, as long as there may be more."""
        ended: list[Segment | None] = []
        single, self._single = self._single, 0
        while single and samples:
            sample, *samples = samples
            if self._active is not None and self.date(sample[3]) != self.date(self._active):
                ended.append(self._single_segment(sample[3], before))
                single -= 1
            self._fold([sample], folds_after)
        self._fold(samples, folds_after)
        self._single = single
        return ended

    def _fold_runs(self, task: TaskDefinition, runs: Sequence[Sample], folds_after: float) -> None:
        plan = task.plan()
        # Where the wall clock was set back since an exposure, their own dates would lie before it.
        if plan.plain and not self.limited and self._low <= self._since * 1000 + self.offset:
            finished = [run for run in runs if run[1] in FINISHED]
            for start in range(0, len(finished), MOST_RUNS):
                columns = list(zip(*finished[start : start + MOST_RUNS], strict=True))
                self._hold(task, plan, columns, list(map(sub, columns[3], columns[2])))
            if len(finished) == len(runs):
                return
            runs = [run for run in runs if run[1] not in FINISHED]
        for _, outcome, started, ended, data in runs:
            for routing, value in plan.values(outcome, max(0.0, (ended - started) * 1000)):
                self._fold_value(routing, value, data, ended, folds_after)

    def _hold(
        self,
        task: TaskDefinition,
        plan: TaskPlan,
        columns: Sequence[tuple[Any, ...]],
        seconds: list[float],
    ) -> None:
        """Keep finished runs, whose values become an event each, as numbers."""
        held = self._runs
        if held is None or held.offset_ms != self.offset or held.count >= MOST_RUNS:
            if held is not None and held.parts:
                self._loose.append(held)
            held = self._runs = FinishedRuns([], self.offset)

        _, outcomes, _, ended, datas = columns
        count, parts, first = len(ended), [], 0
        has_data = datas.count(None) < count
        alike = [count] if outcomes.count(outcomes[0]) == count else _lengths(outcomes)
        for length in alike:
            last, layout = first + length, f"{length}d"
            packed = pack(layout, *ended[first:last]), pack(layout, *seconds[first:last])
            data = datas[first:last] if has_data else None
            parts.append((task, plan, outcomes[first], data, length, *packed))
            first = last
        held.parts += parts
        held.count += count

    def _tally(self, task: TaskDefinition, runs: Sequence[Sample]) -> None:
        counted = task.tallied(_counted([run[1] for run in runs]))
        self._segment_tallies = added(self._segment_tallies, counted)

    def _fold_value(
        self, routing: EventRouting, value: Any, data: Any, at: float, folds_after: float
    ) -> None:
        if self.limited and not within_rate(routing):
            return
        if at <= folds_after:
            routing = unfolded(routing)
        date = max(self._low, int(at * 1000 + self.offset))
        if routing.rollup != "each":
            self._fold_of(routing).add(value, data, date)
        elif routing.counted:
            self._loose += loose_value(routing, value, data, date)
        else:
            shown = value if routing.numeric else None
            self._loose.append(Emission(routing.event_key, shown, data, date))

    def _without_late(self, samples: Sequence[Sample]) -> list[Sample]:
        """Let go of what another thread appended late: its segment has been folded already."""
        for sample in samples:
            what, value, data, at, _ = sample
            if at >= self._since:
                continue
            if type(what) is EventRouting:
                self._let_go(what, value, data, at)
                continue
            _, outcome, started, ended, data = sample
            if what.interaction:
                self._tally(what, [sample])
            for routing, value in what.plan().values(outcome, max(0.0, (ended - started) * 1000)):
                self._let_go(routing, value, data, ended)
        return [sample for sample in samples if sample[3] >= self._since]

    def _let_go(self, routing: EventRouting, value: Any, data: Any, at: float) -> None:
        if not self.limited or within_rate(routing):
            date = min(int(at * 1000 + self.offset), self._low - 1)
            self._loose += loose_value(routing, value, data, date)

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
        segment = self.close(boundary.read, boundary.date, once=False)
        self._low = max(self._low, boundary.date)
        self.offset = max(self.offset, boundary.date - boundary.read * 1000)
        return segment

    def _date_before(self, date: int) -> None:
        for fold in self._folds.values():
            fold.date_before(date, self._low)
        for _, group in self._groups:
            group.date_before(date, self._low)
        runs, self._runs = self._runs, None
        loose = expanded(self._loose if runs is None else [*self._loose, runs])
        for emission in loose:
            emission.date_before(date, self._low)
        self._loose = list(loose)

    def close(
        self, until: float | None = None, boundary: int = 0, *, once: bool = True
    ) -> Segment | None:
        """End the segment.

        Args:
            until: a clock reading; now, when None.
            boundary: the date of the exposure that ends it; 0 for a change of identity, or the end.
            once: whether occurrences leave, too: for good, or with an identity.

        Returns:
            It; None when nothing is in it.
        """
        groups, self._groups = self._groups, []
        for fold in self._folds.values():
            groups += fold.take_groups(once=once)
        tallies, self._segment_tallies = self._segment_tallies, NO_TALLIES
        first, active, since = self._first, self._active, self._since
        self._first = self._active = None
        self._since = max(clock() if until is None else until, since)
        if not groups and active is None and tallies is NO_TALLIES and not boundary:
            return None
        began = since if first is None else first
        last = self.date(since if active is None else active)
        if active is None and groups:
            # Occurrences of before the exposures since: these are no activity.
            began, last = self.last, max([group.last_at for _, group in groups])
        if boundary:
            last = max(self._low, min(last, boundary - 1))
        return Segment(
            keys=self.keys,
            first=min(last, self.date(began)),
            last=last,
            tallies=tallies,
            groups=tuple(groups),
            began=began,
            active=active,
            exposed=bool(boundary),
        )

    def empty_segment(self, at: float | None = None) -> Segment:
        """Make a segment of the present identity in which nothing has happened: *at* a clock
        reading, or now.
        """
        began = clock() if at is None else at
        date = self.date(began)
        return Segment(self.keys, date, date, NO_TALLIES, (), began, None, exposed=False)

    def touch(self, at: float) -> None:
        """Note activity that leaves no sample."""
        self.last = max(self.last, at)
        if at >= self._since:
            self._first = at if self._first is None else min(self._first, at)
            self._active = at if self._active is None else max(self._active, at)

    def take_loose(self, *, hold: int = 0) -> list[Emission | FinishedRuns]:
        """Hand over the values that do not fold, but for fewer than *hold* runs."""
        loose, self._loose = self._loose, []
        runs = self._runs
        if runs is not None and runs.parts and runs.count >= hold:
            loose.insert(0, runs)
            self._runs = None
        for fold in self._folds.values():
            loose += fold.take_loose()
        return loose

    def finish(
        self,
    ) -> tuple[
        list[tuple[EventRouting, Group]], list[Emission | FinishedRuns], Tallies, float | None
    ]:
        """End the last segment, and with it the session.

        Returns:
            The folded values, those that do not fold, the interactions and the last activity of the
            segment (None when there was none).
        """
        groups, loose = self._groups, self._loose
        if self._runs is not None and self._runs.parts:
            loose.insert(0, self._runs)
        for fold in self._folds.values():
            groups += fold.take_groups(once=True)
            loose += fold.take_loose()
        tallies, active = self._segment_tallies, self._active
        self._groups, self._loose, self._runs, self._segment_tallies = [], [], None, NO_TALLIES
        self._first = self._active = None
        self._since = max(clock(), self._since)
        return groups, loose, tallies, active

    def clear(self) -> None:
        """Forget what is held (a forked child: its parent sends it)."""
        self._folding = False
        self.entries.clear()
        self._waiting.clear()
        self._folds.clear()
        self._groups.clear()
        self._loose.clear()
        self._runs = None
        self._segment_tallies = NO_TALLIES


def _lengths(outcomes: Sequence[Outcome]) -> list[int]:
    """Return how many of *outcomes* follow one another that are the same."""
    return [len(list(alike)) for _, alike in groupby(outcomes)]


def _counted(outcomes: Sequence[Outcome]) -> dict[Outcome, int]:
    """Count *outcomes*, of which there are some; nearly always all are the same."""
    first = outcomes[0]
    same = outcomes.count(first)
    if same == len(outcomes):
        return {first: same}
    return {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
