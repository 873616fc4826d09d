"""The metrics REST API: life cycle, typed errors, retries that never create twice, and a token that
shows nowhere.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import launchdarkly_api
import pytest
from launchdarkly_api.models.metric_post import MetricPost
from launchdarkly_api.models.patch_operation import PatchOperation
from launchdarkly_api.models.randomization_settings_put import RandomizationSettingsPut
from launchdarkly_api.models.upsert_context_kind_payload import UpsertContextKindPayload

import ldinstrument
from ldinstrument.backoff import rest_pause
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import (
    ApiError,
    Conflict,
    DefinitionError,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
    Unreachable,
)
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS, task_metrics
from ldinstrument.rest import MetricsAPI, differences, json_patch
from ldinstrument.rest.bodies import ClickMetric, PageViewMetric, UrlMatch, metric_body
from ldinstrument.rest.models import remote_metric

METRICS = "/api/v2/metrics/*"
EVERY_KIND = (
    *STANDARD_METRICS,
    *task_metrics("ai.answer", ("success_rate", "duration", "time_to_first_item")).values(),
    Metric(
        "cart.adds",
        measure="count",
        event_key="Item added",
        analysis_units=("user", "request"),
        tags=("a", "b"),
    ),
    Metric("signup.done", measure="occurrence", description="Signed up", name="Signed up"),
    Metric(
        "search.latency", unit="milliseconds", success_criteria="LowerThanBaseline", percentile=95
    ),
    PageViewMetric(
        "pricing.seen",
        (UrlMatch("substring", "/pricing"), UrlMatch("exact", "https://example.org/p")),
    ),
    PageViewMetric(
        "docs.seen",
        (UrlMatch("regex", "^/docs"), UrlMatch("canonical", "https://example.org/docs")),
    ),
    ClickMetric(
        "buy.clicked", (UrlMatch("canonical", "https://example.org/"),), "#buy", name="Buy"
    ),
)


def official(ld: LocalLaunchDarkly, token: str) -> launchdarkly_api.MetricsApi:
    configuration = launchdarkly_api.Configuration(host=ld.url, api_key={"ApiKey": token})
    return launchdarkly_api.MetricsApi(launchdarkly_api.ApiClient(configuration))


# -- the life cycle --------------------------------------------------------------------------------


def test_create_get_rename_update_delete(api: MetricsAPI, latency: Metric) -> None:
    """The whole life of a metric, with typed results."""
    created = api.create(latency)
    assert (created.key, created.event_key, created.unit, created.zero_fill) == (
        "checkout.latency", "checkout.latency", "milliseconds", False,
    )  # fmt: skip
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


@pytest.mark.parametrize("metric", EVERY_KIND, ids=lambda metric: metric.key)
def test_every_body_is_one_that_the_official_client_would_send(metric: Any) -> None:
    """`MetricPost` of launchdarkly-api takes each body, knows each field, and gives the same JSON
    back.
    """
    body = metric_body(metric)
    model = MetricPost.from_dict(body)
    assert model is not None
    assert model.to_dict() == body
    assert {"name", "kind"} <= body.keys()
    assert body["kind"] != "custom" or "eventDefault" in body


def test_every_other_body_is_one_that_the_official_client_would_send(
    api: MetricsAPI, ld: LocalLaunchDarkly, latency: Metric
) -> None:
    """Patches, context kinds and experimentation settings pass the request models, too."""
    seen: list[tuple[str, str, Any]] = []

    def look(method: str, path: str, _: Any, body: bytes) -> bool:
        seen.append((method, path, json.loads(body or b"null")))
        return False

    for method in ("PATCH", "PUT"):
        ld.fault("*", method=method, when=look, times=None, status=500)
    api.create(latency)
    api.update(latency.key, {"unit": "seconds"})
    api.rename(latency.key, "Latency")
    api.create_context_kind("organization")
    api.add_analysis_unit("organization")
    patches = [step for method, _, body in seen if method == "PATCH" for step in body]
    assert patches
    for step in patches:
        model = PatchOperation.from_dict(step)
        assert model is not None
        assert model.to_dict() == step
    puts = [body for method, _, body in seen if method == "PUT"]
    assert UpsertContextKindPayload.model_validate(puts[0]).to_dict() == puts[0]
    assert RandomizationSettingsPut.model_validate(puts[1]).to_dict() == puts[1]
    assert api.analysis_units() == ("user", "request", "organization")
    assert "organization" in api.context_kinds()


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


def test_what_an_answer_leaves_out_is_launchdarklys_default(latency: Metric) -> None:
    """Older answers have `randomizationUnits` only; absent fields are mean, average, zero-fill on,
    higher is better.
    """
    raw: dict[str, Any] = {"key": "a.b", "kind": "custom", "eventKey": "a.b", "isNumeric": True}
    found = remote_metric({**raw, "randomizationUnits": ["request"]}, "p", "https://ld.test")
    assert (found.aggregation, found.percentile, found.zero_fill) == ("average", None, True)
    assert (found.analysis_units, found.name, found.archived) == (("request",), "a.b", False)
    assert remote_metric({**raw, "eventDefault": {}}, "p", "https://ld.test").zero_fill
    assert not remote_metric(
        {**raw, "eventDefault": {"disabled": True}}, "p", "https://ld.test"
    ).zero_fill
    assert [one.field for one in differences(metric_body(replace(latency, key="a.b")), found)] == [
        "successCriteria", "unit", "eventDefault/disabled"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("site", "address"),
    [
        (
            {"href": "/projects/p/metrics/a.b/details"},
            "https://ld.test/projects/p/metrics/a.b/details",
        ),
        ({"href": "//evil.test/x"}, "https://ld.test/projects/p/metrics/a.b"),
        ({"href": "https://evil.test/x"}, "https://ld.test/projects/p/metrics/a.b"),
        (None, "https://ld.test/projects/p/metrics/a.b"),
    ],
)
def test_the_address_of_a_metric_stays_with_its_host(site: Any, address: str) -> None:
    """People click it: an answer does not lead them elsewhere."""
    assert remote_metric({"key": "a.b", "_site": site}, "p", "https://ld.test").url == address


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
        "cart.adds", "session.duration",
    }  # fmt: skip
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
    ld.fault("/api/v2/metrics/default", method="GET", times=None, status=500,
             when=lambda method, path, headers, body: bool(fetched.append(path)))  # fmt: skip
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


# -- refused before the network --------------------------------------------------------------------


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


# -- typed errors ----------------------------------------------------------------------------------


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
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (405, ApiError),
        (409, Conflict),
        (422, InvalidRequest),
    ],
)
def test_refusals_carry_launchdarklys_own_words(
    ld: LocalLaunchDarkly, api: MetricsAPI, status: int, kind: type[ApiError], waits: list[float]
) -> None:
    """Message, code, support id and the request are in the error; a refusal is not retried."""
    body = {
        "code": "some_code",
        "message": "Own\nwords\x1b[31m",
        "id": "support-7",
        "errors": [{"attribute": "unit", "reason": "is odd"}],
    }
    fault = ld.fault(
        METRICS,
        status=status,
        body=json.dumps(body),
        headers={"Content-Type": "application/json"},
        times=None,
    )
    with pytest.raises(kind) as caught:
        api.get("checkout.latency")
    error = caught.value
    assert (error.status, error.code, error.support_id) == (status, "some_code", "support-7")
    assert error.message.startswith("Own words [31m; unit: is odd")
    assert "GET /api/v2/metrics/default/checkout.latency" in str(error)
    assert (fault.hits, waits) == (1, [])


def test_an_expired_token_says_so(token: str, latency: Metric) -> None:
    """401 from a server that knows its tokens, with what to look at."""
    with (
        LocalLaunchDarkly(tokens=["another"]) as ld,
        MetricsAPI("default", token=token, base_uri=ld.url) as api,
    ):
        with pytest.raises(Unauthorized, match="wrong, expired"):
            api.create(latency)


def test_an_unknown_project_is_not_found(token: str) -> None:
    """The project is part of what can be missing."""
    with (
        LocalLaunchDarkly(projects=["default"]) as ld,
        MetricsAPI("nope", token=token, base_uri=ld.url) as api,
    ):
        with pytest.raises(NotFound):
            list(api.list())


# -- retries ---------------------------------------------------------------------------------------


def test_rate_limit_storm(
    ld: LocalLaunchDarkly, api: MetricsAPI, waits: list[float], latency: Metric
) -> None:
    """Resets in the future are waited for, resets in the past are not a negative sleep; POST is
    repeated after 429.
    """
    now = time.time()
    for header in (
        {"X-Ratelimit-Reset": str(int((now + 40) * 1000))},
        {"X-Ratelimit-Reset": str(int((now - 50) * 1000))},
        {
            "X-Ratelimit-Auth-Token-Reset": str(int((now + 40) * 1000)),
            "X-Ratelimit-Reset": "nonsense",
        },
        {"Retry-After": "3"},
        {},
    ):
        ld.fault("/api/v2/metrics/default", method="POST", status=429, headers=header)
    api.create(latency)
    assert len(waits) == 5
    # Whole-second clocks and a busy machine: between half and twice of what was asked for.
    assert 20 <= waits[0] <= 80
    assert 0 < waits[1] <= 10
    assert 20 <= waits[2] <= 80
    assert 3 <= waits[3] <= 4.1
    assert 0 < waits[4] <= 10
    assert len(list(api.list())) == 1


def test_a_reset_beyond_the_budget_is_an_error_at_once(ld: LocalLaunchDarkly, token: str) -> None:
    """Nobody waits an hour; the error says how long it would have been."""
    ld.fault(METRICS, status=429, headers={"Retry-After": "3600"}, times=None)
    began = time.monotonic()
    with (
        MetricsAPI("default", token=token, base_uri=ld.url, budget=5) as api,
        pytest.raises(RateLimited) as caught,
    ):
        api.get("a.b")
    assert caught.value.retry_after >= 3600
    assert "try again in 3" in str(caught.value)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"drop": True}, {"truncate": True}, {"status": 200, "body": b"<html>"}],
)
def test_reads_are_repeated(
    ld: LocalLaunchDarkly,
    api: MetricsAPI,
    latency: Metric,
    waits: list[float],
    fault: dict[str, Any],
) -> None:
    """5xx, a cut connection, half an answer and HTML are tried again."""
    api.create(latency)
    ld.fault(METRICS, method="GET", times=2, **fault)
    assert api.get(latency.key).key == latency.key
    assert len(waits) == 2


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


def test_a_slow_body_ends_at_the_timeout(script: Any, token: str) -> None:
    """A byte now and then would keep a plain read timeout alive for ever."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
        )
        for _ in range(600):
            connection.sendall(b" ")
            time.sleep(0.05)

    server = script(drip)
    began = time.monotonic()
    with MetricsAPI("default", token=token, base_uri=server.url, timeout=0.5, budget=1) as api:
        with pytest.raises(Unreachable, match="within"):
            api.get("a.b")
    assert time.monotonic() - began < 15


