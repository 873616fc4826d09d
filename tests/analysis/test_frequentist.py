"""The frequentist methodology: held against scipy, tea-tasting and gbstats."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from ldinstrument.analysis import Moments, z_test

CONTROL = Moments(1200, 20.0, 90.0)
TREATMENT = Moments(1100, 21.0, 110.0)
CASES = [
    (CONTROL, TREATMENT),
    (TREATMENT, CONTROL),
    (Moments(90, 3.0, 40.0), Moments(4000, 2.5, 60.0)),
]


def test_the_relative_difference_is_launchdarklys_formula():
    """y_v / y_0 - 1, variance s_v^2 / (N_v y_0^2) + s_0^2 y_v^2 / (N_0 y_0^4), and its z test."""
    test = z_test(CONTROL, TREATMENT)
    variance = 110 / (1100 * 400) + 90 * 441 / (1200 * 160_000)
    law = stats.norm(0.05, math.sqrt(variance))
    relative = test.relative_difference
    assert relative.value == pytest.approx(0.05)
    assert (relative.lower, relative.upper) == pytest.approx(law.interval(0.95))
    assert relative.level == 0.95
    assert test.p_two_sided.value == pytest.approx(2 * law.cdf(0))
    assert test.p_one_sided.value == pytest.approx(law.cdf(0))
    assert test.significant


@pytest.mark.parametrize(("control", "treatment"), CASES)
def test_the_difference_is_tea_tastings(control, treatment):
    """Welch's interval and p of the absolute difference, with the normal distribution."""
    tasting = pytest.importorskip("tea_tasting", reason="tea-tasting is not installed here")
    aggregates = {
        name: tasting.aggr.Aggregates(each.units, {"y": each.mean}, {"y": each.variance}, {})
        for name, each in (("control", control), ("treatment", treatment))
    }
    metric = tasting.Mean("y", use_t=False, equal_var=False)
    theirs = metric.analyze_aggregates(aggregates["control"], aggregates["treatment"])
    ours = z_test(control, treatment)
    assert ours.difference.value == pytest.approx(theirs.effect_size)
    assert ours.difference.lower == pytest.approx(theirs.effect_size_ci_lower)
    assert ours.difference.upper == pytest.approx(theirs.effect_size_ci_upper)
    assert ours.p_difference.value == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(("control", "treatment"), CASES)
def test_the_relative_difference_is_gbstatss(control, treatment):
    """Another library's delta method; its t distribution of thousands of units is nearly normal."""
    tests = pytest.importorskip("gbstats.frequentist.tests", reason="gbstats is for Python 3.11")
    models = pytest.importorskip("gbstats.models.statistics", reason="gbstats is for Python 3.11")
    samples = [
        models.SampleMeanStatistic(
            n=each.units,
            sum=each.units * each.mean,
            sum_squares=each.variance * (each.units - 1) + each.units * each.mean**2,
        )
        for each in (control, treatment)
    ]
    theirs = tests.TwoSidedTTest(*samples).compute_result()
    ours = z_test(control, treatment)
    assert ours.relative_difference.value == pytest.approx(theirs.expected, rel=1e-9)
    assert math.sqrt(ours.relative_variance) == pytest.approx(theirs.uplift.stddev, rel=1e-9)
    assert ours.p_two_sided.value == pytest.approx(theirs.p_value, rel=0.02)


@pytest.mark.parametrize("control_is_higher", [True, False])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_one_sided_p_is_small_only_in_the_better_direction(control_is_higher, higher_is_better):
    """By the metric's success criteria; the two-sided p is twice the smaller tail."""
    pair = (TREATMENT, CONTROL) if control_is_higher else (CONTROL, TREATMENT)
    test = z_test(*pair, higher_is_better=higher_is_better, one_sided=True)
    better = control_is_higher != higher_is_better
    assert (test.p_one_sided.value < 0.5) == better
    assert test.p_value == test.p_one_sided.value
    smaller = min(test.p_one_sided.value, 1 - test.p_one_sided.value)
    assert test.p_two_sided.value == pytest.approx(2 * smaller)


def test_another_level_moves_intervals_and_significance_only():
    """At 0.01 the interval holds 99 %; values and p stay."""
    test = z_test(CONTROL, TREATMENT)
    strict = test.at(0.001)
    assert strict.relative_difference.lower < test.relative_difference.lower
    assert strict.difference.level == 0.999
    assert strict.difference.value == test.difference.value
    assert (strict.p_two_sided, strict.significance) == (test.p_two_sided, 0.001)
    assert strict.significant is (strict.p_two_sided.value < 0.001)
    assert strict.at(0.05) == test


@pytest.mark.parametrize(
    ("control", "reason"), [(Moments(50, 0.0, 1.0), "is 0"), (Moments(50, -3.0, 1.0), "negative")]
)
def test_without_a_relative_difference_the_difference_is_tested(control, reason):
    """A control around 0 or below has no relative difference, and says so."""
    test = z_test(control, TREATMENT)
    assert test.relative_difference.value is None
    assert reason in test.relative_difference.reason
    assert test.p_two_sided.value == pytest.approx(test.p_difference.value)


def test_a_treatment_without_conversions_has_no_interval_of_width_0():
    """-100 % is seen, but how sure it is nobody knows."""
    test = z_test(Moments(200, 0.05, 0.0475), Moments(200, 0.0, 0.0))
    assert test.relative_difference.value == -1.0
    assert test.relative_difference.lower is None
    assert "no interval" in test.relative_difference.reason
    assert test.at(0.01).relative_difference == test.relative_difference
    assert 0 < test.p_two_sided.value < 0.05


@pytest.mark.parametrize(
    ("treatment", "reason"),
    [
        (Moments(0, 0, 0), "no unit"),
        (Moments(1, 3, 0), "one unit"),
        (Moments(5, 3.0, 0.0), "same value"),
    ],
)
def test_too_little_data_is_a_reason_instead_of_a_number(treatment, reason):
    """No figure has a value, all say why."""
    test = z_test(Moments(5, 3.0, 0.0), treatment)
    for figure in (test.difference, test.relative_difference, test.p_two_sided, test.p_one_sided):
        assert figure.value is None
        assert reason in figure.reason
    assert test.significant is None
    assert test.p_value is None
    assert test.at(0.01).significant is None
