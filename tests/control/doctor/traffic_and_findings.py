"""Real traffic into a local LaunchDarkly, and what a walk found."""

from __future__ import annotations

from typing import Any

import ldclient

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.doctor import Finding
from ldinstrument.metrics.metric import Metric

VALUE = Metric(
    "cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum"
)


def client_of(ld: LocalLaunchDarkly, **options: Any) -> ldclient.LDClient:
    """A real client of the SDK's."""
    addresses = dict.fromkeys(("base_uri", "events_uri", "stream_uri"), ld.url)
    return ldclient.LDClient(
        ldclient.Config("sdk-test", **addresses, diagnostic_opt_out=True, **options)
    )


def send(ld: LocalLaunchDarkly, *events: tuple[str, Any, Any], exposed: Any = ()) -> None:
    """Real traffic by the real SDK: evaluations, then events of (key, context, value)."""
    client = client_of(ld)
    for context in exposed if isinstance(exposed, (list, tuple)) else [exposed]:
        client.variation("new-cart", context, False)
    for key, context, value in events:
        client.track(key, context, None, value)
    client.close()
    ld.wait_for(lambda: len(ld.custom_events()) >= len(events))


def user(key: str) -> ldclient.Context:
    return ldclient.Context.create(key)


def last(findings: list[Finding]) -> Finding:
    assert [finding.check for finding in findings if finding.status == "broken"] in (
        [],
        [findings[-1].check],
    )
    return findings[-1]


def broken(findings: list[Finding]) -> Finding:
    found = last(findings)
    assert found.status == "broken"
    assert found.why
    return found


def statuses(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.status for finding in findings}
