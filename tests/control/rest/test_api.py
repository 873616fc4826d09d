"""The metrics API: create, read, change, delete, list, with typed errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import launchdarkly_api
import pytest
from launchdarkly_api.models.metric_post import MetricPost
from launchdarkly_api.models.patch_operation import PatchOperation
from metric_kinds import EVERY_KIND

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import (
    Conflict,
    DefinitionError,
    NotFound,
    ServerError,
    Unreachable,
)
from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import MetricsAPI, differences, json_patch
from ldinstrument.rest.bodies import ClickMetric, PageViewMetric, UrlMatch, metric_body

METRICS = "/api/v2/metrics/*"


def official(ld: LocalLaunchDarkly, token: str) -> launchdarkly_api.MetricsApi:
    configuration = launchdarkly_api.Configuration(host=ld.url, api_key={"ApiKey": token})
    return launchdarkly_api.MetricsApi(launchdarkly_api.ApiClient(configuration))


def test_create_get_rename_update_delete(api: MetricsAPI, latency: Metric) -> None:
    """The whole life of a metric, with typed results."""
    created = api.create(latency)
    assert (created.key, created.event_key, created.unit, created.zero_fill) == (
        "checkout.latency",
        "checkout.latency",
        "milliseconds",
        False,
    )
    assert api.get("checkout.latency") == created
    assert api.rename("checkout.latency", "Checkout latency").name == "Checkout latency"
    changed = api.update(
        "checkout.latency", {"unit": "seconds", "eventDefault/disabled": False}, comment="why not"
    )
    assert (changed.unit, changed.zero_fill, changed.name) == ("seconds", True, "Checkout latency")
    api.delete("checkout.latency")
    assert api.find("checkout.latency") is None


def test_every_kind_of_metric_is_created_as_it_was_meant(api: MetricsAPI) -> None:
    """What comes back does not differ from what was sent: values, counts, occurrences, percentiles,
    pages, clicks.
    """
    for metric in EVERY_KIND:
        assert differences(metric_body(metric), api.create(metric)) == ()
    assert {found.key for found in api.list()} == {metric.key for metric in EVERY_KIND}
    assert api.get("cart.adds").measure == "count"
    assert api.get("signup.done").measure == "occurrence"
    assert api.get("search.latency").percentile == 95


def test_both_clients_see_the_same_metrics(
    api: MetricsAPI, ld: LocalLaunchDarkly, token: str
) -> None:
    """What we create the official client reads with its strict models, and the other way round."""
    theirs = official(ld, token)
    for metric in EVERY_KIND:
        api.create(metric)
        read = theirs.get_metric("default", metric.key)
        assert (read.key, read.name, read.kind) == (
            metric.key,
            metric.name or metric.key,
            metric_body(metric)["kind"],
        )
    listed = theirs.get_metrics("default", limit=50)
    assert listed.total_count == len(EVERY_KIND)
    theirs.post_metric(
        "default",
        MetricPost(
            key="theirs", kind="custom", event_key="theirs", is_numeric=False, name="Theirs"
        ),
    )
    assert api.get("theirs").measure == "occurrence"
    theirs.patch_metric(
        "default", "theirs", [PatchOperation(op="replace", path="/name", value="Ours")]
    )
    assert api.get("theirs").name == "Ours"
    theirs.delete_metric("default", "theirs")
    assert api.find("theirs") is None


def test_an_analysis_unit_is_added_once(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """LaunchDarkly only takes the whole list: those that are there stay, in their order, with their
    default.
    """
    api.create_context_kind("session")
    for _ in range(2):
        api.add_analysis_unit("session")
    assert api.analysis_units() == ("user", "request", "session")
    sent = ld.fault("/api/v2/projects/*", method="PUT", status=500, times=None)
    api.add_analysis_unit("session")
    assert sent.hits == 0


def test_list_takes_filters_and_sorts(api: MetricsAPI) -> None:
    """Filters travel in LaunchDarkly's grammar."""
    for metric in EVERY_KIND:
        api.create(metric)
    assert {found.key for found in api.list(event_keys=["Item added", "session.duration"])} == {
        "cart.adds",
        "session.duration",
    }
    assert [found.key for found in api.list(tags=["a", "b"])] == ["cart.adds"]
    assert {found.key for found in api.list(event_kind="click")} == {"buy.clicked"}
    assert all(found.numeric for found in api.list(numeric=True))
    assert [found.key for found in api.list(query="pricing")] == ["pricing.seen"]
    names = [found.name for found in api.list(sort="-name")]
    assert names == sorted(names, reverse=True, key=str.lower) or names == sorted(
        names, reverse=True
    )


