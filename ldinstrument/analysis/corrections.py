"""Multiple comparisons: the level that keeps many tests from finding things by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Correction = Literal["none", "bonferroni", "benjamini-hochberg"]


def corrected_significance(
    p_values: Sequence[float], significance: float, method: Correction
) -> float:
    """Return the level that each of the *p_values* of one family is held against.

    Args:
        p_values: of the tests that belong together.
        significance: the level for all of them.
        method: `bonferroni` keeps the chance of any false positive at *significance*,
            `benjamini-hochberg` the share of false ones among the positives.

    Raises:
        ValueError: there is no such method.
    """
    if method == "none" or not p_values:
        return significance
    if method == "bonferroni":
        return significance / len(p_values)
    if method == "benjamini-hochberg":
        return significance * (max(_rejected(p_values, significance), 1) / len(p_values))
    raise ValueError(f"a correction is none, bonferroni or benjamini-hochberg, not {method!r}")


def _rejected(p_values: Sequence[float], significance: float) -> int:
    """Return the largest i such that the i-th smallest p is below significance * i / m."""
    tests = len(p_values)
    ranked = enumerate(sorted(p_values), 1)
    passed = [rank for rank, p in ranked if p < significance * (rank / tests)]
    return passed[-1] if passed else 0
