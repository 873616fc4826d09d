"""Estimation: which units are analysed, by which model, and when there is no estimate."""

from __future__ import annotations

import dataclasses

import pytest
from analysed_units import converted, figures_of, pair, spread

from ldinstrument.analysis import (
    AnalysedMetric,
    AnalysisOptions,
    PairedStatistics,
    SufficientStatistics,
    Treatment,
    analyse,
    beta_posteriors,
    percentile_figure,
)
from ldinstrument.analysis.estimation import estimate


def test_an_occurrence_counts_all_exposed_units():
    """Also where the metric asks for no zero-fill; the model is a Beta."""
    control, treatment = converted(100, 1000), converted(150, 1010)
    metric = AnalysedMetric("m", "occurrence", zero_fill=False)
    result = analyse(metric, pair(control, treatment))
    base, other = beta_posteriors(
        control.moments(zero_fill=True), [treatment.moments(zero_fill=True)], 0.04
    )
    assert (result.control.posterior, result.treatment("t").posterior) == (base, other)
    assert (result.control.units, result.control.measured) == (1000, 100)
    assert result.control.data_mean.value == 0.1
    assert result.measured_share is None
    assert result.comparison("t").verdict.word == "better"


@pytest.mark.parametrize("zero_fill", [True, False])
def test_zero_fill_decides_who_is_analysed(zero_fill):
    """With it all exposed units are, and the share with a value is a part of the effect."""
    statistics = spread(100, 200, exposed=400)
    result = analyse(AnalysedMetric("m", zero_fill=zero_fill), pair(statistics, statistics))
    assert result.control.units == (400 if zero_fill else 200)
    assert result.control.traffic == 400
    assert (result.measured_share is None) == zero_fill


def test_a_percentile_has_order_statistics_and_our_name():
    """Estimate, difference, probability and test come from its interval; zero-fill is ignored."""
    control = spread(100, 3000, exposed=9000)
    treatment = SufficientStatistics([step % 300 / 3 for step in range(3000)], exposed=9000)
    metric = AnalysedMetric("m", percentile=95, higher_is_better=False, zero_fill=True)
    result = analyse(metric, pair(control, treatment))
    assert result.control.estimate == percentile_figure(control.ordered(), 95)
    assert result.control.units == 3000
    comparison = result.comparison("t")
    expected = result.treatment("t").estimate.value / result.control.estimate.value - 1
    assert comparison.frequentist.relative_difference.value == pytest.approx(expected)
    assert comparison.relative_difference.figure.value == pytest.approx(expected)
    assert comparison.verdict.word == "better"
    sources = {figure.source for figure in figures_of(comparison) if figure.value is not None}
    assert all(
        source.startswith("ldinstrument") for source in sources - {"LaunchDarkly, guarded rollouts"}
    )


def test_a_percentile_of_few_units_is_a_reason():
    """Nothing is compared where the interval has no end."""
    treatments = [Treatment("c", spread(100), weight=8), Treatment("t", spread(100, 50))]
    result = analyse(AnalysedMetric("m", percentile=99), treatments)
    comparison = result.comparison("t")
    assert result.control.estimate.lower is not None
    for figure in figures_of(comparison):
        assert figure.value is None
        assert "too few for an interval of P99" in figure.reason
    assert comparison.verdict.word == "too little data"
    assert comparison.more_units is None


def test_winsorised_values_are_compared():
    """One unit of a million does not decide; counts of exposed and measured units stay."""
    control, treatment = spread(100), spread(103)
    control.replace(90.0, 1e6)
    plain = analyse(AnalysedMetric("m"), pair(control, treatment))
    capped = analyse(AnalysedMetric("m", winsor_upper=99), pair(control, treatment))
    assert plain.comparison("t").verdict.word == "undecided"
    assert capped.comparison("t").verdict.word == "better"
    assert capped.control.units == 400
    assert capped.control.data_mean.value < 101


def test_cuped_is_used_where_every_variation_has_a_past(populations):
    """It narrows the interval, says by how much, and is left out when one past is missing."""
    random = populations.random

    def made(effect):
        past = random.gamma(2, 10, 500)
        values = past + random.normal(20 + effect, 3, 500)
        pairs = [(float(value), float(before)) for value, before in zip(values, past, strict=True)]
        return SufficientStatistics(value for value, _ in pairs), PairedStatistics(pairs)

    (control, before), (treatment, before_treatment) = made(0), made(0)
    treatments = [
        Treatment("c", control, past=before),
        Treatment("t", treatment, past=before_treatment),
    ]
    adjusted = analyse(AnalysedMetric("m"), treatments).comparison("t").frequentist
    plain = analyse(AnalysedMetric("m"), pair(control, treatment)).comparison("t").frequentist
    assert adjusted.difference_variance < 0.2 * plain.difference_variance
    assert adjusted.difference.source == "LaunchDarkly, CUPED methodology"
    assert analyse(AnalysedMetric("m"), treatments).control.adjustment.variance_reduction > 0.8
    half = [treatments[0], dataclasses.replace(treatments[1], past=None)]
    assert analyse(AnalysedMetric("m"), half).comparison("t").frequentist == plain
    percentile = analyse(AnalysedMetric("m", percentile=50), treatments)
    assert percentile.control.adjustment is None


def test_without_an_estimate_the_units_are_still_told():
    """One reason stands for all variations; how many units there are is known all the same."""
    found = estimate(AnalysedMetric("m"), pair(spread(100), spread(100, 1)), AnalysisOptions())
    assert [moments.units for moments in found.plain] == [400, 1]
    assert found.posteriors == ()
    assert found.reason == "one unit has no spread: at least two are needed"
    assert found.adjustments == (None, None)


def test_the_prior_is_that_of_the_options():
    """A wider prior trusts the treatment's data more, for numbers and for conversions."""
    for metric, treatments, option in (
        (AnalysedMetric("m"), pair(spread(10, 21), spread(20, 21)), "numeric_prior_variance"),
        (
            AnalysedMetric("m", "occurrence"),
            pair(converted(10, 60), converted(20, 60)),
            "conversion_prior_variance",
        ),
    ):
        narrow, wide = (
            estimate(metric, treatments, AnalysisOptions(**{option: width})).posteriors[1]
            for width in (0.001, 0.2)
        )
        assert narrow.weight < wide.weight
        assert narrow.mean < wide.mean