def test_list_is_lazy_and_reads_every_page(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """120 metrics are three pages, and a page is fetched only when somebody asks for it."""
    for number in range(120):
        api.create(Metric(f"many.m{number}", measure="count"))
    fetched: list[str] = []
    ld.fault(
        "/api/v2/metrics/default",
        method="GET",
        times=None,
        status=500,
        when=lambda method, path, headers, body: bool(fetched.append(path)),
    )
    listing = api.list()
    assert fetched == []
    next(listing)
    assert len(fetched) == 1
    assert len({found.key for found in listing} | {"x"}) == 120
    assert len(fetched) == 3
    assert len(list(api.list(limit=55))) == 55
    assert api.count() == 120


def test_list_ends_although_metrics_vanish_meanwhile(api: MetricsAPI) -> None:
    """Deleting while listing neither loops nor repeats a metric."""
    for number in range(60):
        api.create(Metric(f"many.m{number}", measure="count"))
    seen = []
    for found in api.list():
        seen.append(found.key)
        if len(seen) == 1:
            for number in range(30, 40):
                api.delete(f"many.m{number}")
    assert len(seen) == len(set(seen)) <= 60


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: PageViewMetric("a.b", ()), "urls"),
        (lambda: PageViewMetric("$ld:a", (UrlMatch("exact", "x"),)), "reserved|own"),
        (lambda: ClickMetric("a.b", (UrlMatch("exact", "x"),), " "), "selector"),
        (lambda: ClickMetric("a b", (UrlMatch("exact", "x"),), "#x"), "key"),
        (lambda: UrlMatch("glob", "x"), "kind"),  # type: ignore[arg-type]
        (lambda: UrlMatch("exact", ""), "text"),
        (
            lambda: PageViewMetric("a.b", (UrlMatch("exact", "x"),), success_criteria="Higher"),
            "success_criteria",
        ),  # type: ignore[arg-type]
        (lambda: metric_body({"key": "a"}), "Metric"),  # type: ignore[arg-type]
        (lambda: json_patch({}), "nothing"),
        (lambda: json_patch({"key": "b"}), "key"),
        (lambda: json_patch([{"op": "replace", "path": "/kind", "value": "click"}]), "kind"),
    ],
)
def test_what_cannot_work_is_refused_with_the_field(make: Callable[[], Any], field: str) -> None:
    """The error names the field, and nothing was sent."""
    with pytest.raises(DefinitionError, match=field):
        make()


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_a_key_never_becomes_another_path(api: MetricsAPI, key: str) -> None:
    """Dots that a URL would swallow are refused, odd characters are encoded."""
    with pytest.raises(DefinitionError):
        api.delete(key)
    with pytest.raises(NotFound):
        api.get("a/../b ü?x#y")


def test_already_there(api: MetricsAPI, latency: Metric) -> None:
    """A second create is a Conflict with status, code and request."""
    api.create(latency)
    with pytest.raises(Conflict) as caught:
        api.create(latency)
    assert caught.value.status in (400, 409)
    assert caught.value.request == "POST /api/v2/metrics/default"


