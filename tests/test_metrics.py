"""Definitions are checked where they are written; the catalog knows what an event key feeds."""

from __future__ import annotations

import dataclasses
import threading
import warnings

import pytest

from ldinstrument.errors import ConflictingDefinition, DefinitionError
from ldinstrument.metrics.catalogs import Catalog, catalog
from ldinstrument.metrics.metric import Metric, MetricWarning
from ldinstrument.metrics.standard import STANDARD_METRICS, session_metrics, task_metrics


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
    """Rollup and zero-fill follow from measure and aggregation, as DESIGN section 5 has them."""
    assert (rollup, zero_fill, aggregation) == (metric.rollup, metric.zero_fill, metric.aggregation)


@pytest.mark.parametrize("rollup", ["mean", "last", "once", "sum"])
def test_a_rollup_that_changes_the_statistic_says_so(rollup: str) -> None:
    """The warning points at the line that defines the metric."""
    with pytest.warns(MetricWarning, match="changes the statistic") as caught:
        value(rollup=rollup)

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


def test_one_key_one_definition() -> None:
    """The same definition twice is fine; another under the key is refused and both places are
    named.
    """
    own = Catalog()
    own.add(value())
    own.add(value())
    with pytest.raises(ConflictingDefinition) as caught:
        own.add(value(unit="euros"))

    assert "unit is 'items' and 'euros'" in str(caught.value)
    assert str(caught.value).count(__file__) == 2
    own.replace(value(unit="euros"))
    assert own["area.thing"].unit == "euros"
    assert len(own) == 1


def test_the_catalog_answers_by_key() -> None:
    """Look-up, iteration in order, a helpful KeyError, a refusal of what is no metric."""
    own = Catalog([value("b.b"), value("a.a")])

    assert [metric.key for metric in own] == ["a.a", "b.b"]
    assert "a.a" in own
    assert own.get("c.c") is None
    with pytest.raises(KeyError, match=r"catalog\.add"):
        own["c.c"]
    with pytest.raises(DefinitionError):
        own.add("a.a")  # type: ignore[arg-type]
    assert own.place("a.a").startswith(__file__)


def test_the_finest_rollup_of_an_event_key_wins() -> None:
    """A conversion rate beside the conversion value leaves the sum; an average beside it sends
    each.
    """
    own = Catalog([value("area.money", aggregation="sum")])
    assert own.routing("area.money").rollup == "sum"
    own.add(Metric("area.rate", "occurrence", event_key="area.money"))
    assert own.routing("area.money").rollup == "sum"
    assert own.routing("area.money").numeric
    own.add(value("area.mean", event_key="area.money"))
    assert own.routing("area.money").rollup == "each"


def test_a_count_beside_a_sum_sends_each() -> None:
    """LaunchDarkly counts events, so a count on the key forbids folding."""
    own = Catalog(
        [
            value("area.money", aggregation="sum"),
            Metric("area.orders", "count", event_key="area.money"),
        ]
    )

    assert own.routing("area.money").rollup == "each"


def test_the_standard_metrics_are_the_recipes() -> None:
    """What the seed and DESIGN section 5 name is in the default catalog, defined as they say."""
    assert {
        "session.duration", "session.success_rate", "session.interactions", "business.conversion", "revenue.impact",
        "user.satisfaction", "user.negative_feedback", "task.success_rate",
    } == {metric.key for metric in Catalog(STANDARD_METRICS)}  # fmt: skip
    assert all(catalog[metric.key] == metric for metric in STANDARD_METRICS)
    assert (
        catalog["business.conversion"].aggregation,
        catalog["business.conversion"].zero_fill,
    ) == ("sum", True)
    assert catalog["user.negative_feedback"].success_criteria == "LowerThanBaseline"
    duration, rate, interactions = session_metrics("chat")
    assert (duration.key, duration.unit, duration.zero_fill) == (
        "chat.duration",
        "milliseconds",
        False,
    )
    assert (rate.unit, rate.zero_fill) == ("percent", False)
    assert (interactions.unit, interactions.aggregation) == ("count", "sum")
    assert {"success_rate", "duration"} == set(task_metrics("ai.answer"))


def test_a_replaced_metric_leaves_its_old_event_key() -> None:
    """Values of the old key are nobody's then, and those of the new one travel by the new
    definition.
    """
    own = Catalog([value("area.money", aggregation="sum", event_key="old")])
    assert (own.routing("old").rollup, own.routing("new").declared) == ("sum", False)
    own.replace(value("area.money", event_key="new"))

    assert not own.routing("old").declared
    assert (own.routing("new").declared, own.routing("new").rollup) == (True, "each")


def test_many_threads_may_declare_at_once() -> None:
    """No definition is lost under contention."""
    own = Catalog()
    threads = [
        threading.Thread(target=lambda n=n: [own.add(value(f"area.m{n}-{i}")) for i in range(50)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(own) == 400
