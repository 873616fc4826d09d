"""Definitions are checked where they are written."""

from __future__ import annotations

import dataclasses
import warnings

import pytest

from ldinstrument.errors import DefinitionError
from ldinstrument.metrics.metric import Metric, MetricWarning


def value(key: str = "area.thing", **fields: object) -> Metric:
    return Metric(key, **{"unit": "items", "success_criteria": "HigherThanBaseline", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"key": ""}, "non-empty"),
        ({"key": 7}, "non-empty"),
        ({"key": "a b"}, "letters, digits"),
        ({"key": "-a"}, "start with a letter or digit"),
        ({"key": "größe"}, "letters, digits"),
        ({"key": "$ld:ai:x"}, "LaunchDarkly's own"),
        ({"key": "otel.http"}, "LaunchDarkly's own"),
        ({"event_key": "$ld:x"}, "LaunchDarkly's own"),
        ({"event_key": " "}, "event_key"),
        ({"measure": "ratio"}, "measure"),
        ({"unit": None}, "unit: a value needs one"),
        ({"unit": ""}, "unit: a value needs one"),
        ({"success_criteria": None}, "success_criteria: a value needs one"),
        ({"success_criteria": "lower"}, "success_criteria"),
        ({"aggregation": "median"}, "aggregation"),
        ({"percentile": "p95"}, "percentile"),
        ({"percentile": True}, "percentile"),
        ({"percentile": 0}, "percentile"),
        ({"percentile": 95, "zero_fill": True}, "zero_fill"),
        ({"measure": "count"}, "unit: a count has no unit"),
        ({"measure": "count", "unit": None, "aggregation": "average"}, "measure='occurrence'"),
        ({"measure": "occurrence", "unit": None, "aggregation": "sum"}, "measure='count'"),
        ({"measure": "occurrence", "unit": None, "percentile": 50}, "percentile"),
        ({"measure": "count", "unit": None, "rollup": "mean"}, "rollup"),
        ({"rollup": "median"}, "rollup"),
        ({"limit": "10"}, "limit"),
        ({"limit": "0/s"}, "limit"),
        ({"analysis_units": "user"}, "analysis_units"),
        ({"analysis_units": [""]}, "analysis_units"),
        ({"tags": "a,b"}, "tags"),
        ({"name": 3}, "name"),
        ({"description": None}, "description"),
        ({"zero_fill": "no"}, "zero_fill"),
    ],
)
def test_a_wrong_field_is_refused_by_name(fields: dict[str, object], said: str) -> None:
    """The error names the field and the fix, and is a ValueError."""
    given = {
        "key": "area.thing",
        "unit": "items",
        "success_criteria": "HigherThanBaseline",
        **fields,
    }
    with pytest.raises(DefinitionError) as caught:
        Metric(**given)  # type: ignore[arg-type]

    assert said in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_metric_is_frozen_and_equal_by_value() -> None:
    """Definitions are values."""
    metric = value(tags=["a"], analysis_units=["user", "request"])

    assert value(tags=("a",), analysis_units=("user", "request")) == metric
    assert hash(metric) == hash(value(tags=("a",), analysis_units=("user", "request")))
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.unit = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("metric", "rollup", "zero_fill", "aggregation"),
    [
        (value(), "each", False, "average"),
        (value(aggregation="sum"), "sum", True, "sum"),
        (value(percentile=95), "each", False, "average"),
        (value(aggregation="sum", percentile=95), "sum", False, "sum"),
        (Metric("area.count", "count"), "each", True, "sum"),
        (Metric("area.happened", "occurrence"), "once", True, "average"),
    ],
)
def test_defaults_keep_launchdarklys_analysis(
    metric: Metric, rollup: str, zero_fill: bool, aggregation: str
) -> None:
    """Rollup and zero-fill follow from measure and aggregation."""
    assert (rollup, zero_fill, aggregation) == (metric.rollup, metric.zero_fill, metric.aggregation)


@pytest.mark.parametrize("rollup", ["mean", "last", "once", "sum"])
def test_a_rollup_that_changes_the_statistic_says_so(rollup: str) -> None:
    """The warning points at the line that defines the metric."""
    with pytest.warns(MetricWarning, match="changes the statistic") as caught:
        assert value(rollup=rollup).rollup == rollup

    assert caught[0].filename == __file__


def test_a_finer_rollup_is_quiet() -> None:
    """Sending each value never changes the statistic."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value(aggregation="sum", rollup="each")


@pytest.mark.parametrize(
    ("key", "said"), [("area.Thing", "lower case"), ("thing", "dotted"), ("area.time_ms", "unit")]
)
def test_names_are_linted(key: str, said: str) -> None:
    """Names that a reader of LaunchDarkly would stumble over are advised against, not refused."""
    with pytest.warns(MetricWarning, match=said):
        value(key)