def test_slow_headers_end_at_the_timeout(script: Any, token: str) -> None:
    """A byte of a header now and then comes before any read timeout; the next call has a connection
    of its own.
    """

    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(1200):
            connection.sendall(b"a")
            if over.wait(0.05):
                break

    server = script(drip)
    began = time.monotonic()
    try:
        with MetricsAPI(
            "default", token=token, base_uri=server.url, timeout=0.5, budget=0.6
        ) as api:
            held = api._calls._http._http
            with pytest.raises(Unreachable, match="within"):
                api.get("a.b")
            assert api._calls._http._http is not held
    finally:
        over.set()
    assert time.monotonic() - began < 30


def test_compressed_and_chunked_answers_are_read(script: Any, token: str) -> None:
    """gzip in chunks, as a proxy may send it."""
    packed = gzip.compress(json.dumps({"key": "a.b", "name": "A", "kind": "custom"}).encode())
    chunks = (
        b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (packed[:7], packed[7:]))
        + b"0\r\n\r\n"
    )
    server = script(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        + chunks
    )
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        assert api.get("a.b").name == "A"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>login</html>", "not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{\"key\": ", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]", "not a metric"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "not a metric"),
        (b"no HTTP at all\r\n\r\n", "broke"),
    ],
)  # fmt: skip
def test_answers_that_are_none(script: Any, token: str, answer: bytes, words: str) -> None:
    """HTML, half answers, other JSON, nothing: Unreachable, with what it was."""
    server = script(answer)
    with MetricsAPI(
        "default", token=token, base_uri=server.url, budget=5, sleep=lambda _: None
    ) as api:
        with pytest.raises(Unreachable, match=words):
            api.get("a.b")


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


