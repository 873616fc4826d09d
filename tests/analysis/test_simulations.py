"""Simulations: experiments without an effect, and with a known one, many times over.

The last word on a formula is whether it is right as often as it says. Seeded, so that a run says
something of the program and not of luck; the bounds allow three standard errors of the simulation.
"""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from ldinstrument.analysis import (
    AnalysedMetric,
    AnalysisOptions,
    Figure,
    PairedStatistics,
    SufficientStatistics,
    SurvivalStatistics,
    Treatment,
    adjusted,
    analyse,
    beta_posteriors,
    compare_survival,
    measured_share_test,
    normal_posteriors,
    percentile_moments,
    probability_above,
    ratio_moments,
    relative_difference,
    sample_ratio_mismatch,
    z_test,
)
from ldinstrument.analysis.verdicts import Evidence, by_p, cautions, verdict
from ldinstrument.metrics.model_calls import ai_metrics
from ldinstrument.metrics.standard import (
    REQUEST_METRICS,
    STANDARD_METRICS,
    TASK_METRICS,
    session_metrics,
    task_metrics,
)

SCALE = int(os.environ.get("SIMULATIONS", "1"))
"""So many times as many simulations as in the suite; `make simulations` has ten."""
POPULATION_OF = {
    "session.duration": "duration",
    "session.success_rate": "success_rate",
    "session.interactions": "interactions",
    "session.successes": "interactions",
    "session.unfinished": "conversion",
    "http.request.duration_ms": "duration",
    "http.response.4xx": "conversion",
    "http.response.5xx": "conversion",
    "business.conversion": "revenue",
    "revenue.impact": "revenue",
    "user.satisfaction": "satisfaction",
    "user.negative_feedback": "conversion",
    "task.success_rate": "finished",
    "task.duration": "duration",
    "task.unfinished": "unfinished",
    "task.within": "finished",
    "task.time_to_first_item": "duration",
    "task.time_to_first_token": "duration",
    "task.time_per_chunk": "duration",
    "task.tokens.input": "tokens",
    "task.tokens.output": "tokens",
    "task.tokens.total": "tokens",
    "task.tokens.cached": "tokens",
    "task.tokens.reasoning": "tokens",
    "task.cost": "tokens",
    "task.tool_calls": "attempts",
    "task.attempts": "attempts",
    "task.inference_calls": "attempts",
}
"""The population by which each default metric is simulated."""
METRICS = sorted({*POPULATION_OF.values(), "extreme", "many_events"})
SPLITS = [(8, 8), (30, 30), (200, 200), (1000, 1000), (1800, 200), (200, 1800)]
OPTIONS = AnalysisOptions()


def at_most(level: float, times: int) -> float:
    """The largest share that a true share of *level* shows in *times* simulations."""
    return level + 3 * math.sqrt(level * (1 - level) / times)


def bayesian_verdict(control, treatment) -> str:
    """The verdict of the default options, from moments."""
    base, other = normal_posteriors(control, [treatment])
    evidence = Evidence(
        Figure(probability_above(other, base), "simulation"),
        z_test(control, treatment),
        min(control.units, treatment.units),
    )
    return verdict(OPTIONS, evidence, higher_is_better=True).word


def test_every_default_metric_has_a_population():
    """Whoever adds a default metric says what its values look like."""
    sessions = session_metrics(which=("duration", "successes", "unfinished"))
    tasks = {**task_metrics("task", TASK_METRICS), **ai_metrics("task")}.values()
    made = [*STANDARD_METRICS, *sessions, *tasks, *REQUEST_METRICS]
    assert {metric.key for metric in made} == set(POPULATION_OF)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("split", SPLITS)
