"""Rollups: the values recorded in one session become few events, without changing LaunchDarkly's
analysis.

A fold is a commutative monoid: folds of parts of a session, in any order and from any process,
merge into the fold of the whole. That is what lets a session span requests and workers.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from struct import unpack
from typing import TYPE_CHECKING, Any, TypeAlias

from ..metrics.catalogs import EventRouting
from ..values import Fields
from .outcomes import Outcome
from .validation import frozen

if TYPE_CHECKING:
    from .task_definition import TaskDefinition, TaskPlan

MAX_GROUPS = 16


class Emission(Fields):
    """One event to be: *values* recorded values became it; *at* is its date (milliseconds since the
    epoch).
    """

    __slots__ = (
        "event_key",
        "value",
        "data",
        "at",
        "values",
    )

    def __init__(
        self,
        event_key: str,
        value: float | int | None,
        data: dict[str, Any] | None,
        at: int,
        values: int = 1,
    ) -> None:
        self.event_key = event_key
        self.value = value
        self.data = data
        self.at = at
        self.values = values

    def date_before(self, boundary: int, earliest: int = 0) -> None:
        """Date it before *boundary* if it is not, though not before *earliest*."""
        self.at = _before(self.at, boundary, earliest)


RunsPart: TypeAlias = (
    "tuple[TaskDefinition, TaskPlan, Outcome, Sequence[dict[str, Any] | None] | None, int, "
    "bytes, bytes]"
)
"""Runs of one task that ended alike: the task; what one is worth, as the catalog was when it was
folded; how they ended; the data of each, or None where none has any; how many; when each ended, by
the clock, and how long it took, in seconds, as `struct` packs doubles.
"""


class FinishedRuns(Fields):
    """Finished runs of tasks, each to become the events of its task's plan.

    They stay numbers until they are written, on another thread perhaps (`delivery.event_json`).
    Packed ones, for the garbage collector visits every tuple that waits, on whichever thread calls.

    Args:
        parts: in order. A part is added whole or, where a signal handler raises, not at all.
        offset_ms: what turns a clock reading in milliseconds into a date.
        count: about how many runs.
    """

    __slots__ = ("parts", "offset_ms", "count")

    def __init__(self, parts: list[RunsPart], offset_ms: float, count: int = 0) -> None:
        self.parts = parts
        self.offset_ms = offset_ms
        self.count = count

    @property
    def values(self) -> int:
        """How many values, and events, all of them are worth."""
        return sum([count * plan.worth for _, plan, _, _, count, _, _ in self.parts])

    def expanded(self) -> list[Emission]:
        """Return the events one by one."""
        found: list[Emission] = []
        for _, plan, outcome, datas, count, ended, seconds in self.parts:
            success = 1.0 if outcome is Outcome.SUCCESS else 0.0
            layout = f"{count}d"
            columns = unpack(layout, ended), unpack(layout, seconds), datas or repeat(None)
            for at, took, data in zip(*columns, strict=False):
                date = int(at * 1000 + self.offset_ms)
                found += [
                    Emission(routing.event_key, value, data, date)
                    for routing, value in plan.finished(success, max(0.0, took * 1000))
                ]
        return found


def expanded(batch: Iterable[Emission | FinishedRuns]) -> list[Emission]:
    """Return the events of *batch* one by one."""
    found: list[Emission] = []
    for element in batch:
        found += element.expanded() if isinstance(element, FinishedRuns) else [element]
    return found


class Group(Fields):
    """The values with equal data, folded: total, count, and the first and last of them with their
    dates.
    """

    __slots__ = (
        "data",
        "total",
        "count",
        "first_at",
        "last_at",
        "first",
        "last",
    )

    def __init__(
        self,
        data: dict[str, Any] | None,
        total: float | int = 0,
        count: int = 0,
        first_at: int = 0,
        last_at: int = 0,
        first: float | int | None = None,
        last: float | int | None = None,
    ) -> None:
        self.data = data
        self.total = total
        self.count = count
        self.first_at = first_at
        self.last_at = last_at
        self.first = first
        self.last = last

    def add(self, value: float | int | None, at: int, count: int = 1) -> None:
        """Fold one value in; *count* is how many recorded values it stands for."""
        if not self.count or at < self.first_at:
            self.first_at, self.first = at, value
        if not self.count or at >= self.last_at:
            self.last_at, self.last = at, value
        self.total += value or 0
        self.count += count

    def merge(self, other: Group) -> None:
        """Fold another group of the same data in; the order of merging makes no difference."""
        if not other.count:
            return
        first, earlier = (self.first_at, _rank(self.first)), (other.first_at, _rank(other.first))
        if not self.count or earlier < first:
            self.first_at, self.first = other.first_at, other.first
        if not self.count or (other.last_at, _rank(other.last)) > (self.last_at, _rank(self.last)):
            self.last_at, self.last = other.last_at, other.last
        self.total += other.total
        self.count += other.count

    def date_before(self, boundary: int, earliest: int = 0) -> None:
        """Date it before *boundary* if it is not, though not before *earliest*."""
        self.first_at = _before(self.first_at, boundary, earliest)
        self.last_at = _before(self.last_at, boundary, earliest)

    def events(self, routing: EventRouting) -> list[Emission]:
        """Make the events that this group becomes under *routing*.

        An occurrence becomes two, dated to its first and its last: whenever an exposure was, it
        then counts exactly when it happened after it.
        """
        if routing.rollup == "once" and not routing.numeric:
            first = Emission(routing.event_key, None, self.data, self.first_at, self.count)
            if self.last_at == self.first_at:
                return [first]
            return [first, Emission(routing.event_key, None, self.data, self.last_at, 0)]
        value = self.last
        if routing.rollup == "sum":
            value = self.total
        elif routing.rollup == "mean":
            value = self.total / self.count
        return [
            Emission(
                routing.event_key,
                value if routing.numeric else None,
                self.data,
                self.last_at,
                self.count,
            )
        ]


def _before(at: int, boundary: int, earliest: int) -> int:
    return at if at < boundary else max(earliest, boundary - 1)


def _rank(value: float | int | None) -> float:
    return float("-inf") if value is None else value


@functools.lru_cache(maxsize=1024)
def without_value(routing: EventRouting) -> EventRouting:
    """Return how an occurrence travels on an event key that also feeds a numeric metric.

    Its event carries no value: a 0 would be a value of that metric.
    """
    return routing.replace(numeric=False, rollup="once")


@functools.lru_cache(maxsize=1024)
def unfolded(routing: EventRouting) -> EventRouting:
    """Return *routing* for a client whose exposures nobody sees: sums and occurrences travel one
    by one.
    """
    return routing.replace(rollup="each") if routing.rollup in ("sum", "once") else routing


class Fold:
    """What one session holds for one event key: groups that fold, and loose values that travel one
    by one.
    """

    __slots__ = ("groups", "loose", "routing")

    def __init__(self, routing: EventRouting) -> None:
        self.routing = routing
        self.groups: dict[str, tuple[EventRouting, Group]] = {}
        self.loose: list[Emission] = []

    def add(self, value: float | int | None, data: dict[str, Any] | None, at: int) -> None:
        """Take one value in."""
        routing = self.routing
        if routing.rollup == "each":
            self._add_loose(value, data, at)
            return
        key = frozen(data)
        if value is None and routing.numeric:
            routing, key = without_value(routing), f"-{key}"
        held = self.groups.get(key)
        if held is None:
            if len(self.groups) >= MAX_GROUPS:
                self._add_loose(value, data, at)
                return
            held = self.groups[key] = routing, Group(data)
        held[1].add(value, at)

    def _add_loose(self, value: float | int | None, data: dict[str, Any] | None, at: int) -> None:
        self.loose += loose_value(self.routing, value, data, at)

    def take_groups(self, *, once: bool) -> Iterator[tuple[EventRouting, Group]]:
        """Hand over the groups and start anew; without *once*, occurrences stay."""
        taken = [key for key, (routing, _) in self.groups.items() if once or _divides(routing)]
        for key in taken:
            yield self.groups.pop(key)

    def take_loose(self) -> list[Emission]:
        """Hand over the loose values."""
        loose, self.loose = self.loose, []
        return loose

    def date_before(self, boundary: int, earliest: int) -> None:
        """Date what is held before *boundary* where it is not, though not before *earliest*."""
        for emission in self.loose:
            emission.date_before(boundary, earliest)
        for _, group in self.groups.values():
            group.date_before(boundary, earliest)

    def __len__(self) -> int:
        return len(self.loose) + len(self.groups)


def _divides(routing: EventRouting) -> bool:
    """Tell whether an exposure divides what is folded under *routing*."""
    return routing.rollup != "once" or routing.numeric


def loose_value(
    routing: EventRouting, value: float | int | None, data: dict[str, Any] | None, at: int
) -> list[Emission]:
    """Make the events of a value that travels by itself: a count of 3 is three events."""
    more = int(value) - 1 if routing.counted and value is not None else 0
    shown = value if routing.numeric else None
    return [
        Emission(routing.event_key, shown, data, at, int(not number)) for number in range(1 + more)
    ]


def finite(emission: Emission) -> bool:
    """Tell whether the folded value survived as a number (two huge finite values may sum to
    infinity).
    """
    return emission.value is None or abs(emission.value) <= sys.float_info.max
