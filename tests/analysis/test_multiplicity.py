"""Corrected results: levels, intervals and verdicts of many tests together."""

from __future__ import annotations

import pytest

from ldinstrument.analysis import (
    AnalysedMetric,
    AnalysisOptions,
    SufficientStatistics,
    Treatment,
    analyse,
    corrected,
)

OPTIONS = AnalysisOptions(method="frequentist")


def spread(centre: float, units: int = 400) -> SufficientStatistics:
    return SufficientStatistics(centre + step % 21 - 10 for step in range(units))


def result(key: str, *centres: float, options: AnalysisOptions = OPTIONS):
    treatments = [Treatment(str(place), spread(centre)) for place, centre in enumerate(centres)]
    return analyse(AnalysedMetric(key), treatments, options)


@pytest.mark.parametrize(("across", "tests"), [("treatments", 2), ("metrics", 3), ("both", 6)])
def test_a_family_is_what_is_corrected_across(across, tests):
    """Treatments of a metric, metrics of a treatment, or all: their number divides the level."""
    results = [result(key, 100, 100.9, 100) for key in "abc"]
    found = corrected(results, "bonferroni", across)
    for each in found:
        for comparison in each.comparisons:
            test = comparison.frequentist
            assert test.significance == pytest.approx(0.05 / tests)
            assert test.relative_difference.level == pytest.approx(1 - 0.05 / tests)
            assert test.significant is (test.p_value < 0.05 / tests)
            assert test.correction.endswith("multiple comparisons correction: bonferroni")


def test_a_verdict_by_p_follows_the_corrected_level():
    """What was better alone is undecided among many; Benjamini-Hochberg is less strict."""
    results = [result("a", 100, 100.95)] + [result(key, 100, 102) for key in "bc"]
    p_value = results[0].comparison("1").frequentist.p_value
    assert 0.05 / 3 < p_value < 0.05
    assert results[0].comparison("1").verdict.word == "better"
    strict = corrected(results, "bonferroni")
    assert strict[0].comparison("1").verdict.word == "undecided"
    assert strict[1].comparison("1").verdict.word == "better"
    assert corrected(results, "benjamini-hochberg")[0].comparison("1").verdict.word == "better"
    assert corrected(results, "none") == results


def test_a_bayesian_verdict_and_a_missing_p_are_left_alone():
    """The correction is of frequentist tests; without a p there is nothing to correct."""
    bayesian = result("a", 100, 100.95, options=AnalysisOptions())
    found = corrected([bayesian, bayesian], "bonferroni")[0].comparison("1")
    assert found.verdict == bayesian.comparison("1").verdict
    assert found.frequentist.significance == 0.025
    empty = analyse(
        AnalysedMetric("e"),
        [Treatment("0", spread(1)), Treatment("1", SufficientStatistics())],
        OPTIONS,
    )
    assert corrected([empty], "bonferroni") == [empty]
    few = corrected([result("a", 100, 103), empty], "bonferroni")
    assert few[0].comparison("1").frequentist.significance == 0.05
    assert corrected([], "bonferroni") == []