def test_without_an_effect_no_verdict_is_given_more_often_than_allowed(
    populations, moments, name, split
):
    """A/A: `better` and `worse` each in at most 5 %, by p both together in at most 5 %.

    A 95 % interval that misses the truth without a caution beside it is as seldom: few units, many
    zeros, skew and unequal groups make LaunchDarkly's intervals too narrow, and that is said.
    """
    times = 800 * SCALE
    found = {"better": 0, "worse": 0, "by p": 0, "missed": 0}
    for _ in range(times):
        control, treatment = (moments(populations(name, units)) for units in split)
        if not control.variance or not treatment.variance:
            continue
        word = bayesian_verdict(control, treatment)
        if word in found:
            found[word] += 1
        test = z_test(control, treatment)
        found["by p"] += by_p(test, higher_is_better=True).word in ("better", "worse")
        interval = test.difference
        if not interval.lower <= 0 <= interval.upper:
            found["missed"] += not cautions(OPTIONS, control, treatment, test.skewness)
    assert max(found.values()) / times <= at_most(0.05, times), found


@pytest.mark.parametrize("name", ["duration", "success_rate", "interactions", "satisfaction"])
def test_launchdarklys_p_and_intervals_are_right_with_many_units(populations, moments, name):
    """2,000 units of moderate skew: p is below 5 % in 5 %, and 95 % intervals hold the truth."""
    times, effect = 1000 * SCALE, 1.1
    truth = populations(name, 1_000_000).mean()
    significant = held = held_relative = 0
    for _ in range(times):
        control, same = (moments(populations(name, 2000)) for _ in range(2))
        treatment = moments(populations(name, 2000) * effect)
        significant += z_test(control, same).p_two_sided.value < 0.05
        test = z_test(control, treatment)
        difference = truth * (effect - 1)
        held += test.difference.lower <= difference <= test.difference.upper
        relative = test.relative_difference
        held_relative += relative.lower <= effect - 1 <= relative.upper
    assert significant / times <= at_most(0.05, times)
    assert held / times >= 2 * 0.95 - at_most(0.95, times)
    assert held_relative / times >= 2 * 0.95 - at_most(0.95, times)


def test_posteriors_hold_what_they_say_when_the_prior_is_true(populations, moments):
    """Effects from the prior lie in 90 % of 90 % intervals, and 70 % chances come true in 70 %."""
    times, held, chances, came = 3000 * SCALE, 0, [], []
    for _ in range(times):
        effect = populations.random.normal(0, math.sqrt(0.16))
        control = moments(populations.random.normal(100, 60, 60))
        treatment = moments(populations.random.normal(100 * (1 + effect), 60, 60))
        base, other = normal_posteriors(control, [treatment])
        lower, upper = other.interval(0.9)
        held += lower <= 100 * (1 + effect) <= upper
        chances.append(probability_above(other, base))
        came.append(effect > 0)
    assert held / times == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / times))
    unsure = [
        happened for chance, happened in zip(chances, came, strict=True) if 0.6 <= chance <= 0.8
    ]
    assert np.mean(unsure) == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("split", [(100, 100), (1000, 1000), (1800, 200)])
def test_rare_conversions_without_an_effect_give_no_verdict_too_often(populations, split):
    """Beta posteriors of conversions: `better` and `worse` each in at most 5 %."""
    times, found = 400 * SCALE, {"better": 0, "worse": 0}
    for _ in range(times):
        arms = [populations.conversion(units) for units in split]
        statistics = [
            SufficientStatistics([1.0] * int(arm.sum()), exposed=len(arm)) for arm in arms
        ]
        control, treatment = (each.moments(zero_fill=True) for each in statistics)
        if control.mean in (0, 1):
            continue
        base, other = beta_posteriors(control, [treatment])
        chance = probability_above(other, base)
        found["better"] += chance >= 0.95
        found["worse"] += chance <= 0.05
    assert max(found.values()) / times <= at_most(0.05, times), found


@pytest.mark.parametrize(
    "name", ["duration", "success_rate", "interactions", "unfinished", "satisfaction"]
)
def test_a_guarded_rollout_without_an_effect_seldom_regresses(populations, moments, name):
    """A/A with 1,000 units each: a regression in at most 1 %."""
    times, regressed = 1500 * SCALE, 0
    for _ in range(times):
        control, treatment = (moments(populations(name, 1000)) for _ in range(2))
        base, other = normal_posteriors(control, [treatment])
        regressed += 1 - probability_above(other, base) > OPTIONS.regression_probability
    assert regressed / times <= at_most(0.01, times)