@pytest.mark.parametrize("errors", [7, {"a": 1}, [5, {"attribute": None}, None], "text"])
def test_errors_of_any_shape_stay_typed(script: Any, token: str, errors: Any) -> None:
    """What a proxy or a later LaunchDarkly calls `errors` need not be a list of objects."""
    body = json.dumps({"code": "invalid_request", "message": "bad", "errors": errors}).encode()
    server = script(
        b"HTTP/1.1 422 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with (
        MetricsAPI("default", token=token, base_uri=server.url) as api,
        pytest.raises(InvalidRequest) as caught,
    ):
        api.get("a.b")
    assert caught.value.message == "bad"


def test_numbers_that_are_no_json_are_none(script: Any, token: str) -> None:
    """What was read is written again by --json, where NaN and Infinity would be refused."""
    body = b'{"key": "a.b", "one": NaN, "two": -Infinity, "three": 1e999, "four": 1.5}'
    server = script(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        assert api.get("a.b").raw == {
            "key": "a.b",
            "one": None,
            "two": None,
            "three": None,
            "four": 1.5,
        }


def test_an_html_error_page_is_a_server_error_without_the_html(script: Any, token: str) -> None:
    """A proxy's 502 page."""
    server = script(
        b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n<html><h1>oh</h1></html>"
    )
    with (
        MetricsAPI(
            "default", token=token, base_uri=server.url, budget=5, sleep=lambda _: None
        ) as api,
        pytest.raises(ServerError) as caught,
    ):
        api.get("a.b")
    assert "<" not in str(caught.value)
    assert caught.value.status == 502


def test_nobody_listens(token: str) -> None:
    """A refused connection says so, and what to start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    waits: list[float] = []
    with MetricsAPI(
        "default", token=token, base_uri=f"http://127.0.0.1:{port}", sleep=waits.append
    ) as api:
        with pytest.raises(Unreachable, match=r"refused.*ldinstrument dev"):
            api.get("a.b")
    assert waits == []  # nobody will listen there because we ask again


def test_a_name_that_does_not_resolve_is_said_at_once(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a resolver that is out of order for a moment is asked again."""
    waits: list[float] = []
    errors = [socket.gaierror(socket.EAI_AGAIN, "again"), socket.gaierror(socket.EAI_NONAME, "no")]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(errors.pop(0))
    )
    with MetricsAPI(
        "default", token=token, base_uri="https://no-such-host.invalid", sleep=waits.append
    ) as api:
        with pytest.raises(Unreachable, match="does not resolve"):
            api.get("a.b")
    assert len(waits) == 1


