"""Buckets: unit values in groups of nearly equal ones, so that percentiles need bounded memory.

A bucket spans 1/256 of a factor of two (0.27 % of the value on average, 0.39 % at most). It keeps
its exact count, sum and sum of squares, and stands for its mean. So a percentile is exact where the
values of a bucket are equal (integers up to 512 always are alone), and else within 0.39 %. Values
that span six decades fill about 5,000 buckets (1.4 MB), whatever the number of units.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from math import frexp

PER_OCTAVE = 256
TWICE = 2 * PER_OCTAVE
LOWEST_EXPONENT = -1074  # that of the smallest float
OFFSET = 1 - PER_OCTAVE - LOWEST_EXPONENT * PER_OCTAVE  # keys of positive floats are positive


def bucket_key(value: float) -> int:
    """Return the bucket of *value*: 0 for 0.0, else ordered as the values are."""
    if value > 0:
        share, exponent = frexp(value)  # 0.5 <= share < 1: PER_OCTAVE steps from PER_OCTAVE on
        return exponent * PER_OCTAVE + int(share * TWICE) + OFFSET
    return -bucket_key(-value) if value else 0


def bucket_middle(key: int) -> float:
    """Return the middle of a bucket."""
    if key <= 0:
        return -bucket_middle(-key) if key else 0.0
    octave, within = divmod(key - 1, PER_OCTAVE)
    share = 0.5 + (within + 0.5) / (2 * PER_OCTAVE)
    return math.ldexp(share, octave + LOWEST_EXPONENT)


@dataclass(slots=True)
class Bucket:
    """The values of one bucket: their count, and their sums in the owner's binary places."""

    count: int = 0
    total: int = 0
    squares: int = 0

    def rescale(self, places: int) -> None:
        """Add binary *places*."""
        self.total <<= places
        self.squares <<= 2 * places

    def absorb(self, other: Bucket, places: int) -> None:
        """Add the values of *other*, whose sums have *places* fewer."""
        self.count += other.count
        self.total += other.total << places
        self.squares += other.squares << (2 * places)


@dataclass(frozen=True, slots=True)
class Cap:
    """Where values are cut: those in buckets beyond *key* get *value*."""

    key: int
    value: float


@dataclass(frozen=True, slots=True)
class OrderedValues:
    """Values in ascending order, in groups of nearly equal ones.

    Args:
        keys: the buckets, ascending.
        values: what each stands for.
        counts: how many values it has.
        cumulative: how many values it and those before it have.
    """

    keys: tuple[int, ...]
    values: tuple[float, ...]
    counts: tuple[int, ...]
    cumulative: tuple[int, ...]

    @property
    def count(self) -> int:
        """Return the number of values."""
        return self.cumulative[-1] if self.cumulative else 0

    def place(self, rank: int) -> int:
        """Return the index of the group that has the value of this *rank*, 1 for the smallest."""
        return bisect_left(self.cumulative, rank)

    def at(self, rank: int) -> float:
        """Return the value of this *rank*, 1 for the smallest.

        Raises:
            IndexError: there is no such rank.
        """
        if rank < 1:
            raise IndexError(rank)
        return self.values[self.place(rank)]

    def cap(self, rank: int) -> Cap:
        """Return the cap at the value of this *rank*.

        Raises:
            IndexError: there is no such rank.
        """
        place, value = self.place(rank), self.at(rank)
        return Cap(self.keys[place], value)

    def quantile(self, share: float) -> float:
        """Return the value below which *share* (0..1) lies, interpolated (the common "type 7").

        Raises:
            IndexError: there are no values.
        """
        position = (self.count - 1) * share
        low = math.floor(position)
        lower, upper = self.at(low + 1), self.at(min(low + 2, self.count))
        return lower + (upper - lower) * (position - low)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram: how many values are at least *lower* and below *upper*."""

    lower: float
    upper: float
    count: int


def histogram(values: OrderedValues, bars: int = 30, share: float = 0.99) -> list[Bar]:
    """Return bars of one width that show how *values* are spread; none without values.

    Args:
        values: of the units of one variation, or of all together for common bars.
        bars: how many.
        share: of the values that the bars span from the smallest on; the last bar has the rest, so
            that one value of a million does not make a single bar of all others.
    """
    if not values.count:
        return []
    low = values.at(1)
    width = ((values.quantile(share) - low) or abs(low) or 1.0) / bars
    counts = [0] * bars
    for value, count in zip(values.values, values.counts, strict=True):
        counts[min(int((value - low) / width), bars - 1)] += count
    return [
        Bar(low + place * width, low + (place + 1) * width, count)
        for place, count in enumerate(counts)
    ]


def ordered_values(groups: Iterable[tuple[int, float, int]]) -> OrderedValues:
    """Return ordered values from groups of bucket, value and count, in any order."""
    ordered = sorted(group for group in groups if group[2])
    counts = tuple(count for _, _, count in ordered)
    return OrderedValues(
        keys=tuple(key for key, _, _ in ordered),
        values=tuple(value for _, value, _ in ordered),
        counts=counts,
        cumulative=tuple(accumulate(counts)),
    )