def test_the_documented_400_for_already_there_is_the_same_conflict(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """LaunchDarkly's documentation shows a duplicate as 400 `already exists`."""
    body = {
        "code": "invalid_request",
        "message": "A metric with that key already exists",
        "id": "s-1",
    }
    ld.fault("/api/v2/metrics/default", method="POST", status=400, body=json.dumps(body))
    with pytest.raises(Conflict) as caught:
        api.create(latency)
    assert (caught.value.status, caught.value.code, caught.value.support_id) == (
        400,
        "invalid_request",
        "s-1",
    )


def test_not_found(api: MetricsAPI) -> None:
    """A missing metric is NotFound for get, rename and delete."""
    for call in (
        lambda: api.get("no.such"),
        lambda: api.rename("no.such", "x"),
        lambda: api.delete("no.such"),
    ):
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.status == 404
        assert "no.such" in caught.value.request


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"drop": True}, {"truncate": True}, {"status": 201, "body": b"<html>"}],
)
@pytest.mark.parametrize("after", [True, False])
def test_a_create_is_never_repeated_without_looking(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric, fault: dict[str, Any], after: bool
) -> None:
    """Whether LaunchDarkly did it before the fault or not: it is there once, and a GET stands
    between two POSTs.
    """
    calls: list[str] = []

    def look(method: str, path: str, _: Any, __: bytes) -> bool:
        calls.append(method)
        return method == "POST" and calls.count("POST") == 1

    ld.fault("/api/v2/metrics/default*", when=look, times=None, after=after, **fault)
    assert api.create(latency).key == latency.key
    assert calls == (["POST", "GET"] if after else ["POST", "GET", "POST"])


def test_a_lost_create_that_finds_a_stranger_is_a_conflict(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """Looking after a fault finds a metric of that key which is not ours."""
    api.create(Metric(latency.key, measure="count"))
    ld.fault("/api/v2/metrics/default", method="POST", drop=True)
    with pytest.raises(Conflict, match="different"):
        api.create(latency)


@pytest.mark.parametrize("after", [True, False])
def test_delete_survives_a_cut_connection(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric, after: bool
) -> None:
    """Done or not done before the cut: afterwards it is gone, and no 404 is raised for our own
    work.
    """
    api.create(latency)
    ld.fault(METRICS, method="DELETE", drop=True, after=after)
    api.delete(latency.key)
    assert api.find(latency.key) is None


def test_a_patch_that_is_not_idempotent_is_not_repeated(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """`replace` may be sent twice, `add` to a list may not."""
    api.create(latency)
    ld.fault(METRICS, method="PATCH", status=502)
    with pytest.raises(ServerError):
        api.update(latency.key, [{"op": "add", "path": "/tags/-", "value": "x"}])
    ld.fault(METRICS, method="PATCH", status=502)
    assert api.rename(latency.key, "Again").name == "Again"


def test_an_optimistic_lock_is_tried_again(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """Somebody else changed it at the same moment: nothing was done, so again; other conflicts are
    errors at once.
    """
    api.create(latency)
    locked = json.dumps(
        {"code": "optimistic_locking_error", "message": "Conflict. Try again later."}
    )
    ld.fault(METRICS, method="PATCH", status=409, body=locked, times=2)
    assert api.rename(latency.key, "Again").name == "Again"
    fault = ld.fault(
        METRICS, method="PATCH", status=409, body=json.dumps({"code": "other"}), times=None
    )
    with pytest.raises(Conflict):
        api.rename(latency.key, "Never")
    assert fault.hits == 1


def test_a_page_is_not_asked_for_again_and_again(script: Any, token: str) -> None:
    """Somebody's web site at a wrong address stays one."""
    server = script(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>welcome</html>"
    )
    with (
        MetricsAPI("default", token=token, base_uri=server.url) as api,
        pytest.raises(Unreachable, match="text/html"),
    ):
        api.get("a.b")
    assert len(server.requests) == 1


def test_each_thread_can_have_its_own_api(ld: LocalLaunchDarkly, token: str) -> None:
    """Four threads create the same ten metrics: each is there once, and nobody sees anything but
    Conflict.
    """
    surprises: list[BaseException] = []

    def work() -> None:
        with MetricsAPI("default", token=token, base_uri=ld.url) as api:
            for number in range(10):
                try:
                    api.create(Metric(f"shared.m{number}", measure="count"))
                except Conflict:
                    pass
                except BaseException as error:
                    surprises.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert surprises == []
    with MetricsAPI("default", token=token, base_uri=ld.url) as api:
        assert api.count() == 10
