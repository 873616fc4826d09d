"""What every REST call has in common: token, rate limit, body."""

from __future__ import annotations

import pytest
import requests

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.devserver.api.rest_call import WINDOW_SECONDS, RateLimit
from ldinstrument.devserver.responses import RefusedRequest

from .rest_answers import BASE, refused


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b'{"key": NaN}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_no_object_is_refused(http, body):
    """With a document that says so."""
    refused(http("POST", BASE, data=body, headers={"Content-Type": "application/json"}))


def test_configured_tokens_and_projects_are_the_only_ones(http):
    """Another token is a 401, another project a 404."""
    with LocalLaunchDarkly(tokens={"api-good"}, projects=["shop"]) as strict:
        import requests

        def status(project, token):
            url = f"{strict.url}/api/v2/metrics/{project}"
            return requests.get(url, headers={"Authorization": token}, timeout=5).status_code

        assert [
            status("shop", "api-good"),
            status("shop", "api-other"),
            status("default", "api-good"),
        ] == [
            200,
            401,
            404,
        ]
        strict.tokens = {"api-other"}
        assert status("shop", "api-other") == 200


def test_every_answer_announces_the_rate_limit_and_the_limit_is_real(ld):
    """A 429 says when to try again."""
    import requests

    with LocalLaunchDarkly(rate_limit=3) as limited:
        headers = {"Authorization": "api-t"}
        answers = [requests.get(limited.url + BASE, headers=headers, timeout=5) for _ in range(9)]
    assert 429 in [answer.status_code for answer in answers]
    stopped = next(answer for answer in answers if answer.status_code == 429)
    refused(stopped, 429, "rate_limited")
    assert stopped.headers["X-Ratelimit-Global-Remaining"] == "0"
    assert int(stopped.headers["X-Ratelimit-Reset"]) > 1_600_000_000_000
    assert answers[0].headers["X-Ratelimit-Global-Limit"] == "3"


def test_a_limit_is_that_of_a_window(monkeypatch):
    """All calls after it are refused until the next one begins."""
    now = [1_795_000_000.0]
    monkeypatch.setattr("ldinstrument.devserver.api.rest_call.time.time", lambda: now[0])
    limit = RateLimit(2)
    assert [limit.take()["X-Ratelimit-Global-Remaining"] for _ in range(2)] == ["1", "0"]
    for _ in range(2):
        with pytest.raises(RefusedRequest) as caught:
            limit.take()
        assert caught.value.status == 429
        assert caught.value.headers["X-Ratelimit-Global-Remaining"] == "0"
    reset = int(caught.value.headers["X-Ratelimit-Reset"]) / 1000
    assert now[0] < reset <= now[0] + WINDOW_SECONDS
    now[0] = reset
    assert limit.take()["X-Ratelimit-Global-Remaining"] == "1"


def test_a_refused_body_counts_and_says_what_is_left(http):
    """As every other answer does; a call that carries no body needs none."""
    answer = http("POST", BASE, data=b"{")
    assert "Invalid request body" in refused(answer)
    assert int(answer.headers["X-Ratelimit-Global-Remaining"]) >= 0
    assert http("GET", BASE, data=b"{").status_code == 200


def test_a_call_without_a_token_costs_nothing():
    """It is refused before it is counted."""
    with LocalLaunchDarkly(rate_limit=1) as limited:
        for _ in range(3):
            assert requests.get(limited.url + BASE, timeout=5).status_code == 401
        headers = {"Authorization": "api-t"}
        assert requests.get(limited.url + BASE, headers=headers, timeout=5).status_code == 200
