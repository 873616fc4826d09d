"""Sufficient statistics: all that the analysis needs of the units of one variation and metric.

They are kept up to date, never recomputed: when an event changes the value of a unit, `replace`
takes the old one out and the new one in, in constant time. All sums are exact, so that the order of
events, how they were batched and how often a value was replaced make no difference, not even in
the last digit, and what is merged equals what was counted in one place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .buckets import Bucket, Cap, OrderedValues, bucket_key, ordered_values
from .exact import binary_fraction, checked, places_for, quotient
from .moments import Moments, skewness


class SufficientStatistics:
    """Keep the values of the units of one variation for one metric.

    A unit is counted by `expose` when it is first exposed, and has a value from its first event on.
    Whether units without a value count as 0 is asked when the statistics are read (`zero_fill`).
    A value is per unit (the sum, average, count or occurrence of its events), never per event; one
    nearer to 0 than 1e-30 is 0.
    """

    __slots__ = ("_buckets", "_measured", "_places", "_squares", "_total", "exposed")

    def __init__(self, values: Iterable[float] = (), *, exposed: int | None = None):
        self.exposed = 0
        self._measured = 0
        self._places = 0
        self._total = 0
        self._squares = 0
        self._buckets: dict[int, Bucket] = {}
        for value in values:
            self.add(value)
        self.exposed = self._measured if exposed is None else exposed

    def __repr__(self) -> str:
        return f"<SufficientStatistics of {self._measured} of {self.exposed} units>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        return self._comparable() == other._comparable()

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def measured(self) -> int:
        """Return the number of units that have a value."""
        return self._measured

    @property
    def total(self) -> float:
        """Return the sum of the units' values."""
        return quotient(self._total, 1, self._places)

    def expose(self, units: int = 1) -> None:
        """Count *units* more as exposed; a negative number takes them back."""
        self.exposed += units

    def add(self, value: float) -> None:
        """Count the value of one more unit.

        Raises:
            ValueError: it is not finite, or beyond 1e30.
        """
        held = checked(value)
        self._change(held, bucket_key(held), 1)

    def remove(self, value: float) -> None:
        """Take the value of one unit out again.

        Raises:
            ValueError: no unit has a value near this one.
        """
        held = checked(value)
        self._change(held, self._held(held), -1)

    def replace(self, old: float | None, new: float | None) -> None:
        """Change the value of one unit; None stands for a unit without one.

        Raises:
            ValueError: as `add` and `remove` do; nothing is changed then.
        """
        if old == new:
            return
        before = 0.0 if old is None else checked(old)
        taken = None if old is None else self._held(before)
        if new is not None:
            self.add(new)
        if taken is not None:
            self._change(before, taken, -1)

    def merge(self, other: SufficientStatistics) -> None:
        """Add the units of *other*, which must be others than those counted here."""
        self._refine(other._places)
        places = self._places - other._places
        self.exposed += other.exposed
        self._measured += other._measured
        self._total += other._total << places
        self._squares += other._squares << (2 * places)
        for key, bucket in other._buckets.items():
            self._buckets.setdefault(key, Bucket()).absorb(bucket, places)

    def copy(self) -> SufficientStatistics:
        """Return the same statistics, independent from these."""
        copied = SufficientStatistics()
        copied.merge(self)
        return copied

    def units(self, *, zero_fill: bool = False) -> int:
        """Return how many are analysed: all exposed ones with *zero_fill*, else those measured."""
        return max(self.exposed, self._measured) if zero_fill else self._measured

    def moments(self, *, zero_fill: bool = False) -> Moments:
        """Return units, mean, variance and skewness; exact but for the skewness."""
        units = self.units(zero_fill=zero_fill)
        if not units:
            return Moments(0, 0.0, 0.0)
        mean = quotient(self._total, units, self._places)
        spread = units * self._squares - self._total**2  # exact, so nothing cancels
        variance = quotient(spread, units * max(units - 1, 1), 2 * self._places)
        return Moments(units, mean, variance, self._skewness(units, mean))

    def ordered(self, *, zero_fill: bool = False) -> OrderedValues:
        """Return the values in order; see `buckets` for how exact they are."""
        zeros = self.units(zero_fill=zero_fill) - self._measured
        groups = {key: (self._mean(bucket), bucket.count) for key, bucket in self._buckets.items()}
        groups[0] = (0.0, groups.get(0, (0.0, 0))[1] + zeros)
        return ordered_values((key, value, count) for key, (value, count) in groups.items())

    def capped(self, lower: Cap | None, upper: Cap | None, *, zero_fill: bool = False) -> Moments:
        """Return the moments with values beyond the caps set to them (winsorisation)."""
        units = self.units(zero_fill=zero_fill)
        capped = SufficientStatistics()
        capped._refine(self._places)
        for key, bucket in self._with_zeros(units - self._measured).items():
            cap = _cap_of(key, lower, upper)
            if cap is None:
                capped._absorb(key, bucket, capped._places - self._places)
            else:
                capped._change(cap.value, cap.key, bucket.count)
        return capped.moments()

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON types; integers are as long as the exact sums need."""
        return {
            "exposed": self.exposed,
            "places": self._places,
            "buckets": [
                [key, bucket.count, bucket.total, bucket.squares]
                for key, bucket in self._buckets.items()
            ],
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> SufficientStatistics:
        """Return the statistics whose `to_json` this was."""
        statistics = cls()
        statistics._places = state["places"]
        for key, *numbers in state["buckets"]:
            statistics._absorb(key, Bucket(*numbers), 0)
        statistics.exposed = state["exposed"]
        return statistics

    def _held(self, value: float) -> int:
        key = bucket_key(value)
        if key not in self._buckets:
            raise ValueError(f"no unit has the value {value!r}")
        return key

    def _change(self, value: float, key: int, by: int) -> None:
        numerator, places = binary_fraction(value)
        if places > self._places:
            self._refine(places)
        whole = numerator << (self._places - places)
        change, squares = by * whole, by * whole * whole
        self._measured += by
        self._total += change
        self._squares += squares
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket()
        bucket.count += by
        bucket.total += change
        bucket.squares += squares
        if not bucket.count:
            del self._buckets[key]

    def _absorb(self, key: int, bucket: Bucket, places: int) -> None:
        self._measured += bucket.count
        self._total += bucket.total << places
        self._squares += bucket.squares << (2 * places)
        self._buckets.setdefault(key, Bucket()).absorb(bucket, places)

    def _refine(self, needed: int) -> None:
        more = places_for(needed) - self._places
        if more <= 0:
            return
        self._places += more
        self._total <<= more
        self._squares <<= 2 * more
        for bucket in self._buckets.values():
            bucket.rescale(more)

    def _mean(self, bucket: Bucket) -> float:
        return quotient(bucket.total, bucket.count, self._places)

    def _skewness(self, units: int, mean: float) -> float:
        centred = [(self._mean(bucket) - mean, bucket.count) for bucket in self._buckets.values()]
        centred.append((-mean, units - self._measured))
        squares = math.fsum(count * distance * distance for distance, count in centred)
        cubes = math.fsum(count * distance * distance * distance for distance, count in centred)
        return skewness(units, squares, cubes)

    def _with_zeros(self, zeros: int) -> dict[int, Bucket]:
        buckets = dict(self._buckets)
        if zeros:
            held = buckets.get(0, Bucket())
            buckets[0] = Bucket(held.count + zeros)
        return buckets

    def _comparable(self) -> tuple[Any, ...]:
        buckets = {
            key: (
                bucket.count,
                _fraction(bucket.total, self._places),
                _fraction(bucket.squares, 2 * self._places),
            )
            for key, bucket in self._buckets.items()
        }
        return self.exposed, self._measured, buckets


def _cap_of(key: int, lower: Cap | None, upper: Cap | None) -> Cap | None:
    if upper is not None and key > upper.key:
        return upper
    if lower is not None and key < lower.key:
        return lower
    return None


def _fraction(numerator: int, places: int) -> tuple[int, int]:
    while places and not numerator & 1 and numerator:
        numerator, places = numerator >> 1, places - 1
    return (numerator, places) if numerator else (0, 0)
