"""The catalog knows each metric by its key, and what an event key feeds."""

from __future__ import annotations

import threading

import pytest

from ldinstrument.errors import ConflictingDefinition, DefinitionError
from ldinstrument.metrics.catalogs import Catalog, catalog
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS, session_metrics, task_metrics


def value(key: str = "area.thing", **fields: object) -> Metric:
    return Metric(key, **{"unit": "items", "success_criteria": "HigherThanBaseline", **fields})  # type: ignore[arg-type]


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
        "session.duration",
        "session.success_rate",
        "session.interactions",
        "business.conversion",
        "revenue.impact",
        "user.satisfaction",
        "user.negative_feedback",
        "task.success_rate",
    } == {metric.key for metric in Catalog(STANDARD_METRICS)}
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
