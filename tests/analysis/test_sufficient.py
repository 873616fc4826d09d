"""Sufficient statistics: exact, whatever the order; percentiles in bounded memory."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ldinstrument.analysis import SufficientStatistics, unit_value
from ldinstrument.analysis.exact import checked

VALUES = st.lists(
    st.floats(-1e9, 1e9).map(checked) | st.integers(-1000, 1000).map(float), max_size=30
)


def exact_variance(values: list[float]) -> float:
    fractions = [Fraction(value) for value in values]
    mean = sum(fractions) / len(fractions)
    return float(sum((value - mean) ** 2 for value in fractions) / (len(fractions) - 1))


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_units_and_parts_makes_no_difference(values, chance):
    """What is counted in any order, and merged from any parts, is equal to the last digit."""
    whole = SufficientStatistics(values)
    shuffled = chance.sample(values, len(values))
    cut = chance.randint(0, len(values))
    merged = SufficientStatistics(shuffled[:cut])
    merged.merge(SufficientStatistics(shuffled[cut:]))
    assert merged == whole
    assert merged.moments() == whole.moments()
    assert merged.total == whole.total == math.fsum(values)


@given(VALUES, VALUES)
def test_replaced_values_leave_no_trace(old, new):
    """Statistics whose values were replaced equal those that only ever saw the last ones."""
    pairs = list(zip(old, new, strict=False))
    replaced = SufficientStatistics(before for before, _ in pairs)
    for before, after in pairs:
        replaced.replace(before, after)
    assert replaced == SufficientStatistics(after for _, after in pairs)


@given(st.lists(st.floats(-1e6, 1e6).map(checked), min_size=2, max_size=30))
def test_mean_and_variance_are_those_of_exact_arithmetic(values):
    """The variance is the true one, rounded once."""
    moments = SufficientStatistics(values).moments()
    assert moments.variance == pytest.approx(exact_variance(values), rel=1e-15, abs=0)
    assert moments.mean == pytest.approx(math.fsum(values) / len(values), rel=1e-15, abs=1e-300)


def test_a_tiny_spread_on_a_large_mean_is_not_lost():
    """Where the textbook formula gives 0 or a negative number, the variance is right."""
    values = [1e9 + step / 10 for step in range(10)]
    textbook = (sum(v * v for v in values) - sum(values) ** 2 / 10) / 9
    assert textbook != pytest.approx(exact_variance(values), rel=0.1)
    assert SufficientStatistics(values).moments().variance == pytest.approx(exact_variance(values))


def test_a_unit_without_a_value_counts_as_0_only_with_zero_fill():
    """Exposed units without a value are zeros with zero-fill, and nobody without."""
    statistics = SufficientStatistics([2.0, 4.0], exposed=4)
    assert (statistics.moments().units, statistics.moments().mean) == (2, 3.0)
    filled = statistics.moments(zero_fill=True)
    assert (filled.units, filled.mean, filled.variance) == (4, 1.5, exact_variance([0, 0, 2, 4]))
    assert statistics.ordered(zero_fill=True).quantile(0.5) == 1.0


def test_a_value_that_is_no_number_is_refused_and_changes_nothing():
    """NaN, infinity and what is too large raise, and leave the statistics as they were."""
    statistics = SufficientStatistics([1.0, 2.0])
    for value in (math.nan, math.inf, -math.inf, 1e31):
        with pytest.raises(ValueError, match="finite"):
            statistics.add(value)
        with pytest.raises(ValueError, match="finite"):
            statistics.replace(1.0, value)
    with pytest.raises(ValueError, match="no unit has the value"):
        statistics.replace(77.0, 3.0)
    with pytest.raises(ValueError, match="no unit has the value"):
        statistics.remove(77.0)
    assert statistics == SufficientStatistics([1.0, 2.0])


def test_what_is_nearer_to_0_than_anybody_measures_is_0():
    """Below 1e-30 a value counts as 0, when it is added and when it is taken out."""
    statistics = SufficientStatistics([1e-31, -1e-300, 5e-324])
    assert statistics == SufficientStatistics([0.0, 0.0, 0.0])
    statistics.replace(1e-31, 2.0)
    assert statistics == SufficientStatistics([0.0, 0.0, 2.0])


def test_none_stands_for_a_unit_without_a_value():
    """A unit gets its first value from None, and loses its last to None."""
    statistics = SufficientStatistics()
    statistics.expose(2)
    statistics.replace(None, 5.0)
    assert (statistics.exposed, statistics.measured, statistics.total) == (2, 1, 5.0)
    statistics.replace(5.0, None)
    assert (statistics.exposed, statistics.measured, statistics.total) == (2, 0, 0.0)
    statistics.expose(-1)
    assert statistics.exposed == 1


@given(VALUES)
def test_the_state_survives_json(values):
    """What was written as JSON and read again is the same, and goes on as before."""
    statistics = SufficientStatistics(values, exposed=100)
    read = SufficientStatistics.from_json(json.loads(json.dumps(statistics.to_json())))
    assert read == statistics
    read.add(1.5)
    statistics.add(1.5)
    assert read == statistics
    assert statistics != SufficientStatistics(values, exposed=100)


def test_skewness_is_scipys(populations):
    """The skewness from buckets is the sample's own."""
    values = populations.duration(4000)
    skewness = SufficientStatistics(map(float, values)).moments().skewness
    assert skewness == pytest.approx(stats.skew(values), rel=0.01)
    assert SufficientStatistics([3.0, 3.0]).moments().skewness == 0.0


