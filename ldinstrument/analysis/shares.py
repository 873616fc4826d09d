"""Shares: whether as many of the exposed units have a value in every variation.

A metric without zero-fill compares only those who have a value. Where their share differs between
variations, the means are of different people, and their difference says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from .figures import MEASURED_SHARE, Figure, missing
from .special import scipy_special

ALERT = 0.001
LEAST_EXPECTED = 5


def measured_share_test(exposed: Sequence[int], measured: Sequence[int]) -> Figure:
    """Return the p-value of an equal share of units with a value; unequal when below 0.001.

    Pearson's chi-square test, one degree of freedom less than there are variations.

    Args:
        exposed: units per variation.
        measured: those of them that have a value, in the same order.
    """
    counts = [(units, held) for units, held in zip(exposed, measured, strict=True) if units]
    if len(counts) < 2:
        return missing(MEASURED_SHARE, "fewer than two variations have units")
    share = sum(held for _, held in counts) / sum(units for units, _ in counts)
    if share in (0, 1):
        return Figure(1.0, MEASURED_SHARE)
    if min(units * min(share, 1 - share) for units, _ in counts) < LEAST_EXPECTED:
        return missing(
            MEASURED_SHARE, "fewer than five units are expected with, or without, a value"
        )
    distance = sum(
        (held - units * share) ** 2 / (units * share * (1 - share)) for units, held in counts
    )
    return Figure(float(scipy_special().chdtrc(len(counts) - 1, distance)), MEASURED_SHARE)
