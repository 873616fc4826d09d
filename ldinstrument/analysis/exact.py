"""Exact numbers: a float as an integer over a power of two, so that sums do not round."""

from __future__ import annotations

LARGEST = 1e30  # what is made of it, such as the third power of a ratio, is still a float
SMALLEST = 1e-30
STEP = 64  # binary places are added in steps: a sum is rescaled at most three times in its life


def checked(value: float) -> float:
    """Return *value*, or 0.0 when it is nearer to 0 than 1e-30.

    Raises:
        ValueError: it is not finite, or beyond 1e30 in either direction.
    """
    if not -LARGEST <= value <= LARGEST:
        raise ValueError(f"a unit's value must be finite and within 1e30, not {value!r}")
    return value if value >= SMALLEST or value <= -SMALLEST else 0.0


def binary_fraction(value: float) -> tuple[int, int]:
    """Return *value* exactly, as a numerator and the number of binary places."""
    numerator, denominator = value.as_integer_ratio()
    return numerator, denominator.bit_length() - 1


def places_for(needed: int) -> int:
    """Return the binary places to keep when *needed* are: the next multiple of 64."""
    return -(-needed // STEP) * STEP


def quotient(numerator: int, divisor: int, places: int) -> float:
    """Return numerator / divisor / 2**places, rounded once."""
    return numerator / (divisor << places)
