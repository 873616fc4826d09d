"""The links of one metric in LaunchDarkly: definition, event key, analysis units, zero-fill."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from traffic_and_findings import VALUE, broken, statuses

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.doctor import examine
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.model_calls import ai_metrics
from ldinstrument.rest import MetricsAPI


def test_archived(api: MetricsAPI) -> None:
    """Archived metrics are in no experiment."""
    api.create(VALUE)
    api.update(VALUE.key, {"archived": True})
    finding = broken(examine(VALUE.key, api, [VALUE]))
    assert (finding.check, finding.command) == (
        "archived",
        "ldinstrument metrics update cart.value archived=false",
    )


def test_another_kind(api: MetricsAPI) -> None:
    """A page view is not fed by track."""
    from ldinstrument.rest.bodies import PageViewMetric, UrlMatch

    api.create(PageViewMetric("a.page", (UrlMatch("exact", "https://example.org"),)))
    assert broken(examine("a.page", api, [])).check == "kind"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"unit": "euros"}, "warning"),
        ({"isNumeric": False}, "broken"),
        ({"eventKey": "x"}, "broken"),
    ],
)
def test_a_definition_that_differs(api: MetricsAPI, change: dict[str, Any], status: str) -> None:
    """Another unit makes it wrong, another event key makes it empty."""
    api.create(VALUE)
    api.update(VALUE.key, change)
    walked = examine(VALUE.key, api, [VALUE])
    assert statuses(walked)["definition"] == status
    assert "--update" in next(
        finding.command for finding in walked if finding.check == "definition"
    )


def test_seconds_where_milliseconds_are_sent(api: MetricsAPI, latency: Metric) -> None:
    """The same refusal as in plan."""
    api.create(Metric(latency.key, unit="seconds", success_criteria="LowerThanBaseline"))
    assert "mixed" in broken(examine(latency.key, api, [latency])).what


def test_an_event_key_that_differs_only_by_case(api: MetricsAPI) -> None:
    """Made by hand in LaunchDarkly, with a capital letter."""
    api.create(Metric("by.hand", measure="count", event_key="Cart.Value"))
    finding = broken(examine("by.hand", api, [VALUE]))
    assert finding.command == "ldinstrument metrics update by.hand eventKey=cart.value"


def test_a_numeric_metric_on_an_event_without_numbers(api: MetricsAPI) -> None:
    """The code declares the event as an occurrence; and a value of 0 counts as an occurrence."""
    api.create(
        Metric("by.hand", unit="x", success_criteria="HigherThanBaseline", event_key="signup.done")
    )
    assert (
        broken(examine("by.hand", api, [Metric("signup.done", measure="occurrence")])).check
        == "numbers"
    )
    api.create(Metric("by.hand2", measure="occurrence", event_key="cart.value"))
    assert statuses(examine("by.hand2", api, [VALUE]))["numbers"] == "warning"


def test_an_analysis_unit_that_is_not_available(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """Taken away after the metric was made."""
    api.create(Metric("req.count", measure="count", analysis_units=("request",)))
    settings = json.dumps({"randomizationUnits": [{"randomizationUnit": "user", "default": True}]})
    ld.fault(
        "/api/v2/projects/default/experimentation-settings", status=200, body=settings, times=None
    )
    finding = broken(examine("req.count", api, []))
    assert (finding.check, "request is not available" in finding.what) == ("analysis unit", True)
    api.create(Metric("both.count", measure="count", analysis_units=("request", "user")))
    assert statuses(examine("both.count", api, []))["analysis unit"] == "warning"


def test_zero_fill_on_a_latency_and_percentiles(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """Both pitfalls are warnings with the command that mends them."""
    api.create(latency)
    api.update(latency.key, {"eventDefault/disabled": False})
    walked = examine(latency.key, api, [])
    assert statuses(walked)["zero-fill"] == "warning"
    assert "ldinstrument metrics update checkout.latency eventDefault/disabled=true" in [
        finding.command for finding in walked
    ]
    api.create(Metric("p.lat", unit="ms", success_criteria="LowerThanBaseline", percentile=95))
    percentile = next(
        finding for finding in examine("p.lat", api, []) if finding.check == "percentile"
    )
    assert "CUPED" in percentile.why
    body = {**api.get("p.lat").raw}
    del body["percentileValue"]
    ld.fault("/api/v2/metrics/default/p.lat", status=200, body=json.dumps(body), times=None)
    assert broken(examine("p.lat", api, [])).check == "percentile"


def test_never_received(api: MetricsAPI) -> None:
    """All definitions are right, and nothing came."""
    api.create(VALUE)
    finding = broken(examine(VALUE.key, api, [VALUE]))
    assert finding.check == "last seen"
    assert "flush" in finding.command
    assert "postfork" in finding.why


@pytest.mark.parametrize(("days", "status"), [(13, "ok"), (15, "warning"), (30, "warning")])
def test_long_ago(ld: LocalLaunchDarkly, api: MetricsAPI, days: int, status: str) -> None:
    """An event that has not come for two weeks is a warning."""
    api.create(VALUE)
    body = {
        **api.get(VALUE.key).raw,
        "lastSeen": int((time.time() - days * 86400) * 1000),
        "experiments": [],
    }
    ld.fault("/api/v2/metrics/default/cart.value", status=200, body=json.dumps(body), times=None)
    ld.fault("/dev/health", status=404, times=None)
    walked = examine(VALUE.key, api, [VALUE])
    found = next(finding for finding in walked if finding.check == "last seen")
    assert (found.status, found.what) == (status, f"{days} days ago")
    assert statuses(walked)["exposure"] == "unknown"


def test_what_may_never_happen_is_not_broken(api: MetricsAPI) -> None:
    """No answer of 5xx, no negative feedback, no websocket, no cached tokens: all may be well."""
    bad = Metric("user.negative_feedback", "occurrence", success_criteria="LowerThanBaseline")
    good = Metric("cart.filled", "occurrence")
    socket = Metric("websocket.duration", unit="milliseconds", success_criteria="LowerThanBaseline")
    cached = ai_metrics("answer")["tokens.cached"]
    wanted = [bad, good, socket, cached]
    for metric in wanted:
        api.create(metric)

    seen = {
        metric.key: statuses(examine(metric.key, api, wanted))["last seen"] for metric in wanted
    }

    assert seen == {
        bad.key: "unknown",
        good.key: "broken",
        socket.key: "unknown",
        cached.key: "unknown",
    }
