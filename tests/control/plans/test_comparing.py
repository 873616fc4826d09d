"""`plan`: the catalog beside the project, without changing either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import PlanError
from ldinstrument.metrics.catalogs import Catalog
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS
from ldinstrument.plans import apply, plan
from ldinstrument.rest import MetricsAPI

SUM = Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum")


ONCE = Metric("signup.done", measure="occurrence")


def by_key(found: Any) -> dict[str, Any]:
    return {change.metric.key: change for change in found.changes}


def test_plan_tells_create_unchanged_drift_and_unmanaged_apart(
    api: MetricsAPI, latency: Metric
) -> None:
    """One of each; nothing is changed by looking."""
    wanted = Catalog([latency, SUM, ONCE])
    api.create(SUM)
    api.create(Metric("signup.done", measure="count"))
    api.create(Metric("unmanaged.metric", measure="count"))
    made = plan(wanted, api)
    assert {key: change.action for key, change in by_key(made).items()} == {
        "checkout.latency": "create",
        "cart.value": "unchanged",
        "signup.done": "drift",
    }
    assert [metric.key for metric in made.unmanaged or ()] == ["unmanaged.metric"]
    (difference,) = made.drift[0].differences
    assert (difference.field, difference.wanted, difference.found) == (
        "unitAggregationType",
        "average",
        "sum",
    )
    assert made.changes[0].place.startswith(str(Path(__file__)))
    assert api.find("checkout.latency") is None
    json.dumps(made.to_json())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"unit": "cents"}, "unit"),
        ({"eventKey": "Cart.value"}, "eventKey"),
        ({"isNumeric": False}, "isNumeric"),
        ({"successCriteria": "LowerThanBaseline"}, "successCriteria"),
        ({"unitAggregationType": "average"}, "unitAggregationType"),
        ({"eventDefault/disabled": True}, "eventDefault/disabled"),
        ({"archived": True}, "archived"),
        ({"analysisUnits": ["request"]}, None),
        ({"name": "Renamed"}, None),
        ({"description": "by hand"}, None),
    ],
)
def test_each_field_that_drifts_is_named(
    api: MetricsAPI, change: dict[str, Any], field: str | None
) -> None:
    """Semantics are drift; names and what the code leaves open are not."""
    api.create(SUM)
    api.update(SUM.key, change)
    made = plan([SUM], api)
    assert [difference.field for difference in made.changes[0].differences] == (
        [field] if field else []
    )
    assert made.changes[0].action == ("drift" if field else "unchanged")


def test_percentile_and_analysis_units_drift(api: MetricsAPI) -> None:
    """Declared analysis units and percentiles are compared; the order of units is nothing."""
    api.create(
        Metric(
            "a.lat",
            unit="ms",
            success_criteria="LowerThanBaseline",
            analysis_units=("user", "request"),
        )
    )
    same = Metric(
        "a.lat", unit="ms", success_criteria="LowerThanBaseline", analysis_units=("request", "user")
    )
    other = Metric(
        "a.lat",
        unit="ms",
        success_criteria="LowerThanBaseline",
        analysis_units=("user",),
        percentile=95,
    )
    assert plan([same], api).changes[0].action == "unchanged"
    drifted = plan([other], api).changes[0]
    assert [difference.field for difference in drifted.differences] == [
        "analysisType",
        "percentileValue",
        "analysisUnits",
    ]


def test_labels_alone_are_no_drift(api: MetricsAPI) -> None:
    """A metric that somebody renamed in LaunchDarkly is listed under labels."""
    named = Metric("a.count", measure="count", name="Count", tags=("x",))
    api.create(named)
    api.update("a.count", {"name": "By hand", "tags": ["y"]})
    made = plan([named], api)
    assert made.drift == ()
    assert [difference.field for difference in made.labels[0].differences] == ["name", "tags"]


@pytest.mark.parametrize("unit", ["seconds", "s", "calls"])
def test_another_unit_of_time_is_an_error_and_nothing_is_applied(
    api: MetricsAPI, unit: str
) -> None:
    """An existing session.duration in seconds would be mixed with our milliseconds."""
    api.create(Metric("session.duration", unit=unit, success_criteria="LowerThanBaseline"))
    made = plan([*STANDARD_METRICS], api)
    assert [change.metric.key for change in made.errors] == ["session.duration"]
    with pytest.raises(PlanError, match=r"ldinstrument metrics delete session\.duration"):
        apply(made, api, update=True)
    assert api.count() == 1


def test_another_word_for_the_same_unit_is_drift(api: MetricsAPI, latency: Metric) -> None:
    """`ms` is milliseconds: nothing would be mixed."""
    api.create(Metric(latency.key, unit="ms", success_criteria="LowerThanBaseline"))
    assert plan([latency], api).changes[0].action == "drift"


def test_another_kind_is_an_error(api: MetricsAPI, latency: Metric) -> None:
    """The kind of a metric never changes."""
    from ldinstrument.rest.bodies import PageViewMetric, UrlMatch

    api.create(PageViewMetric(latency.key, (UrlMatch("exact", "https://example.org"),)))
    assert "pageview" in plan([latency], api).errors[0].problem


def test_a_finer_metric_on_the_same_event_is_pointed_out(api: MetricsAPI) -> None:
    """A count in LaunchDarkly on an event that sessions fold into one sum would count sessions."""
    api.create(Metric("cart.count", measure="count", event_key="cart.value"))
    api.create(Metric("cart.any", measure="occurrence", event_key="cart.value"))
    (finer,) = plan([SUM], api).finer
    assert finer.found.key == "cart.count"
    assert "rollup='each' on cart.value" in finer.advice()
    both = [SUM, Metric("cart.count", measure="count", event_key="cart.value")]
    assert plan(both, api).finer == ()
    api.update("cart.count", {"archived": True})
    assert plan([SUM], api).finer == ()


def test_missing_analysis_units_are_an_error_with_the_way_out(api: MetricsAPI) -> None:
    """Opt-in creates the kind and makes it available, beside those that are."""
    metric = Metric("org.seats", measure="count", analysis_units=("organization",))
    made = plan([metric], api)
    assert made.missing_units[0][0] == "organization"
    assert "--create-context-kinds" in made.missing_units[0][1]
    with pytest.raises(PlanError, match="organization"):
        apply(made, api)
    done = apply(made, api, create_context_kinds=True)
    assert done.changes[0].result == "created"
    assert api.analysis_units() == ("user", "request", "organization")
    assert plan([metric], api).missing_units == ()


def test_many_events_are_asked_for_in_few_calls(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """Not in one whose address no proxy lets through, and not one by one."""
    wanted = [Metric(f"many.m{number:03}", measure="count") for number in range(90)]
    for metric in wanted:
        api.create(metric)
    asked: list[str] = []
    ld.fault("*", status=500, times=None, when=lambda m, path, h, b: bool(asked.append(path)))
    made = plan(wanted, api, unmanaged=False)
    assert {change.action for change in made.changes} == {"unchanged"}
    assert asked == ["/api/v2/metrics/default"] * 3


def test_a_first_start_looks_at_a_small_project_as_a_whole(
    ld: LocalLaunchDarkly, api: MetricsAPI
) -> None:
    """And asks for each metric by its key only where that takes fewer calls."""
    wanted = [Metric(f"first.m{number:03}", measure="count") for number in range(4)]
    api.create(Metric("first.m003", measure="count", event_key="under.another.event"))
    asked: list[str] = []

    def remember(method: str, path: str, headers: Any, body: bytes) -> bool:
        asked.append(path.rpartition("/")[2])
        return False

    ld.fault("*", status=500, times=None, when=remember)
    made = plan(wanted, api, unmanaged=False)
    assert [change.action for change in made.changes] == ["create", "create", "create", "drift"]
    assert asked == ["default"] * 3
    for number in range(160):
        api.create(Metric(f"many.m{number:03}", measure="count"))
    asked.clear()
    assert plan(wanted, api, unmanaged=False) == made
    assert asked == ["default", "default", *(metric.key for metric in wanted)]


def test_a_project_with_5000_metrics(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """plan reads every page; bootstrap does not need to."""
    api.create(latency)
    template = ld.database.document("metric", "default", latency.key)
    assert template is not None
    for number in range(5000):
        ld.database.put(
            "metric",
            "default",
            f"m{number}",
            {**template, "key": f"m{number}", "eventKey": f"m{number}"},
        )
    told: list[tuple[str, int, int]] = []
    made = plan([latency, ONCE], api, progress=lambda *step: told.append(step))
    assert len(made.unmanaged or ()) == 5000
    assert {change.metric.key: change.action for change in made.changes} == {
        latency.key: "unchanged",
        ONCE.key: "create",
    }
    assert ("reading metrics", 5001, 0) in told
    calls: list[str] = []
    ld.fault("*", times=None, status=500, when=lambda method, path, h, b: bool(calls.append(path)))
    assert plan([latency], api, unmanaged=False).changes[0].action == "unchanged"
    assert len(calls) == 1
