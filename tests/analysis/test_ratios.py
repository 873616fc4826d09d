"""Ratio metrics: the delta method, held against tea-tasting."""

from __future__ import annotations

import numpy as np
import pytest

from ldinstrument.analysis import PairedStatistics, ratio_figure, ratio_moments, z_test


def test_the_ratio_and_its_difference_are_tea_tastings(populations):
    """Ratio of sums, its standard error, and the interval of the difference of two."""
    tasting = pytest.importorskip("tea_tasting", reason="tea-tasting is not installed here")
    ours, theirs = [], []
    for chance in (0.30, 0.33):
        runs = populations.random.geometric(0.2, 900).astype(float)
        good = populations.random.binomial(runs.astype(int), chance).astype(float)
        ours.append(ratio_moments(PairedStatistics(zip(good, runs, strict=True))))
        theirs.append(
            tasting.aggr.Aggregates(
                900,
                {"good": good.mean(), "runs": runs.mean()},
                {"good": good.var(ddof=1), "runs": runs.var(ddof=1)},
                {("good", "runs"): np.cov(good, runs)[0, 1]},
            )
        )
        assert ours[-1].mean == pytest.approx(good.sum() / runs.sum())
    metric = tasting.RatioOfMeans("good", "runs", use_t=False, equal_var=False)
    expected = metric.analyze_aggregates(*theirs)
    found = z_test(*ours)
    assert found.difference.value == pytest.approx(expected.effect_size)
    assert found.difference.lower == pytest.approx(expected.effect_size_ci_lower)
    assert found.difference.upper == pytest.approx(expected.effect_size_ci_upper)


def test_the_figure_says_what_is_missing():
    """Without a denominator there is no ratio, with one unit no interval."""
    assert "denominator is 0" in ratio_figure(PairedStatistics([(1.0, 0.0)])).reason
    one = ratio_figure(PairedStatistics([(1.0, 4.0)]))
    assert (one.value, one.lower) == (0.25, None)
    assert "one unit" in one.reason
    assert ratio_moments(PairedStatistics()) is None
    exact = ratio_figure(PairedStatistics([(1.0, 4.0), (2.0, 8.0)]))
    assert (exact.lower, exact.value, exact.upper) == (0.25, 0.25, 0.25)
