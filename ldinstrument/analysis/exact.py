"""Exact numbers: a float as an integer over a power of two, so that sums do not round."""

from __future__ import annotations

LARGEST = 1e150  # its square is still a float
STEP = 64  # binary places are added in steps: a sum is rescaled at most 17 times in its life


def binary_fraction(value: float) -> tuple[int, int]:
    """Return *value* exactly, as a numerator and the number of binary places.

    Raises:
        ValueError: it is not finite, or beyond 1e150 in either direction.
    """
    if not -LARGEST <= value <= LARGEST:
        raise ValueError(f"a unit's value must be finite and within 1e150, not {value!r}")
    numerator, denominator = value.as_integer_ratio()
    return numerator, denominator.bit_length() - 1


def places_for(needed: int) -> int:
    """Return the binary places to keep when *needed* are: the next multiple of 64."""
    return -(-needed // STEP) * STEP


def quotient(numerator: int, divisor: int, places: int) -> float:
    """Return numerator / divisor / 2**places, rounded once."""
    return numerator / (divisor << places)
