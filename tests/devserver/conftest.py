"""A running local LaunchDarkly, and two ways to speak to it: plain HTTP and LaunchDarkly's own
SDK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ldclient
import pytest
import requests

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag

NUMERIC = {
    "key": "session.duration",
    "kind": "custom",
    "eventKey": "session.duration",
    "isNumeric": True,
    "unit": "milliseconds",
    "successCriteria": "LowerThanBaseline",
}


@pytest.fixture(name="ld")
def _ld() -> Iterator[LocalLaunchDarkly]:
    with LocalLaunchDarkly(flags=[experiment_flag("new-prompt", ["short", "long"])]) as local:
        yield local


@pytest.fixture(name="http")
def _http(ld: LocalLaunchDarkly) -> Iterator[Callable[..., requests.Response]]:
    """`http("POST", "/bulk", json=[...])`, with a token that every route takes."""
    with requests.Session() as session:
        session.trust_env = False

        def call(method: str, path: str, **options: Any) -> requests.Response:
            key = "api-token" if path.startswith(("/api/", "/v2/")) else "sdk-key"
            headers = {"Authorization": key, **(options.pop("headers", None) or {})}
            return session.request(method, ld.url + path, headers=headers, timeout=30, **options)

        yield call


@pytest.fixture(name="metric")
def _metric(http: Callable[..., requests.Response]) -> Callable[..., dict[str, Any]]:
    """Create a numeric metric, with fields changed or, as None, left out."""

    def create(**fields: Any) -> dict[str, Any]:
        body = {name: value for name, value in {**NUMERIC, **fields}.items() if value is not None}
        answer = http("POST", "/api/v2/metrics/default", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    return create


@pytest.fixture(name="sdk")
def _sdk(ld: LocalLaunchDarkly) -> Iterator[Callable[..., ldclient.LDClient]]:
    """`sdk(stream=False, ...)`: the unmodified server SDK against the local LaunchDarkly; closed at
    the end.
    """
    clients = []

    def make(start_wait: float = 60.0, **config: Any) -> ldclient.LDClient:
        uris = {"base_uri": ld.url, "stream_uri": ld.url, "events_uri": ld.url}
        clients.append(
            ldclient.LDClient(
                ldclient.Config("sdk-key", **{**uris, **config}), start_wait=start_wait
            )
        )
        return clients[-1]

    yield make
    for client in clients:
        client.close()
