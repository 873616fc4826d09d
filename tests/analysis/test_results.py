"""Results: values that nobody changes, from which variations are taken by id."""

from __future__ import annotations

import dataclasses

import pytest
from analysed_units import pair, spread

from ldinstrument.analysis import AnalysedMetric, Treatment, analyse
from ldinstrument.analysis.results import Comparison, MetricResult


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


def test_variations_are_found_by_id():
    """The control has no comparison, and an id that nobody has is a `KeyError`."""
    treatments = [Treatment(key, spread(100 + place)) for place, key in enumerate("abc")]
    result = analyse(AnalysedMetric("m"), treatments)
    assert result.control.id == "a"
    assert result.treatment("c").id == "c"
    assert result.comparison("c").treatment == "c"
    for missing in ("a", "z"):
        with pytest.raises(KeyError):
            result.comparison(missing)
    with pytest.raises(KeyError):
        result.treatment("z")
