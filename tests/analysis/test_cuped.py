"""CUPED: LaunchDarkly's published adjustment, held against numpy and tea-tasting."""

from __future__ import annotations

import numpy as np
import pytest

from ldinstrument.analysis import PairedStatistics, SufficientStatistics, adjusted


def variation(random, units, effect):
    past = random.gamma(2, 10, units)
    return past * 0.8 + random.normal(5 + effect, 6, units), past


def inputs(variations):
    return [
        (
            SufficientStatistics(map(float, values)).moments(),
            PairedStatistics(zip(map(float, values), map(float, past), strict=True)),
        )
        for values, past in variations
    ]


def test_the_adjustment_is_the_published_formula(populations):
    """y_v - b_v (x_v - x_all) with variance s_v^2 (1 - r_v^2), by numpy."""
    variations = [
        variation(populations.random, units, effect) for units, effect in ((800, 0), (700, 1))
    ]
    overall = np.concatenate([past for _, past in variations]).mean()
    for (values, past), found in zip(variations, adjusted(inputs(variations)), strict=True):
        slope = np.polyfit(past, values, 1)[0]
        correlation = np.corrcoef(values, past)[0, 1]
        assert found.moments.mean == pytest.approx(values.mean() - slope * (past.mean() - overall))
        assert found.moments.variance == pytest.approx(values.var(ddof=1) * (1 - correlation**2))
        assert found.correlation == pytest.approx(correlation)
        assert found.variance_reduction == pytest.approx(correlation**2)
        assert found.variance_reduction > 0.5
        assert found.deviation_ratio == pytest.approx(values.std() / past.std())
        assert found.imbalance == pytest.approx(past.mean() - overall)
        assert found.moments.units == len(values)


def test_the_adjusted_difference_is_near_tea_tastings(populations):
    """It takes one slope for both; with thousands of units the difference is the same."""
    tasting = pytest.importorskip("tea_tasting", reason="tea-tasting is not installed here")
    variations = [variation(populations.random, 4000, effect) for effect in (0, 1)]
    aggregates = [
        tasting.aggr.Aggregates(
            len(values),
            {"y": values.mean(), "x": past.mean()},
            {"y": values.var(ddof=1), "x": past.var(ddof=1)},
            {("x", "y"): np.cov(values, past)[0, 1]},
        )
        for values, past in variations
    ]
    theirs = tasting.Mean("y", "x", use_t=False, equal_var=False).analyze_aggregates(*aggregates)
    control, treatment = (found.moments for found in adjusted(inputs(variations)))
    error = (control.error_variance + treatment.error_variance) ** 0.5
    assert treatment.mean - control.mean == pytest.approx(theirs.effect_size, abs=0.02)
    width = (theirs.effect_size_ci_upper - theirs.effect_size_ci_lower) / (2 * 1.959964)
    assert error == pytest.approx(width, rel=0.01)


def test_a_past_that_says_nothing_is_not_used():
    """A constant past, a past of other units or too few units adjust nothing."""
    moments = SufficientStatistics([1.0, 2.0, 3.0, 5.0]).moments()
    constant = PairedStatistics((value, 7.0) for value in (1.0, 2.0, 3.0, 5.0))
    fewer = PairedStatistics([(1.0, 1.0), (2.0, 2.5), (3.0, 1.0)])
    good = PairedStatistics([(1.0, 1.0), (2.0, 2.5), (3.0, 1.0), (5.0, 4.0)])
    assert adjusted([(moments, good), (moments, good)]) is not None
    for past in (constant, fewer, PairedStatistics()):
        assert adjusted([(moments, good), (moments, past)]) is None
