"""Survival: restricted means of unfinished runs, held against scipy's Kaplan-Meier curve."""

from __future__ import annotations

import itertools
import math
import zlib

import numpy as np
import pytest
from scipy import stats

from ldinstrument.analysis import (
    SurvivalStatistics,
    common_horizon,
    compare_survival,
    restricted_mean,
)


def runs_of(random, units, mean, patience, each=1):
    """Runs that take *mean* on average and are left when the unit's patience ends."""
    wanted = random.exponential(mean, units * each)
    left = random.exponential(patience, units * each)
    return np.minimum(wanted, left), wanted <= left


def statistics_of(times, finished, prefix="u"):
    return SurvivalStatistics(
        (f"{prefix}{place}", float(time), bool(done))
        for place, (time, done) in enumerate(zip(times, finished, strict=True))
    )


@pytest.mark.parametrize("rounded", [False, True])
def test_the_area_is_that_under_scipys_curve(populations, rounded):
    """Also with ties, where who is left at a time was still at risk."""
    times, finished = runs_of(populations.random, 400, 4.0, 6.0)
    if rounded:
        times = np.ceil(times)
    data = stats.CensoredData(uncensored=times[finished], right=times[~finished])
    curve, horizon = stats.ecdf(data).sf, 7.5
    steps = np.concatenate([[0.0], curve.quantiles[curve.quantiles < horizon], [horizon]])
    expected = sum(
        curve.evaluate(start) * (end - start) for start, end in itertools.pairwise(steps)
    )
    rows = [(time, int(done), int(not done)) for time, done in zip(times, finished, strict=True)]
    assert restricted_mean(rows, horizon) == pytest.approx(float(expected), rel=1e-9)
    bucketed = statistics_of(times, finished)
    assert restricted_mean(bucketed.rows(), horizon) == pytest.approx(float(expected), rel=0.004)


def test_the_error_is_that_of_a_jackknife_over_units(populations):
    """Each group of units left out in turn, by its own statistics; spread by numpy."""
    times, finished = runs_of(populations.random, 300, 4.0, 6.0)
    runs = [(f"u{place}", float(time), bool(done)) for place, (time, done) in
            enumerate(zip(times, finished, strict=True))]  # fmt: skip
    whole, horizon = SurvivalStatistics(runs), 6.0
    groups = [zlib.crc32(unit.encode()) % 32 for unit, _, _ in runs]
    expected = [
        restricted_mean(
            SurvivalStatistics(
                run for run, group in zip(runs, groups, strict=True) if group != left_out
            ).rows(),
            horizon,
        )
        for left_out in range(32)
    ]
    estimate, without = whole.estimates(horizon)
    assert without == pytest.approx(expected, rel=1e-12)
    figure = compare_survival(whole, whole, horizon=horizon).control
    error = math.sqrt(31 / 32 * ((np.array(expected) - np.mean(expected)) ** 2).sum())
    assert figure.value == estimate
    assert figure.upper - figure.lower == pytest.approx(2 * stats.t(31).ppf(0.975) * error)


def test_unfinished_runs_do_not_make_a_variation_look_faster(populations):
    """Who is slow is left: finished runs alone say 12 % faster, the restricted mean says slower."""
    random, horizon = populations.random, 12.0
    slow, fast = random.gamma(2, 4.0, 6000), random.gamma(2, 3.0, 6000)
    patience = random.exponential(3.0, 6000), random.exponential(60.0, 6000)
    shown = [np.minimum(wanted, left) for wanted, left in zip((slow, fast), patience, strict=True)]
    done = [wanted <= left for wanted, left in zip((slow, fast), patience, strict=True)]
    assert shown[0][done[0]].mean() < 0.9 * shown[1][done[1]].mean()
    test = compare_survival(
        statistics_of(shown[1], done[1]), statistics_of(shown[0], done[0]), horizon=horizon
    )
    truth = np.minimum(slow, horizon).mean(), np.minimum(fast, horizon).mean()
    assert test.treatment.value == pytest.approx(truth[0], rel=0.06)
    assert test.control.value == pytest.approx(truth[1], rel=0.03)
    assert test.difference.lower > 0
    assert test.p_two_sided.value < 1e-6
    assert test.relative_difference.value == pytest.approx(
        test.treatment.value / test.control.value - 1
    )


def test_merged_runs_are_those_of_one_place():
    """Workers may count apart."""
    whole = SurvivalStatistics([("a", 1.5, True), ("b", 2.5, False), ("a", 3.0, True)])
    part = SurvivalStatistics([("a", 1.5, True)])
    part.merge(SurvivalStatistics([("b", 2.5, False), ("a", 3.0, True)]))
    assert part.rows() == whole.rows()
    assert part.estimates(2.0) == whole.estimates(2.0)
    assert (whole.runs, whole.unfinished) == (3, 1)


def test_an_open_run_that_finishes_is_replaced():
    """It was watched for a while, and is then known whole; nothing of the first stays."""
    runs = SurvivalStatistics([("a", 1.5, False), ("b", 9.0, True)])
    runs.remove("a", 1.5, finished=False)
    assert runs.rows() == SurvivalStatistics([("b", 9.0, True)]).rows()
    runs.add("a", 4.0, finished=True)
    assert runs.estimates(5.0) == SurvivalStatistics(
        [("a", 4.0, True), ("b", 9.0, True)]
    ).estimates(5.0)


def test_the_horizon_is_where_ten_runs_are_still_watched():
    """The longest time that at least ten runs of every variation lasted."""
    long = statistics_of(np.arange(1, 101), np.ones(100, bool))
    short = statistics_of(np.arange(1, 21), np.ones(20, bool))
    assert common_horizon([long]) == pytest.approx(91, rel=0.004)
    assert common_horizon([long, short]) == pytest.approx(11, rel=0.004)
    assert common_horizon([long, SurvivalStatistics()]) == 0.0


def test_too_few_units_are_a_reason():
    """Fewer than ten runs, or units that fall into fewer than ten groups, give no interval."""
    few = statistics_of(np.arange(1, 6), np.ones(5, bool))
    assert "fewer than ten runs" in compare_survival(few, few).difference.reason
    one_unit = SurvivalStatistics([("same", float(time), True) for time in range(1, 60)])
    test = compare_survival(one_unit, one_unit)
    assert "too few units" in test.p_two_sided.reason
    assert test.control.value is None


def test_the_same_runs_are_no_difference():
    """Equal variations differ by nothing, with a p of 1."""
    runs = statistics_of(np.arange(1, 101), np.ones(100, bool))
    test = compare_survival(runs, runs)
    assert (test.difference.value, test.p_two_sided.value) == (0.0, 1.0)
    constant = statistics_of(np.full(100, 3.0), np.ones(100, bool))
    assert compare_survival(constant, constant, horizon=5.0).p_two_sided.value == 1.0


@pytest.mark.parametrize("duration", [-1.0, math.nan, math.inf])
def test_a_duration_that_is_none_is_refused(duration):
    """Durations are finite and not negative."""
    with pytest.raises(ValueError, match="duration"):
        SurvivalStatistics().add("u", duration, finished=True)
