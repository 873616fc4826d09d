"""Verdicts: what the figures come to, and that skewed values in unequal groups do not make one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ldinstrument.analysis import (
    AnalysedMetric,
    AnalysisOptions,
    Figure,
    Moments,
    SufficientStatistics,
    Treatment,
    Verdict,
    analyse,
    z_test,
)
from ldinstrument.analysis.frequentist import error_skewness, no_test
from ldinstrument.analysis.verdicts import (
    Evidence,
    broken_comparison,
    by_p,
    skewed_tail,
    tail_shift,
    verdict,
)

PLAIN = z_test(Moments(400, 20.0, 90.0), Moments(400, 20.4, 90.0))


def judged(probability: float | None, units: int = 100, skewness: float = 0.0, **more) -> Verdict:
    test = z_test(Moments(1000, 20.0, 90.0, skewness), Moments(100, 20.4, 90.0, skewness))
    figure = Figure(probability, "test", reason="" if probability is not None else "nothing known")
    options = AnalysisOptions(**more)
    return verdict(options, Evidence(figure, test, units), higher_is_better=True)


@pytest.mark.parametrize(
    ("probability", "word"),
    [
        (0.95, "better"),
        (0.9499, "undecided"),
        (0.0501, "undecided"),
        (0.05, "worse"),
        (None, "too little data"),
    ],
)
def test_a_verdict_goes_by_the_threshold_either_way(probability, word):
    """95 % for better, 5 % for worse; in between it is undecided."""
    assert judged(probability).word == word
    assert judged(probability).reason


def test_the_threshold_and_the_least_units_can_be_set():
    """What is decided at 90 % is not at 95 %, and 29 units are too few by default."""
    assert judged(0.92, threshold=0.9).word == "better"
    assert judged(0.999, units=29).word == "too little data"
    assert judged(0.999, units=29, least_units=20).word == "better"


def test_skewed_values_in_unequal_groups_need_more_than_the_threshold():
    """The shift of the tail is added to what is asked; a Beta posterior needs none."""
    assert judged(0.96, skewness=6.0).word == "undecided"
    assert "skewed" in judged(0.96, skewness=6.0).reason
    assert judged(0.04, skewness=6.0).word == "undecided"
    assert judged(0.96, skewness=0.1).word == "better"
    test = z_test(Moments(1000, 0.01, 0.0099, 9.8), Moments(100, 0.05, 0.0475, 4.1))
    exact = Evidence(Figure(0.96, "test"), test, 100, exact=True)
    assert verdict(AnalysisOptions(), exact, higher_is_better=True).word == "better"


@pytest.mark.parametrize(("higher", "word"), [(True, "better"), (False, "worse")])
def test_a_verdict_by_p_has_the_direction_of_the_difference(higher, word):
    """Significant, and up: better where higher is."""
    test = z_test(Moments(400, 20.0, 90.0), Moments(400, 23.0, 90.0))
    assert by_p(test, higher_is_better=higher).word == word
    assert by_p(PLAIN, higher_is_better=higher).word == "undecided"


def test_a_verdict_by_p_asks_the_difference_itself_too():
    """A relative p below the level with a difference above it is undecided."""
    test = z_test(Moments(40, 10.0, 300.0), Moments(40, 4.7, 25.0))
    assert test.significant
    assert test.p_difference.value > 0.05
    found = by_p(test, higher_is_better=True)
    assert found.word == "undecided"
    assert "of the difference itself" in found.reason


def test_a_verdict_by_p_asks_for_more_where_values_are_skewed():
    """The same figures with a skewness in unequal groups decide nothing."""
    groups = (1800, 20.0, 90.0), (200, 21.7, 90.0)
    plain = z_test(*(Moments(*group) for group in groups))
    skewed = z_test(*(Moments(*group, 6.0) for group in groups))
    assert plain.p_two_sided == skewed.p_two_sided
    assert by_p(plain, higher_is_better=True).word == "better"
    assert by_p(skewed, higher_is_better=True).word == "undecided"


def test_the_skewness_of_a_difference_is_the_one_that_is_drawn(populations):
    """Of 200,000 differences of means of exponential values, which have a skewness of 2."""
    draws = populations.random
    first, second = draws.gamma(50, 1 / 50, 200_000), draws.gamma(8, 1 / 8, 200_000)
    found = error_skewness(Moments(50, 1.0, 1.0, 2.0), Moments(8, 1.0, 1.0, 2.0))
    assert found == pytest.approx(stats.skew(second - first), abs=0.03)
    assert error_skewness(Moments(90, 1.0, 1.0, 2.0), Moments(90, 5.0, 1.0, 2.0)) == 0.0
    few = error_skewness(Moments(50, 1.0, 1.0, 2.0), Moments(8, 1.0, 0.01, 0.0))
    assert few == pytest.approx(found), "few units show too little spread and skewness"


def test_the_shift_of_a_tail_is_the_one_that_is_drawn(populations):
    """How often a t value of exponential values falls below -1.645, beyond 5 %."""
    units = 60
    values = populations.random.exponential(size=(100_000, units))
    ratio = (values.mean(axis=1) - 1) / (values.std(axis=1, ddof=1) / math.sqrt(units))
    drawn = np.mean(ratio < -1.6449) - 0.05
    assert tail_shift(2 / math.sqrt(units), 0.05) == pytest.approx(drawn, abs=0.012)


def test_a_caution_is_given_from_a_fifth_of_the_tail_on():
    """A shift of 1 % of 5 % is worth a word, a smaller one is not."""
    shift_of_one = tail_shift(1.0, 0.05)
    assert skewed_tail(0.0099 / shift_of_one, 0.05) == ""
    assert "5.0% may be off by 1.0%" in skewed_tail(0.0101 / shift_of_one, 0.05)


def test_skewed_values_of_an_experiment_are_cautioned(populations):
    """A rare regression of very skewed values in a small group has its caution, also at 99 %."""
    control = SufficientStatistics(map(float, populations.extreme(1800)))
    treatment = SufficientStatistics(float(value) / 4 for value in populations.extreme(200))
    treatments = [Treatment("c", control, weight=9), Treatment("t", treatment)]
    found = analyse(AnalysedMetric("m"), treatments).comparison("t")
    assert found.probability_to_beat_control.value < 0.01
    assert found.regression.regressed
    assert "skewed" in found.regression.caution
    assert any("skewed" in caution for caution in found.cautions)
    assert found.verdict.word == "undecided"


@pytest.mark.parametrize(
    ("mismatch", "share", "said"),
    [
        (0.99, 0.5, "mismatch"),
        (0.98, 0.5, ""),
        (None, None, ""),
        (0.5, 0.0009, "different people"),
        (0.5, 0.001, ""),
    ],
)
def test_a_comparison_is_broken_by_the_split_or_the_shares(mismatch, share, said):
    """From 99 % of a mismatch on, and below p = .001 of equal shares."""
    share_figure = None if share is None else Figure(share, "test")
    found = broken_comparison(Figure(mismatch, "test"), share_figure)
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("probability", "said"),
    [(0.99999, "over 99.9%"), (0.998, "99.8%"), (0.002, "0.2%"), (0.0004, "under 0.1%")],
)
def test_a_probability_is_never_said_to_be_certain(probability, said):
    """Neither 100 % nor 0 %."""
    assert judged(probability, units=1000).reason.startswith(f"{said} probability")


def test_what_was_not_tested_is_too_little_data():
    """With the reason of the test."""
    found = by_p(no_test("nobody came", 0.05), higher_is_better=True)
    assert found == Verdict("too little data", "nobody came")
