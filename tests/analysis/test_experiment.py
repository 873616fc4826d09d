"""An experiment's analysis: every figure, its source, and what is said with too little data."""

from __future__ import annotations

import dataclasses
import math

import pytest

from ldinstrument.analysis import (
    AnalysedMetric,
    AnalysisOptions,
    Figure,
    PairedStatistics,
    SufficientStatistics,
    Treatment,
    analyse,
    beta_posteriors,
    normal_posteriors,
    percentile_figure,
    probability_above,
    relative_difference,
    z_test,
)
from ldinstrument.analysis.results import Comparison, MetricResult


def spread(centre: float, units: int = 400, exposed: int | None = None) -> SufficientStatistics:
    values = [centre + step % 21 - 10 for step in range(units)]
    return SufficientStatistics(values, exposed=exposed)


def converted(conversions: int, units: int) -> SufficientStatistics:
    return SufficientStatistics([1.0] * conversions, exposed=units)


def pair(control: SufficientStatistics, treatment: SufficientStatistics) -> list[Treatment]:
    return [Treatment("c", control, "Control"), Treatment("t", treatment, "New")]


def figures_of(thing: object) -> list[Figure]:
    if isinstance(thing, Figure):
        return [thing]
    if dataclasses.is_dataclass(thing):
        return [
            each
            for field in dataclasses.fields(thing)
            for each in figures_of(getattr(thing, field.name))
        ]
    if isinstance(thing, tuple):
        return [figure for each in thing for figure in figures_of(each)]
    return []


@pytest.mark.parametrize("higher", [True, False])
def test_a_numeric_metric_gets_launchdarklys_bayesian_figures(higher):
    """Posterior, intervals, relative difference and probabilities are those of the formulas."""
    control, treatment = spread(100), spread(101, 380)
    result = analyse(AnalysedMetric("m", higher_is_better=higher), pair(control, treatment))
    base, other = normal_posteriors(control.moments(), [treatment.moments()], 0.16)
    found = result.treatment("t")
    assert (found.posterior, result.control.posterior) == (other, base)
    assert found.estimate.value == other.mean
    assert (found.estimate.lower, found.estimate.upper) == other.interval(0.9)
    comparison = result.comparison("t")
    mean, variance = relative_difference(other, base)
    assert comparison.relative_difference.figure.value == mean
    assert comparison.relative_difference.variance == variance
    assert comparison.relative_difference.figure.lower == pytest.approx(
        mean - 1.644854 * math.sqrt(variance)
    )
    assert comparison.difference.value == other.mean - base.mean
    above = probability_above(other, base)
    beats = comparison.probability_to_beat_control.value
    assert beats == pytest.approx(above if higher else 1 - above)
    assert found.probability_best.value == pytest.approx(beats)
    assert result.control.probability_best.value == pytest.approx(1 - beats)
    assert comparison.verdict.word == ("better" if higher else "worse")


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


def test_three_variations_are_compared_with_the_control_and_with_each_other():
    """One comparison per treatment, relative differences to all, probabilities that add up to 1."""
    treatments = [Treatment(key, spread(100 + place)) for place, key in enumerate("abc")]
    result = analyse(AnalysedMetric("m"), treatments)
    assert [(each.treatment, each.control) for each in result.comparisons] == [
        ("b", "a"),
        ("c", "a"),
    ]
    assert [each.against for each in result.treatment("b").relative_differences] == ["a", "c"]
    assert sum(each.probability_best.value for each in result.treatments) == pytest.approx(
        1, abs=1e-3
    )
    assert [each.baseline for each in result.treatments] == [True, False, False]
    for missing in ("a", "z"):
        with pytest.raises(KeyError):
            result.comparison(missing)
    with pytest.raises(KeyError):
        result.treatment("z")


def test_a_broken_split_is_no_comparison():
    """Units that do not arrive as allocated take every verdict away, also a clear one."""
    result = analyse(AnalysedMetric("m"), pair(spread(100, 3000), spread(110, 4000)))
    assert result.sample_ratio.value > 0.99
    assert result.comparison("t").verdict.word == "not comparable"
    weighted = [
        Treatment("c", spread(100, 3000), weight=3),
        Treatment("t", spread(110, 4000), weight=4),
    ]
    fair = analyse(AnalysedMetric("m"), weighted)
    assert fair.comparison("t").verdict.word == "better"
    assert [each.weight for each in fair.treatments] == pytest.approx([3 / 7, 4 / 7])


def test_an_unequal_share_of_measured_units_is_no_comparison():
    """Means of different people are not compared: at p < .001 it is said."""
    treatments = pair(spread(100, 600, exposed=1000), spread(110, 750, exposed=1000))
    result = analyse(AnalysedMetric("m", zero_fill=False), treatments)
    assert result.measured_share.value < 0.001
    assert result.comparison("t").verdict.word == "not comparable"
    assert "different people" in result.comparison("t").verdict.reason
    filled = analyse(AnalysedMetric("m", zero_fill=True), treatments)
    assert filled.comparison("t").verdict.word == "better"


@pytest.mark.parametrize("measure", ["value", "count", "occurrence"])
@pytest.mark.parametrize("percentile", [None, 90])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [0.0],
        [1.0],
        [1.0, 1.0],
        [0.0, 1.0],
        [0.0] * 40,
        [1.0] * 40,
        [-5.0, 3.0, 2.0],
        [1e-30, 1e30],
    ],
)
@pytest.mark.parametrize("others", [[], [1.0], [0.0, 1.0, 0.0], [0.0, 2.0] * 30])
def test_no_data_whatever_is_an_error(measure, percentile, values, others):
    """Every figure has a finite value or a reason, never both, never neither; and a source."""
    if measure == "occurrence":
        values, others = ([float(value > 0) for value in each] for each in (values, others))
    for options in (AnalysisOptions(), AnalysisOptions(method="frequentist")):
        result = analyse(
            AnalysedMetric("m", measure, percentile=percentile, winsor_upper=95),
            pair(
                SufficientStatistics(values, exposed=len(values) + 1), SufficientStatistics(others)
            ),
            options,
        )
        for figure in figures_of(result):
            assert figure.source
            assert (figure.value is None) <= bool(figure.reason)
            for number in (figure.value, figure.lower, figure.upper):
                assert number is None or math.isfinite(number)
            assert (figure.lower is None) == (figure.upper is None) == (figure.level is None)
        for comparison in result.comparisons:
            assert comparison.verdict.reason


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


def test_an_experiment_has_a_control():
    """Without a variation nothing is analysed; with the control alone nothing is compared."""
    with pytest.raises(ValueError, match="at least one variation"):
        analyse(AnalysedMetric("m"), [])
    alone = analyse(AnalysedMetric("m"), [Treatment("c", spread(100))])
    assert alone.comparisons == ()
    assert alone.control.probability_best.value == 1.0
    assert alone.sample_ratio.value is None


def test_results_are_frozen():
    """A result is a value."""
    result = analyse(AnalysedMetric("m"), pair(spread(100), spread(101)))
    for thing, field in (
        (result, "metric"),
        (result.comparisons[0], "verdict"),
        (result.control, "id"),
    ):
        assert isinstance(thing, (MetricResult, Comparison)) or thing is result.control
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, field, None)