def test_a_deadline_holds_for_all_calls_together(ld: LocalLaunchDarkly, token: str) -> None:
    """After it, nothing is tried."""
    with MetricsAPI("default", token=token, base_uri=ld.url, deadline=time.monotonic() - 1) as api:
        with pytest.raises(Unreachable, match="deadline"):
            api.get("a.b")


# -- waiting ---------------------------------------------------------------------------------------


def test_pause_has_jitter_and_reads_every_header() -> None:
    """No two processes wait for exactly as long; dates and clocks that go wrong do no harm."""
    headers = {"X-Ratelimit-Reset": "1000010000"}
    waits = {rest_pause(0, headers, now=1_000_000.0) for _ in range(20)}
    assert len(waits) > 1
    assert all(10 <= wait <= 12.1 for wait in waits)
    assert 0 < rest_pause(0, {"X-Ratelimit-Reset": "999990000"}, now=1_000_000.0) <= 0.2
    assert rest_pause(0, {"Retry-After": "Thu, 01 Jan 1970 00:00:30 GMT"}, now=0.0) >= 30
    for broken in (
        {"Retry-After": "soon"},
        {"X-Ratelimit-Reset": ""},
        {"Retry-After": "-5"},
        {"Date": "yesterday"},
    ):
        assert 0 < rest_pause(30, broken) <= 10
    # The server's own clock decides when ours is wrong.
    skewed = {"Date": "Thu, 01 Jan 1970 00:01:40 GMT", "X-Ratelimit-Reset": "105000"}
    assert 5 <= rest_pause(0, skewed) <= 7


# -- the token shows nowhere -----------------------------------------------------------------------


