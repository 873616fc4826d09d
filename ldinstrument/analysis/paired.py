"""Paired statistics: two values per unit, for CUPED (now and before) and for ratio metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .exact import binary_fraction, checked, places_for, quotient


@dataclass(frozen=True, slots=True)
class PairedMoments:
    """Means, variances and covariance of two values of the same units (n - 1 in the divisor)."""

    units: int
    first_mean: float
    second_mean: float
    first_variance: float
    second_variance: float
    covariance: float


class PairedStatistics:
    """Keep two values per unit, up to date and exact as `SufficientStatistics` does.

    A unit without one of them counts with 0 there: every analysed unit is added once.
    """

    __slots__ = (
        "_first",
        "_first_squares",
        "_places",
        "_products",
        "_second",
        "_second_squares",
        "units",
    )

    def __init__(self, pairs: Iterable[tuple[float, float]] = ()):
        self.units = 0
        self._places = 0
        self._first = 0
        self._second = 0
        self._first_squares = 0
        self._second_squares = 0
        self._products = 0
        for first, second in pairs:
            self.add(first, second)

    def __repr__(self) -> str:
        return f"<PairedStatistics of {self.units} units>"

    def add(self, first: float, second: float) -> None:
        """Count the two values of one more unit.

        Raises:
            ValueError: one is not finite, or beyond 1e30.
        """
        self._change(first, second, 1)

    def remove(self, first: float, second: float) -> None:
        """Take the two values of one unit out again."""
        self._change(first, second, -1)

    def replace(self, old: tuple[float, float], new: tuple[float, float]) -> None:
        """Change the two values of one unit."""
        self.add(*new)  # before anything is changed, it raises on what is no number
        self.remove(*old)

    def merge(self, other: PairedStatistics) -> None:
        """Add the units of *other*, which must be others than those counted here."""
        self._refine(other._places)
        places = self._places - other._places
        self.units += other.units
        self._first += other._first << places
        self._second += other._second << places
        self._first_squares += other._first_squares << (2 * places)
        self._second_squares += other._second_squares << (2 * places)
        self._products += other._products << (2 * places)

    def moments(self) -> PairedMoments:
        """Return means, variances and covariance; zeros where there are too few units."""
        if not self.units:
            return PairedMoments(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        return PairedMoments(
            self.units,
            quotient(self._first, self.units, self._places),
            quotient(self._second, self.units, self._places),
            self._covariance(self._first_squares, self._first, self._first),
            self._covariance(self._second_squares, self._second, self._second),
            self._covariance(self._products, self._first, self._second),
        )

    def _covariance(self, products: int, first: int, second: int) -> float:
        spread = self.units * products - first * second  # exact, so nothing cancels
        return quotient(spread, self.units * max(self.units - 1, 1), 2 * self._places)

    def _change(self, first: float, second: float, by: int) -> None:
        one, two = self._wholes(first, second)
        self.units += by
        self._first += by * one
        self._second += by * two
        self._first_squares += by * one * one
        self._second_squares += by * two * two
        self._products += by * one * two

    def _wholes(self, first: float, second: float) -> tuple[int, int]:
        one, one_places = binary_fraction(checked(first))
        two, two_places = binary_fraction(checked(second))
        self._refine(max(one_places, two_places))
        return one << (self._places - one_places), two << (self._places - two_places)

    def _refine(self, needed: int) -> None:
        more = places_for(needed) - self._places
        if more <= 0:
            return
        self._places += more
        self._first <<= more
        self._second <<= more
        self._first_squares <<= 2 * more
        self._second_squares <<= 2 * more
        self._products <<= 2 * more
