"""Percentiles: intervals of order statistics, held against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ldinstrument.analysis import (
    SufficientStatistics,
    TooLittleData,
    least_units,
    percentile_figure,
    percentile_moments,
)


@pytest.mark.parametrize("percentile", [50, 75, 90, 95, 99])
@pytest.mark.parametrize("units", [500, 501, 3000])
def test_the_interval_is_scipys(populations, percentile, units):
    """`quantile_test` takes the same order statistics; a bucket is at most 0.4 % wide."""
    values = populations.duration(units)
    theirs = stats.quantile_test(values, p=percentile / 100).confidence_interval(0.95)
    ours = percentile_figure(SufficientStatistics(map(float, values)).ordered(), percentile)
    assert ours.value == pytest.approx(np.percentile(values, percentile), rel=0.004)
    assert (ours.lower, ours.upper) == pytest.approx((theirs.low, theirs.high), rel=0.004)
    assert ours.source.startswith("ldinstrument")


def test_the_interval_of_integers_is_scipys_exactly(populations):
    """Integers up to 512 have a bucket each, ties included."""
    values = populations.random.integers(0, 60, 700)
    theirs = stats.quantile_test(values, p=0.9).confidence_interval(0.9)
    ours = percentile_figure(SufficientStatistics(map(float, values)).ordered(), 90, 0.9)
    assert (ours.lower, ours.upper) == (theirs.low, theirs.high)


@pytest.mark.parametrize("percentile", [1, 5, 50, 95, 99])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_least_number_of_units_has_an_interval_and_one_less_has_none(percentile, level):
    """The reason names the number that is needed, and it is right."""
    needed = least_units(percentile, level)
    enough = SufficientStatistics(map(float, range(needed))).ordered()
    assert percentile_figure(enough, percentile, level).lower is not None
    short = percentile_figure(
        SufficientStatistics(map(float, range(needed - 1))).ordered(), percentile, level
    )
    assert short.lower is None
    assert f"{needed} are needed" in short.reason or not needed - 1
    with pytest.raises(TooLittleData):
        percentile_moments(SufficientStatistics([1.0, 2.0]).ordered(), percentile, level)


def test_without_values_there_is_a_reason():
    """No unit, no percentile."""
    assert percentile_figure(SufficientStatistics().ordered(), 95).reason == "no unit has a value"


def test_the_error_is_that_of_the_interval():
    """Half of the interval is 1.96 standard errors, as for a mean."""
    ordered = SufficientStatistics(map(float, range(1000))).ordered()
    figure, moments = percentile_figure(ordered, 50), percentile_moments(ordered, 50)
    assert moments.mean == figure.value
    assert 2 * 1.959964 * moments.error_variance**0.5 == pytest.approx(figure.upper - figure.lower)
