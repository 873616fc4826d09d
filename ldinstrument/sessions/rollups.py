"""Rollups: how the values recorded in one session become few events, without changing
LaunchDarkly's analysis.

A fold is a commutative monoid: folds of parts of a session, in any order and from any process,
merge into the fold of the whole. That is what lets a session span requests and workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..metrics.catalogs import EventRouting
from .validation import frozen, number

MAX_GROUPS = 16


@dataclass(frozen=True, slots=True)
class Emission:
    """One event to be: *values* recorded values became it; *at* is its date (milliseconds since the
    epoch).
    """

    event_key: str
    value: float | int | None
    data: dict[str, Any] | None
    at: int
    values: int = 1


@dataclass(slots=True)
class Group:
    """The values with equal data, folded: total, count, and the first and last of them with their
    dates.
    """

    data: dict[str, Any] | None
    total: float | int = 0
    count: int = 0
    first_at: int = 0
    last_at: int = 0
    last: float | int | None = None

    def add(self, value: float | int | None, at: int, count: int = 1) -> None:
        """Fold one value in; *count* is how many recorded values it stands for."""
        if not self.count or at < self.first_at:
            self.first_at = at
        if not self.count or at >= self.last_at:
            self.last_at, self.last = at, value
        self.total += value or 0
        self.count += count

    def merge(self, other: Group) -> None:
        """Fold another group of the same data in."""
        if not other.count:
            return
        if not self.count or other.first_at < self.first_at:
            self.first_at = other.first_at
        if not self.count or other.last_at >= self.last_at:
            self.last_at, self.last = other.last_at, other.last
        self.total += other.total
        self.count += other.count

    def emission(self, routing: EventRouting) -> Emission:
        """The one event that this group becomes under *routing*."""
        value = {"sum": self.total, "mean": self.total / self.count, "last": self.last}.get(
            routing.rollup, self.last
        )
        at = self.first_at if routing.rollup == "once" else self.last_at
        return Emission(
            routing.event_key, value if routing.numeric else None, self.data, at, self.count
        )


class Fold:
    """What one session holds for one event key: groups that fold, and loose values that travel one
    by one.
    """

    __slots__ = ("groups", "loose", "routing")

    def __init__(self, routing: EventRouting) -> None:
        self.routing = routing
        self.groups: dict[str, Group] = {}
        self.loose: list[Emission] = []

    def add(self, value: float | int | None, data: dict[str, Any] | None, at: int) -> int:
        """Take one value in. Returns how many values it counts for: a count of 3 is 3 events."""
        if self.routing.rollup == "each":
            return self._add_each(value, data, at)
        if value is None and self.routing.rollup in ("mean", "last"):
            # An occurrence on the same event key: it counts for its own metric, and must not be a 0
            # in this one.
            self.loose.append(Emission(self.routing.event_key, None, data, at))
            return 1
        key = frozen(data)
        group = self.groups.get(key)
        if group is None:
            if len(self.groups) >= MAX_GROUPS:
                self.loose.append(
                    Emission(
                        self.routing.event_key, value if self.routing.numeric else None, data, at
                    )
                )
                return 1
            group = self.groups[key] = Group(data)
        group.add(value, at)
        return 1

    def _add_each(self, value: float | int | None, data: dict[str, Any] | None, at: int) -> int:
        if self.routing.counted and value is not None:
            self.loose.extend(
                Emission(self.routing.event_key, None, data, at, values=0)
                for _ in range(int(value) - 1)
            )
            value = None
        self.loose.append(
            Emission(self.routing.event_key, value if self.routing.numeric else None, data, at)
        )
        return 1

    def take(self) -> Iterator[Emission]:
        """Hand over everything as events and start anew."""
        loose, self.loose = self.loose, []
        groups, self.groups = self.groups, {}
        yield from loose
        for group in groups.values():
            yield group.emission(self.routing)

    def __len__(self) -> int:
        return len(self.loose) + len(self.groups)


def finite(emission: Emission) -> bool:
    """Whether the folded value survived as a number (two huge finite values may sum to
    infinity).
    """
    return emission.value is None or number(emission.value) is not None
