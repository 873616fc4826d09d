"""Comparisons: a treatment against the control by every method, and what is missing is said."""

from __future__ import annotations

import pytest
from analysed_units import converted, pair, spread

from ldinstrument.analysis import (
    AnalysedMetric,
    AnalysisOptions,
    SufficientStatistics,
    analyse,
    z_test,
)
from ldinstrument.analysis.comparisons import Comparer
from ldinstrument.analysis.estimation import estimate


def test_the_frequentist_figures_are_those_of_the_z_test():
    """At the significance and side that the options say."""
    control, treatment = spread(100), spread(101)
    options = AnalysisOptions(significance=0.01, one_sided=True, method="frequentist")
    found = analyse(AnalysedMetric("m"), pair(control, treatment), options).comparison("t")
    expected = z_test(control.moments(), treatment.moments(), significance=0.01, one_sided=True)
    assert found.frequentist == expected
    assert found.frequentist.relative_difference.level == 0.99
    assert found.minimum_detectable_effect.value > 0
    assert found.units_needed.value > 0
    assert found.more_units == max(int(found.units_needed.value) - 800, 0)


@pytest.mark.parametrize(
    ("effect", "threshold", "regressed"), [(0.9, 0, True), (0.9, 0.2, False), (1.1, 0, False)]
)
@pytest.mark.parametrize("higher", [True, False])
def test_a_regression_is_worse_than_the_threshold(effect, threshold, regressed, higher):
    """By more than 99 %, in the direction that the success criteria call worse."""
    factor = effect if higher else 1 / effect
    options = AnalysisOptions(regression_threshold=threshold)
    result = analyse(
        AnalysedMetric("m", higher_is_better=higher),
        pair(spread(100), spread(100 * factor)),
        options,
    )
    found = result.comparison("t").regression
    assert found.regressed is regressed
    assert (found.probability.value > 0.99) is regressed
    assert (found.threshold, found.caution) == (threshold, "")


def test_without_a_threshold_a_regression_is_the_other_side_of_beating():
    """P(worse) and P(beats the control) add up to 1, for a Beta, too."""
    for metric, treatments in (
        (AnalysedMetric("m"), pair(spread(100), spread(100.3))),
        (
            AnalysedMetric("m", "occurrence", higher_is_better=False),
            pair(converted(50, 500), converted(55, 500)),
        ),
    ):
        comparison = analyse(metric, treatments).comparison("t")
        total = (
            comparison.probability_to_beat_control.value + comparison.regression.probability.value
        )
        assert total == pytest.approx(1, abs=1e-4)


def test_tiny_samples_get_no_verdict():
    """Below the least number of units the figures stand, but nothing is claimed."""
    small = pair(spread(100, 25), spread(150, 25))
    comparison = analyse(AnalysedMetric("m"), small).comparison("t")
    assert comparison.probability_to_beat_control.value > 0.999
    assert comparison.verdict.word == "too little data"
    assert any("too narrow" in caution for caution in comparison.cautions)
    bold = analyse(AnalysedMetric("m"), small, AnalysisOptions(least_units=10)).comparison("t")
    assert (bold.verdict.word, bold.cautions) == ("better", ())


def test_a_control_near_0_is_a_caution():
    """A relative difference to nearly nothing is unreliable."""
    comparison = analyse(AnalysedMetric("m"), pair(spread(0.5), spread(0.6))).comparison("t")
    assert any("near 0" in caution for caution in comparison.cautions)


def comparer(control, treatment, *, broken="", **options) -> Comparer:
    metric, settings = AnalysedMetric("m"), AnalysisOptions(**options)
    estimates = estimate(metric, pair(control, treatment), settings)
    return Comparer(metric, settings, ("c", "t"), estimates, broken)


def test_a_difference_can_be_seen_from_either_side():
    """Each variation has a relative difference to each other one: 1.25 times, and 0.8 times."""
    found = comparer(spread(100, 4000), spread(125, 4000))
    (up,), (down,) = found.relative_differences(1), found.relative_differences(0)
    assert (up.against, down.against) == ("c", "t")
    assert up.figure.value == pytest.approx(0.25, abs=0.001)
    assert down.figure.value == pytest.approx(-0.2, abs=0.001)
    assert found.probability_to_beat(0).value == 0.5


@pytest.mark.parametrize(
    ("control", "reason"), [(spread(0, 420), "mean is 0"), (spread(-5), "mean is negative")]
)
def test_without_a_positive_control_only_the_difference_is_compared(control, reason):
    """A relative difference would be none, or have the wrong sign; nor is there a regression."""
    found = comparer(control, spread(5)).compare(1)
    assert found.difference.value is not None
    assert reason in found.relative_difference.figure.reason
    assert (found.relative_difference.variance, found.regression.regressed) == (None, None)
    assert reason in found.regression.probability.reason
    assert found.verdict.word == "better"


def test_a_comparison_that_is_broken_claims_nothing():
    """The figures stand, the verdict is the reason."""
    found = comparer(spread(100), spread(120), broken="the split is broken").compare(1)
    assert found.probability_to_beat_control.value > 0.99
    assert (found.verdict.word, found.verdict.reason) == ("not comparable", "the split is broken")


def test_variations_without_values_are_compared_by_nothing():
    """Every figure says why, and so does the verdict."""
    found = comparer(SufficientStatistics(), SufficientStatistics()).compare(1)
    assert (found.frequentist.p_value, found.probability_to_beat_control.value) == (None, None)
    assert found.frequentist.p_two_sided.reason
    assert found.verdict.word == "too little data"


def test_percentiles_without_spread_are_compared_by_nothing():
    """The order of equal values says nothing; the test says the same."""
    equal = SufficientStatistics([1.0] * 40)
    found = analyse(AnalysedMetric("m", percentile=95), pair(equal, equal)).comparison("t")
    assert found.frequentist.p_value is None
    assert found.frequentist.p_two_sided.reason == found.probability_to_beat_control.reason
    assert found.frequentist.p_two_sided.reason
