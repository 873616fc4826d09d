"""Moments: number, mean and variance of units; what every comparison starts from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moments:
    """What the units of one variation have in common.

    Args:
        units: how many are analysed, those that count as 0 included.
        mean: the mean of their values; 0.0 without units.
        variance: the sample variance (n - 1); 0.0 for fewer than two units.
        skewness: the third standardised moment, 0.0 where it is not known.
    """

    units: int
    mean: float
    variance: float
    skewness: float = 0.0

    @property
    def error_variance(self) -> float:
        """Return the variance of the mean: variance / units."""
        return self.variance / self.units

    @property
    def deviation(self) -> float:
        """Return the standard deviation between units."""
        return math.sqrt(self.variance)


def moments_of(values: Iterable[float]) -> Moments:
    """Return the moments of single values, one per unit."""
    listed = [float(value) for value in values]
    units = len(listed)
    if not units:
        return Moments(0, 0.0, 0.0)
    mean = math.fsum(listed) / units
    squares = math.fsum((value - mean) ** 2 for value in listed)
    cubes = math.fsum((value - mean) ** 3 for value in listed)
    return Moments(units, mean, squares / max(units - 1, 1), skewness(units, squares, cubes))


def skewness(units: int, squares: float, cubes: float) -> float:
    """Return the skewness from the centred sums of squares and cubes; 0.0 without spread."""
    if squares <= 0:
        return 0.0
    return cubes / units / math.pow(squares / units, 1.5)


def shortage(moments: Moments) -> str:
    """Say why no comparison can be made with these units; empty when it can."""
    if moments.units == 0:
        return "no unit has a value"
    if moments.units == 1:
        return "one unit has no spread: at least two are needed"
    return ""


def spreadless(control: Moments, treatment: Moments) -> str:
    """Say why these two cannot be compared; empty when they can."""
    if reason := shortage(control) or shortage(treatment):
        return reason
    if not control.variance and not treatment.variance:
        return "all units have the same value: there is no spread to judge by"
    return ""
