"""Requests as units of their own, in every framework, with a real client and a local
LaunchDarkly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ldclient
import pytest
from ldclient import Context

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.integrations.request_metrics import declare_request_metrics, request_context
from ldinstrument.integrations.wsgi import SessionMiddleware

KEYS = ("http.request.duration_ms", "http.response.4xx", "http.response.5xx")


@pytest.fixture
def client(launchdarkly: LocalLaunchDarkly) -> Iterator[ldclient.LDClient]:
    with contextlib.closing(ldclient.LDClient(ld.launchdarkly_config("sdk-test"))) as made:
        yield made


def test_each_request_is_measured_for_a_context_of_its_own(
    serving: Any, launchdarkly: LocalLaunchDarkly, client: Any
) -> None:
    """Its duration always, 404 and 500 where they happened; beside the user's own session."""
    with serving(request_metrics=True, client=client) as running:
        for path in ("/items/7", "/missing", "/boom", "/health"):
            with contextlib.suppress(Exception):
                running.get(path)
        launchdarkly.wait_for(
            lambda: ld.flush(5.0, client) and launchdarkly.count(key="request.interactions") == 3
        )

    durations, missing, broken = map(launchdarkly.custom_events, KEYS)
    assert len({event["context"]["key"] for event in durations}) == 3
    assert {event["context"]["kind"] for event in durations} == {"request"}
    assert all(event["metricValue"] > 0 for event in durations)
    assert [event["data"]["status"] for event in (*missing, *broken)] == [404, 500]
    # An anonymous context's attributes are in its index event only.
    known = [event["context"] for event in launchdarkly.events("index")]
    (about,) = [context for context in known if context.get("path") == "/items/7"]
    assert about["key"] in {event["context"]["key"] for event in durations}
    assert about["anonymous"] is True
    assert (about["method"], about["scheme"], about["proto"]) == ("GET", "http", "HTTP/1.1")
    assert about["host"].startswith("127.0.0.1")
    assert "httpx" in about["userAgent"]
    assert {"remoteAddr", "query"}.isdisjoint(about)
    assert {
        event["context"]["key"] for event in launchdarkly.custom_events("request.duration")
    } == {"ada"}


def test_flags_evaluated_with_it_are_exposed_for_it(
    launchdarkly: LocalLaunchDarkly, client: Any
) -> None:
    """Alone and beside the user; the read-out has the request in the variation that it met."""
    launchdarkly.set_flag(
        experiment_flag("search", ["old", "new"], metrics=KEYS, context_kind="request")
    )

    def application(environ: Any, start_response: Any) -> list[bytes]:
        own = request_context()
        assert own is not None
        context = own if environ["alone"] else Context.create_multi(own, Context.create("ada"))
        client.variation("search", context, "none")
        start_response("404 Not Found" if environ["alone"] else "200 OK", [])
        return [b""]

    middleware = SessionMiddleware(application, request_metrics=True, client=client)
    launchdarkly.wait_for(lambda: client.variation("search", Context.create("x"), None))
    for number in range(40):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "alone": number % 2}
        body: Any = middleware(environ, lambda *arguments: None)
        list(body)
        body.close()
    assert ld.flush(10.0, client).ok

    exposed = {
        event["context"].get("request", event["context"])["key"]
        for event in launchdarkly.events("feature")
        if event["context"]["kind"] in ("request", "multi")
    }
    measured = [event["context"]["key"] for event in launchdarkly.custom_events(KEYS[0])]
    assert len(measured) == 40
    assert exposed == set(measured)
    assert len(launchdarkly.custom_events(KEYS[1])) == 20


def test_a_request_that_was_not_completed_has_no_duration(
    ld_events: testing.RecordingClient,
) -> None:
    """A client that left says nothing of how long it takes; an exception is a 500."""

    def leaves(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield from (b"1", b"2")

    def breaks(environ: Any, start_response: Any) -> list[bytes]:
        raise ValueError("broken on purpose")

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    body: Any = SessionMiddleware(leaves, request_metrics=True)(dict(environ), lambda *_: None)
    next(body)
    body.close()
    assert ld_events.of(KEYS[0]) == []

    with pytest.raises(ValueError, match="on purpose"):
        SessionMiddleware(breaks, request_metrics=True)(dict(environ), lambda *_: None)
    assert len(ld_events.of(KEYS[0])) == 1
    assert ld_events.only(KEYS[2]).data["status"] == 500


def test_without_the_option_there_is_no_such_context(ld_events: testing.RecordingClient) -> None:
    """Nor outside a request."""
    seen: list[Any] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(request_context())
        return []

    SessionMiddleware(application)({"REQUEST_METHOD": "GET"}, lambda *_: None)
    assert [*seen, request_context()] == [None, None]
    assert set(ld_events.keys()).isdisjoint(KEYS)


def test_the_session_metrics_of_a_boundary_may_be_chosen(
    ld_events: testing.RecordingClient,
) -> None:
    """`metrics=` as of `session`; those that are wanted are declared."""

    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b""]

    wanted = ("successes", "unfinished")
    middleware = SessionMiddleware(application, context="ada", name="shop", metrics=wanted)
    body: Any = middleware({"REQUEST_METHOD": "GET"}, lambda *_: None)
    list(body)
    body.close()

    assert ld_events.keys() == ["shop.successes", "shop.unfinished"]
    assert (ld_events.values("shop.successes"), ld_events.values("shop.unfinished")) == ([1], [0])
    assert {"shop.successes", "shop.unfinished"} <= {metric.key for metric in ld.catalog}


def test_the_metrics_of_requests_are_declared_but_for_ones_own() -> None:
    """A program may define one of them otherwise."""
    ld.catalog.clear()
    own = ld.Metric(KEYS[0], unit="milliseconds", success_criteria="LowerThanBaseline")
    ld.catalog.add(own)
    declare_request_metrics()
    declare_request_metrics()
    assert {metric.key for metric in ld.catalog} == set(KEYS)
    assert ld.catalog.get(KEYS[0]) == own
