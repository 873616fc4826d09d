"""An experiment's analysis: every figure, its source, and what is said with too little data."""

from __future__ import annotations

import math

import pytest
from analysed_units import figures_of, pair, spread

from ldinstrument.analysis import (
    AnalysedMetric,
    AnalysisOptions,
    SufficientStatistics,
    Treatment,
    analyse,
    normal_posteriors,
    probability_above,
    relative_difference,
)


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


def test_an_experiment_has_a_control():
    """Without a variation nothing is analysed; with the control alone nothing is compared."""
    with pytest.raises(ValueError, match="at least one variation"):
        analyse(AnalysedMetric("m"), [])
    alone = analyse(AnalysedMetric("m"), [Treatment("c", spread(100))])
    assert alone.comparisons == ()
    assert alone.control.probability_best.value == 1.0
    assert alone.sample_ratio.value is None