def test_redirects_do_not_carry_the_token_elsewhere(script: Any, token: str) -> None:
    """A redirect is an error that names the other host; nobody there hears of the token."""
    elsewhere = script(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    server = script(
        f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        with pytest.raises(Unreachable, match="redirected"):
            api.get("a.b")
    assert token.encode() in server.requests[0]
    assert len(server.requests) == 1
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "location", [b"", b"Location: http://[bad\r\n", b"Location: /relative\r\n"]
)
def test_redirects_to_nowhere_are_typed_and_their_pages_not_read(
    script: Any, token: str, location: bytes
) -> None:
    """requests would parse the address and read the page, although it follows none."""

    def endless(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 301 Moved\r\n" + location + b"Content-Length: 100000000\r\n\r\n"
        )
        for _ in range(400):
            connection.sendall(b" ")
            time.sleep(0.05)

    server = script(endless)
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        with pytest.raises(Unreachable, match=r"redirected.*somewhere else"):
            api.get("a.b")
    assert len(server.requests) == 1


def test_a_token_that_is_echoed_is_blanked(script: Any, token: str) -> None:
    """A proxy that repeats the request in its error page, and a metric that somebody named after a
    token.
    """
    error = json.dumps({"code": token, "message": f"bad header: {token}", "id": token}).encode()
    metric = json.dumps({"key": "a.b", "name": token}).encode()
    answers = [
        b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
        % (status, len(body), body)
        for status, body in ((b"400 Bad", error), (b"200 OK", metric))
    ]
    server = script(*answers)
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        with pytest.raises(InvalidRequest) as caught:
            api.get("a.b")
        assert caught.value.message == "bad header: ***"
        assert token not in _frames(caught.value)
        assert api.get("a.b").name == "***"


def _frames(error: BaseException) -> str:
    """What an error tracker would record: the text, the chain, and the repr of every local of the
    library.
    """
    chain, seen = [error], ""
    for one in chain:
        seen += "".join(traceback.format_exception(one)) + repr(one) + str(one) + repr(vars(one))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if Path(ldinstrument.__file__).parent in Path(frame.f_code.co_filename).parents:
                seen += repr(frame.f_locals)
        chain += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        assert len(chain) < 20
    return seen


def test_the_token_is_in_no_error_log_or_repr(
    ld: LocalLaunchDarkly,
    script: Any,
    token: str,
    latency: Metric,
    caplog: pytest.LogCaptureFixture,
    capsys: Any,
) -> None:
    """Every way to fail, with locals and chained exceptions; and debug logging of everything."""
    caplog.set_level(logging.DEBUG)
    broken = script(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{", b"nonsense\r\n\r\n"
    )
    told = io.StringIO()
    for host, fault in [
        (ld.url, {"status": 401}), (ld.url, {"status": 500}), (ld.url, {"status": 429}), (ld.url, {"drop": True}),
        (ld.url, {"truncate": True}), (broken.url, {}), ("http://127.0.0.1:9", {}),
    ]:  # fmt: skip
        if fault:
            ld.fault("*", times=None, **fault)  # type: ignore[arg-type]
        with MetricsAPI(
            "default", token=token, base_uri=host, budget=5, sleep=lambda _: None
        ) as api:
            told.write(
                repr(api)
                + repr(vars(api))
                + repr(api.token)
                + repr(api._calls)
                + repr(vars(api._calls))
            )
            client = api._calls._http
            told.write(
                repr(client)
                + repr(vars(client))
                + repr(client._http.headers)
                + repr(client._http.auth)
            )
            for call in (
                lambda: api.get("a.b"),
                lambda: api.create(latency),
                lambda: list(api.list()),
            ):
                with pytest.raises(ApiError) as caught:
                    call()
                assert caught.value.__cause__ is None
                told.write(_frames(caught.value))
        ld.clear_faults()
    told.write("".join(record.getMessage() + repr(vars(record)) for record in caplog.records))
    captured = capsys.readouterr()
    assert token not in told.getvalue() + captured.out + captured.err
    assert "very-secret" not in told.getvalue()
    assert len(told.getvalue()) > 10_000


def test_a_token_that_would_break_a_header_is_refused_without_repeating_it(
    ld: LocalLaunchDarkly,
) -> None:
    """requests would put the header's value into its own error."""
    for bad in (
        "api-secret-1\nX-Evil: 1",
        "api secret-1",
        "api-secret-1\u00e9",
        "sdk-secret-1",
        "Bearer api-secret-1",
    ):
        with pytest.raises(Exception, match="token") as caught:
            MetricsAPI("default", token=bad, base_uri=ld.url)
        assert "secret-1" not in str(caught.value) + repr(caught.value)


def test_netrc_and_proxies_are_kept_out(
    ld: LocalLaunchDarkly, token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """~/.netrc does not replace the token, and a proxy does not come between us and this
    machine.
    """
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    seen: list[str] = []
    ld.fault(
        "*",
        status=500,
        times=None,
        when=lambda m, p, headers, b: bool(seen.append(headers["authorization"])),
    )
    with MetricsAPI("default", token=token, base_uri=ld.url) as api:
        list(api.list())
    assert seen == [token]


def test_what_is_sent_along(ld: LocalLaunchDarkly, api: MetricsAPI, token: str) -> None:
    """The bare token, the API version, and who we are."""
    seen: list[Any] = []
    ld.fault("*", status=500, times=None, when=lambda m, p, headers, b: bool(seen.append(headers)))
    list(api.list())
    assert seen[0]["authorization"] == token
    assert seen[0]["ld-api-version"] == "20240415"
    assert seen[0]["user-agent"].startswith("ldinstrument/")


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