def test_memory_is_bounded_by_the_range_not_by_the_units(populations):
    """200,000 units of six decades fill some thousand buckets, and none stays when empty."""
    statistics = SufficientStatistics()
    values = np.exp(populations.random.uniform(math.log(1e-3), math.log(1e3), 200_000))
    for value in values:
        statistics.add(float(value))
    assert len(statistics.to_json()["buckets"]) <= 256 * math.log2(1e6) + 1
    for value in values[:1000]:
        statistics.remove(float(value))
    for value in values[1000:]:
        statistics.remove(float(value))
    assert statistics.to_json()["buckets"] == []
    assert statistics == SufficientStatistics()


def folded(events: list[list[float]]) -> tuple[int, int, float]:
    """Each session's values as one event of their sum."""
    sums = [math.fsum(session) for session in events if session]
    return len(sums), len(sums), math.fsum(sums)


def test_folded_events_give_the_figures_of_raw_events():
    """A sum folded per session is the sum of the raw events, in every figure, not only the mean."""
    chance = random.Random(5)
    raw, fold = SufficientStatistics(), SufficientStatistics()
    for _ in range(500):
        sessions = [
            [chance.choice([4.99, 12.5, 0.1, 1.0 / 3]) for _ in range(chance.randint(0, 4))]
            for _ in range(chance.randint(1, 5))
        ]
        single = [value for session in sessions for value in session]
        for statistics in (raw, fold):
            statistics.expose()
        total = 0.0
        for count, value in enumerate(single, 1):
            old = unit_value("value", "sum", count - 1, count - 1, total)
            total += value
            raw.replace(old, unit_value("value", "sum", count, count, total))
        fold.replace(None, unit_value("value", "sum", *folded(sessions)))
    assert raw.measured == fold.measured
    for zero_fill in (False, True):
        one, two = raw.moments(zero_fill=zero_fill), fold.moments(zero_fill=zero_fill)
        for name in ("units", "mean", "variance", "skewness"):
            assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-9), name
    for share in (0.1, 0.5, 0.95):
        assert raw.ordered().quantile(share) == pytest.approx(
            fold.ordered().quantile(share), rel=0.004
        )


@pytest.mark.parametrize(
    ("measure", "aggregation", "expected"),
    [
        ("value", "sum", 6.0),
        ("value", "average", 3.0),
        ("count", "sum", 3.0),
        ("occurrence", "average", 1.0),
    ],
)
def test_the_value_of_a_unit_is_as_launchdarkly_aggregates(measure, aggregation, expected):
    """Three events, two of them with a number: sum, average of the numbers, count, occurrence."""
    assert unit_value(measure, aggregation, 3, 2, 6.0) == expected
    assert unit_value(measure, aggregation, 0, 0, 0.0) is None
    assert unit_value("value", aggregation, 3, 0, 0.0) is None