def test_the_relative_interval_alone_would_regress_too_often(populations, moments):
    """Why the probability of a regression is not read off the relative difference's interval."""
    times, regressed = 1500 * SCALE, 0
    for _ in range(times):
        control, treatment = (moments(populations.extreme(500)) for _ in range(2))
        base, other = normal_posteriors(control, [treatment])
        mean, variance = relative_difference(other, base)
        regressed += mean + 2.326 * math.sqrt(variance) < 0
    assert regressed / times > at_most(0.01, times)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (0.34, 0.33, 0.33)])
def test_the_split_may_be_looked_at_after_every_100_units(populations, weights):
    """A true allocation: an alarm in at most 1 % of streams of 100 looks."""
    streams, looks = 400 * SCALE, 100
    steps = populations.random.multinomial(100, weights, size=(streams, looks)).cumsum(axis=1)
    alarms = sum(
        any(sample_ratio_mismatch(units, weights).value >= 0.99 for units in stream.tolist())
        for stream in steps
    )
    assert alarms / streams <= at_most(0.01, streams)


def test_a_broken_split_is_found(populations):
    """52 to 48 where an even split was allocated is seen within 20,000 units, nearly always."""
    steps = populations.random.multinomial(100, [0.52, 0.48], size=(100, 200)).cumsum(axis=1)
    found = sum(
        any(sample_ratio_mismatch(units, [1, 1]).value >= 0.99 for units in stream.tolist()[::10])
        for stream in steps
    )
    assert found >= 95


@pytest.mark.parametrize(("percentile", "units"), [(50, 100), (90, 300), (95, 400), (99, 1500)])
@pytest.mark.parametrize("name", ["duration", "success_rate"])
def test_percentile_intervals_hold_the_percentile(populations, name, percentile, units):
    """95 % intervals hold it in at least 95 %, in skewed values and in lumps."""
    times = SCALE * 100_000 // max(units, 333)
    truth = np.quantile(populations(name, 1_000_000), percentile / 100)
    options = AnalysisOptions()
    held = significant = 0
    for _ in range(times):
        arms = [SufficientStatistics(map(float, populations(name, units))) for _ in range(2)]
        metric = AnalysedMetric("m", percentile=percentile)
        result = analyse(metric, [Treatment("c", arms[0]), Treatment("t", arms[1])], options)
        estimate = result.control.estimate
        held += estimate.lower <= truth * 1.004 and truth * 0.996 <= estimate.upper
        significant += bool(result.comparisons[0].frequentist.significant)
    assert held / times >= 2 * 0.95 - at_most(0.95, times)
    assert significant / times <= at_most(0.05, times)


def test_percentile_intervals_of_an_effect_hold_it(populations):
    """A P90 that is 20 % larger: the interval of the relative difference holds 20 % in 95 %."""
    times, held = 300 * SCALE, 0
    for _ in range(times):
        arms = [
            SufficientStatistics(map(float, populations.duration(600) * factor))
            for factor in (1, 1.2)
        ]
        test = z_test(*(percentile_moments(arm.ordered(), 90) for arm in arms))
        held += test.relative_difference.lower <= 0.2 <= test.relative_difference.upper
    assert held / times >= 2 * 0.95 - at_most(0.95, times)


