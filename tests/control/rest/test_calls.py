"""Calls that are refused, repeated or given up."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ldinstrument.backoff import rest_pause
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import (
    ApiError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    Unauthorized,
    Unreachable,
)
from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import MetricsAPI

METRICS = "/api/v2/metrics/*"


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


def test_a_deadline_holds_for_all_calls_together(ld: LocalLaunchDarkly, token: str) -> None:
    """After it, nothing is tried."""
    with MetricsAPI("default", token=token, base_uri=ld.url, deadline=time.monotonic() - 1) as api:
        with pytest.raises(Unreachable, match="deadline"):
            api.get("a.b")


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
