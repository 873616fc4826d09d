"""Winsorisation: LaunchDarkly's published example, and caps that all variations share."""

from __future__ import annotations

import numpy as np
import pytest

from ldinstrument.analysis import SufficientStatistics, moments_of, winsorised

EXAMPLE = [5, 120, 135, 140, 145, 150, 155, 160, 170, 950]


def alone(values, **caps):
    return winsorised([SufficientStatistics(map(float, values))], **caps)[0]


def test_launchdarklys_example():
    """P90 replaces 950 with 170, P10 replaces 5 with 120: the sets that LaunchDarkly prints."""
    upper = moments_of([5, 120, 135, 140, 145, 150, 155, 160, 170, 170])
    both = moments_of([120, 120, 135, 140, 145, 150, 155, 160, 170, 170])
    assert alone(EXAMPLE, upper=90).mean == upper.mean
    assert alone(EXAMPLE, upper=90).variance == pytest.approx(upper.variance, rel=1e-12)
    assert alone(EXAMPLE, upper=90, lower=10).mean == both.mean
    assert alone(EXAMPLE, upper=90, lower=10).variance == pytest.approx(both.variance, rel=1e-12)
    assert alone(EXAMPLE).mean == moments_of(EXAMPLE).mean


def test_the_cap_is_that_of_all_variations_together(populations):
    """A variation with larger values is cut at the common percentile, not at its own."""
    control, treatment = populations.duration(2000), 3 * populations.duration(500)
    statistics = [SufficientStatistics(map(float, values)) for values in (control, treatment)]
    pooled = np.sort(np.concatenate([control, treatment]))
    cap = pooled[int(np.ceil(0.95 * len(pooled))) - 1]
    for values, moments in zip((control, treatment), winsorised(statistics, upper=95), strict=True):
        cut = np.minimum(values, cap)
        assert moments.units == len(values)
        assert moments.mean == pytest.approx(cut.mean(), rel=1e-3)
        assert moments.variance == pytest.approx(cut.var(ddof=1), rel=1e-2)


@pytest.mark.parametrize(("include_imputed", "largest"), [(False, 9.0), (True, 5.0)])
def test_zeros_take_part_in_the_percentile_only_when_asked(include_imputed, largest):
    """`winsorIncludeImputed` says whether units that count as 0 move the percentile."""
    statistics = SufficientStatistics([float(value) for value in range(1, 11)], exposed=20)
    moments = winsorised([statistics], upper=90 if not include_imputed else 75, zero_fill=True,
                         include_imputed=include_imputed)[0]  # fmt: skip
    expected = moments_of([0.0] * 10 + [min(value, largest) for value in range(1, 11)])
    assert (moments.units, moments.mean) == (20, pytest.approx(expected.mean))


def test_measured_zeros_and_filled_ones_count_alike():
    """Units whose value is 0 are zeros beside those that have none."""
    statistics = SufficientStatistics([0.0, 0.0, 4.0, 6.0, 90.0], exposed=8)
    moments = winsorised([statistics], upper=80, zero_fill=True)[0]
    assert moments.units == 8
    assert moments.mean == moments_of([0.0] * 5 + [4.0, 6.0, 6.0]).mean


def test_nothing_to_cut_is_no_error():
    """Without values there are no caps."""
    assert alone([], upper=90, lower=10).units == 0