@pytest.mark.parametrize(("tail", "level", "found_by_run"), [(3.5, 0.05, 0.1), (1.8, 0.08, 0.2)])
def test_ratio_metrics_stand_many_interactions_per_unit(populations, tail, level, found_by_run):
    """A/A with units that differ: at most 5 %, and 8 % where few of them have most of the
    interactions (no finite variance); counting interactions finds far more.
    """
    random, times, by_unit, by_run = populations.random, 800 * SCALE, 0, 0
    for _ in range(times):
        arms = []
        for _ in range(2):
            runs = np.ceil(random.pareto(tail, 400) * 5) + 1
            good = random.binomial(runs.astype(int), random.beta(2, 2, 400)).astype(float)
            arms.append((good, runs))
        pairs = [
            PairedStatistics(zip(map(float, good), map(float, runs), strict=True))
            for good, runs in arms
        ]
        by_unit += z_test(*map(ratio_moments, pairs)).p_difference.value < 0.05
        shares = [good.sum() / runs.sum() for good, runs in arms]
        error = sum(
            share * (1 - share) / runs.sum() for share, (_, runs) in zip(shares, arms, strict=True)
        )
        by_run += abs(shares[1] - shares[0]) > 1.96 * math.sqrt(error)
    assert by_unit / times <= at_most(level, times)
    assert by_run / times > found_by_run


def test_cuped_keeps_its_level_and_finds_more(populations, moments):
    """A/A at most 5 %, intervals hold a known effect, and a small effect is found more often."""
    random, times = populations.random, 500 * SCALE
    false = held = found = found_without = 0
    for _ in range(times):
        pasts = [random.gamma(2, 10, 300) for _ in range(3)]
        effects = (0, 0, 1.5)
        values = [
            past + random.normal(20 + effect, 6, 300)
            for past, effect in zip(pasts, effects, strict=True)
        ]
        plain = [moments(each) for each in values]
        pairs = [
            PairedStatistics(zip(map(float, value), map(float, past), strict=True))
            for value, past in zip(values, pasts, strict=True)
        ]
        control, same, treatment = (
            each.moments for each in adjusted(list(zip(plain, pairs, strict=True)))
        )
        false += z_test(control, same).p_difference.value < 0.05
        test = z_test(control, treatment)
        held += test.difference.lower <= 1.5 <= test.difference.upper
        found += test.p_difference.value < 0.05
        found_without += z_test(plain[0], plain[2]).p_difference.value < 0.05
    assert false / times <= at_most(0.05, times)
    assert held / times >= 2 * 0.95 - at_most(0.95, times)
    assert found > 2 * found_without


def unfinished_runs(random, units, mean):
    """Up to eight runs per unit, alike within it, some left before their end."""
    unit = np.repeat(np.arange(units), random.integers(1, 9, units))
    wanted = random.exponential(mean * random.lognormal(0, 0.6, units)[unit])
    patience = random.exponential(3 * mean, len(unit))
    durations, finished = np.minimum(wanted, patience).tolist(), (wanted <= patience).tolist()
    return zip((f"unit-{each}" for each in unit), durations, finished, strict=True)


def test_restricted_means_stand_many_runs_per_unit(populations):
    """A/A at most 5 % and intervals that hold the truth, though the runs of a unit are alike."""
    random, times, horizon = populations.random, 100 * SCALE, 6.0
    wanted = random.exponential(2 * random.lognormal(0, 0.6, 1_000_000))
    truth = np.minimum(wanted, horizon).mean()
    false = held = 0
    for _ in range(times):
        arms = [SurvivalStatistics(unfinished_runs(random, 150, 2.0)) for _ in range(2)]
        test = compare_survival(*arms, horizon=horizon)
        false += test.p_two_sided.value < 0.05
        held += test.control.lower <= truth <= test.control.upper
    assert false / times <= at_most(0.05, times)
    assert held / times >= 2 * 0.95 - at_most(0.95, times)


def test_equal_shares_of_measured_units_are_not_called_unequal(populations):
    """At p < .001 in at most 1 of 1,000 experiments; 60 % against 50 % of 1,000 is found."""
    random, times = populations.random, 4000 * SCALE
    measured = random.binomial([1000, 400], 0.7, size=(times, 2))
    alarms = sum(measured_share_test([1000, 400], row).value < 0.001 for row in measured.tolist())
    assert alarms / times <= at_most(0.001, times)
    assert measured_share_test([1000, 1000], [600, 500]).value < 0.001
