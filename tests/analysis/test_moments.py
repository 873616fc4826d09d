"""Moments: those of single values, and why two variations cannot be compared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ldinstrument.analysis.moments import Moments, moments_of, shortage, skewness, spreadless


def test_the_moments_of_values_are_numpys(populations):
    """Units, mean, sample variance and skewness."""
    values = populations.duration(500)
    found = moments_of(values)
    assert (found.units, found.mean) == (500, pytest.approx(np.mean(values)))
    assert found.variance == pytest.approx(np.var(values, ddof=1))
    assert found.skewness == pytest.approx(stats.skew(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.error_variance == pytest.approx(stats.sem(values) ** 2)


def test_few_values_are_no_division_by_zero():
    """Without values all is 0, one has no variance, equal ones no skewness."""
    assert moments_of([]) == Moments(0, 0.0, 0.0)
    assert moments_of(iter([7])) == Moments(1, 7.0, 0.0)
    assert moments_of([2.0, 2.0, 2.0]) == Moments(3, 2.0, 0.0)
    assert skewness(5, 0.0, 0.0) == skewness(5, -1e-30, 3.0) == 0.0


def test_a_tiny_spread_on_a_large_mean_is_not_lost():
    """The mean is taken off before anything is squared."""
    assert moments_of([1e9, 1e9 + 1, 1e9 + 2]).variance == 1.0
    assert moments_of([0.1] * 10).mean == 0.1
    assert math.isclose(moments_of([1e16, 1.0, -1e16]).mean, 1 / 3)


@pytest.mark.parametrize(
    ("control", "treatment", "reason"),
    [
        (Moments(0, 0, 0), Moments(0, 0, 0), "no unit has a value"),
        (Moments(9, 5, 1), Moments(1, 5, 0), "one unit has no spread: at least two are needed"),
        (Moments(9, 5, 0), Moments(9, 7, 0), "all units have the same value"),
        (Moments(9, 5, 0), Moments(2, 7, 1), ""),
        (Moments(2, 5, 1), Moments(9, 7, 0), ""),
    ],
)
def test_what_cannot_be_compared_has_a_reason(control, treatment, reason):
    """Either variation may be short of units; spread in one of them is enough."""
    found = spreadless(control, treatment)
    assert found.startswith(reason)
    assert bool(found) is bool(reason)
    assert shortage(treatment) == (found if treatment.units < 2 else "")
