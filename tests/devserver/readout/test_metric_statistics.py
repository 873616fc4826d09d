"""Cells: the statistics of a metric, kept up to date as events of a unit come."""

from __future__ import annotations

import random

import pytest

from ldinstrument.analysis import SufficientStatistics
from ldinstrument.devserver.readout.metric_statistics import MetricStatistics

SUM = {"key": "m", "isNumeric": True, "unitAggregationType": "sum"}
MEAN = {**SUM, "unitAggregationType": "average"}
COUNT = {"key": "m", "isNumeric": False, "unitAggregationType": "sum"}
SHARE = {"key": "m", "isNumeric": False, "unitAggregationType": "average"}


def statistics_of(metric: dict) -> MetricStatistics:
    return MetricStatistics(metric, 1, "user")


def over_time_of(found: MetricStatistics, variation: int) -> list[float]:
    """Units, values and their squares over all time."""
    held = [step[variation] for step in found.over_time.steps.values() if variation in step]
    return [sum(column) for column in zip(*held, strict=True)]


@pytest.mark.parametrize(
    ("metric", "value", "events"),
    [(SUM, 6.0, 2), (MEAN, 3.0, 2), (COUNT, 3.0, 3), (SHARE, 1.0, 3)],
)
def test_a_unit_has_the_value_that_launchdarkly_gives_it(metric, value, events):
    """Of three events, two of them with a number; a numeric metric counts those alone."""
    found = statistics_of(metric)
    found.change(0, 5, (0, 0, 0.0), (3, 2, 6.0))
    assert found.of(0) == SufficientStatistics([value], exposed=0)
    assert (found.events, found.totals) == ({0: events}, {0: 6.0})


@pytest.mark.parametrize("metric", [SUM, MEAN, COUNT, SHARE])
def test_event_by_event_comes_to_the_same_as_all_at_once(metric):
    """Also where a unit comes under another variation, or loses what it had."""
    rng = random.Random(3)
    kept, fresh = statistics_of(metric), statistics_of(metric)
    for unit in range(50):
        counted = (0, 0, 0.0)
        for _ in range(rng.randrange(5)):
            number = rng.random() < 0.7
            more = (counted[0] + 1, counted[1] + number, counted[2] + number * rng.randrange(9))
            kept.change(unit % 2, unit, counted, more)
            counted = more
        if unit % 10 == 0:
            kept.change(unit % 2, unit, counted, (0, 0, 0.0))
        elif counted[0]:
            fresh.change(unit % 2, unit, (0, 0, 0.0), counted)
    for variation in (0, 1):
        assert kept.of(variation) == fresh.of(variation)
        assert kept.events[variation] == fresh.events[variation]
        assert kept.totals[variation] == pytest.approx(fresh.totals[variation])
        assert over_time_of(kept, variation) == pytest.approx(over_time_of(fresh, variation))


def test_a_value_that_stays_leaves_no_trace():
    """A second event of an occurrence changes nothing but the number of events."""
    found = statistics_of(SHARE)
    found.change(1, 5, (0, 0, 0.0), (1, 0, 0.0))
    before = {first: dict(step) for first, step in found.over_time.steps.items()}
    found.change(1, 5, (1, 0, 0.0), (2, 0, 0.0))
    assert found.of(1).measured == 1
    assert found.events == {1: 2}
    assert {first: dict(step) for first, step in found.over_time.steps.items()} == before


def test_events_without_a_number_are_none_of_a_numeric_metric():
    """The unit has no value then."""
    found = statistics_of(SUM)
    found.change(0, 5, (0, 0, 0.0), (2, 0, 0.0))
    assert (found.of(0).measured, found.events[0]) == (0, 0)


def test_the_values_of_a_unit_stay_within_what_the_analysis_takes():
    """However many huge events it has: nothing raises, and the page goes on."""
    found = statistics_of(SUM)
    found.change(0, 1, (0, 0, 0.0), (10**7, 10**7, 1e31))
    found.change(0, 1, (10**7, 10**7, 1e31), (10**7 + 1, 10**7 + 1, 1.1e31))
    assert found.of(0).moments(zero_fill=False).mean == 1e30
