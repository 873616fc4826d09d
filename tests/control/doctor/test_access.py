"""The links that all metrics share: this process, the token and its role, the project."""

from __future__ import annotations

import json

import pytest
import requests
from traffic_and_findings import VALUE, broken, statuses

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.doctor import access, examine
from ldinstrument.rest import MetricsAPI


def test_a_refused_token_ends_the_walk(token: str) -> None:
    """401: what to make, and which source it came from is known."""
    with (
        LocalLaunchDarkly(tokens=["other"]) as ld,
        MetricsAPI("default", token=token, base_uri=ld.url) as api,
    ):
        finding = broken(examine("a.b", api, []))
    assert (finding.check, "LAUNCHDARKLY_ACCESS_TOKEN" in finding.command) == ("token", True)


def test_an_unknown_project_ends_the_walk(token: str) -> None:
    """404 for the project."""
    with (
        LocalLaunchDarkly(projects=["default"]) as ld,
        MetricsAPI("nope", token=token, base_uri=ld.url) as api,
    ):
        assert broken(examine("a.b", api, [])).check == "project"


def test_a_server_that_is_down_ends_the_walk(token: str) -> None:
    """No answer at all."""
    with MetricsAPI(
        "p", token=token, base_uri="http://127.0.0.1:9", budget=5, sleep=lambda _: None
    ) as api:
        assert "did not answer" in broken(access(api)).what


def test_a_reader_is_warned(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """A token that may only read works for the doctor and not for apply."""
    ld.fault("/api/v2/caller-identity", status=200, body=json.dumps({"tokenId": "t1"}))
    ld.fault("/api/v2/tokens/t1", status=200, body=json.dumps({"_id": "t1", "role": "reader"}))
    assert statuses(access(api))["token"] == "warning"


def test_disabled_is_said(api: MetricsAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """LDINSTRUMENT_DISABLED where the doctor runs."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    assert statuses(access(api))["environment"] == "warning"


def test_payloads_that_were_refused(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """A program that tracks NaN by itself, and one that sends with no key: each event in those
    payloads is lost.
    """
    assert [finding.check for finding in access(api)] == ["token", "project"]
    for key, body in (
        ("sdk-x", b'[{"kind": "custom", "key": "a", "metricValue": NaN}]'),
        ("", b"[]"),
    ):
        requests.post(f"{ld.url}/bulk", data=body, headers={"Authorization": key}, timeout=60)
    told = [
        (finding.status, finding.what) for finding in access(api) if finding.check == "payloads"
    ]
    assert told == [
        ("warning", "1 refused (401): Invalid SDK key"),
        ("warning", "1 refused (400): body is not a JSON array of events"),
    ]


def test_the_other_projects_with_metrics_are_named(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str
) -> None:
    """Whoever looks at an empty project may have applied to another one."""
    with MetricsAPI("elsewhere", base_uri=ld.url, token=token) as other:
        other.create(VALUE)

    empty = access(api)[-1]
    api.create(VALUE)
    filled = access(api)[-1]

    assert (empty.check, empty.status) == ("project", "warning")
    assert "--project elsewhere" in empty.command
    assert filled.status == "ok"
    assert "elsewhere has metrics, too" in filled.what
