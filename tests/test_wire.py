"""The real `launchdarkly-server-sdk` against the local LaunchDarkly: what is on the wire, and
whether it counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ldclient import Context
from ldclient.client import LDClient
from ldclient.config import Config

import ldinstrument as ld
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag, simple_flag
from ldinstrument.metrics.metric import Metric

FLAG = experiment_flag("exp", ("a", "b"))


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[LocalLaunchDarkly]:
    with LocalLaunchDarkly(flags=[FLAG, simple_flag("plain", ("x", "y"))]) as running:
        yield running


@pytest.fixture(name="client", params=["streaming", "polling"])
def _client(server: LocalLaunchDarkly, request: pytest.FixtureRequest) -> Iterator[LDClient]:
    server.reset()
    made = LDClient(
        Config(
            "sdk-key", base_uri=server.url, events_uri=server.url, stream_uri=server.url,
            stream=request.param == "streaming", plugins=[ld.Plugin()], event_processor_class=ld.EventProcessor,
        )
    )  # fmt: skip
    assert made.is_initialized()
    yield made
    made.close()


def test_the_whole_way(server: LocalLaunchDarkly, client: LDClient) -> None:
    """From a decorated function to a row by variation: exposure first, events after it, for the
    same context.
    """
    ld.bootstrap("default", token="api-local", base_uri=server.url)

    @ld.track_interaction("wire.answer")
    def answer() -> str:
        return str(client.variation("exp", user, "a"))

    seen: dict[str, int] = {"a": 0, "b": 0}
    ld.bootstrap("default", token="api-local", base_uri=server.url)
    for n in range(20):
        user = Context.builder(f"u-{n}").set("plan", "pro").build()
        with ld.session(f"u-{n}", client=client) as s:
            seen[answer()] += 1
            s.revenue(2.5)
    report = ld.flush(timeout=60, client=client)

    assert report.confirmed
    assert report.delivered == 20 * 7
    events = ld.stats().events
    assert (events.delivered, events.pending, events.unconfirmed, dict(events.dropped)) == (
        140,
        0,
        0,
        {},
    )
    readout = server.readout()
    for variation, letter in enumerate("ab"):
        assert readout.row("session.success_rate", "exp", variation).units == seen[letter]
        assert readout.row("session.success_rate", "exp", variation).mean == 100
        assert readout.row("revenue.impact", "exp", variation).mean == 2.5
        assert readout.row("wire.answer.success_rate", "exp", variation).mean == 1


def test_events_carry_the_evaluated_context(server: LocalLaunchDarkly, client: LDClient) -> None:
    """A session without identity adopts the exposure's context; a bare one is widened by it."""
    visitor = Context.create_multi(
        Context.builder("u-1").set("plan", "pro").build(),
        Context.builder("r-1").kind("request").build(),
    )
    with ld.session(client=client):
        client.variation("exp", visitor, "a")
    with ld.session("u-1", client=client):
        client.variation("exp", visitor, "a")
    with ld.session(client=client):
        client.variation("plain", visitor, "x")
    ld.flush(timeout=60, client=client)

    found = server.custom_events("session.duration")
    assert len(found) == 2
    for event in found:
        assert event["context"]["user"] == {"key": "u-1", "plan": "pro"}
        assert event["context"]["request"] == {"key": "r-1"}
    assert ld.stats().values.discarded == {"no_context": 2}


def test_no_fold_crosses_an_exposure(server: LocalLaunchDarkly, client: LDClient) -> None:
    """What was earned before the flag was seen is an event of its own, dated before it, and does
    not count.
    """
    ld.bootstrap("default", token="api-local", base_uri=server.url)
    user = Context.create("early")
    with ld.session(user, client=client) as s:
        s.revenue(100)
        __import__("time").sleep(0.01)
        client.variation("exp", user, "a")
        s.revenue(1)
        s.revenue(2)
    ld.flush(timeout=60, client=client)

    assert [100, 3] == [event["metricValue"] for event in server.custom_events("revenue.impact")]
    exposure = next(event for event in server.events("feature") if event["key"] == "exp")
    before, after = server.custom_events("revenue.impact")
    assert before["creationDate"] < exposure["creationDate"] <= after["creationDate"]
    assert (
        sum(row.mean or 0 for row in server.readout().rows if row.metric == "revenue.impact") == 3
    )


def test_events_recorded_before_the_client_leave_with_it(server: LocalLaunchDarkly) -> None:
    """Held, dated when recorded, handed over by the plugin's registration."""
    server.reset()
    ld.catalog.add(Metric("wire.early", unit="items", success_criteria="HigherThanBaseline"))
    with ld.session("u-1") as s:
        s.record("wire.early", 7)
    assert ld.stats().values.open == 3
    made = LDClient(
        Config(
            "sdk-key", events_uri=server.url, use_ldd=True,
            plugins=[ld.Plugin()], event_processor_class=ld.EventProcessor,
        )
    )  # fmt: skip
    try:
        assert ld.flush(timeout=60, client=made).delivered == 3
    finally:
        made.close()

    assert [7] == [event["metricValue"] for event in server.custom_events("wire.early")]


def test_a_client_without_our_processor_is_unconfirmed(server: LocalLaunchDarkly) -> None:
    """Attached afterwards: the events arrive, and the report does not claim to know."""
    server.reset()
    made = LDClient(Config("sdk-key", events_uri=server.url, use_ldd=True))
    try:
        ld.attach(made)
        with ld.session("u-1", client=made):
            pass
        report = ld.flush(timeout=60, client=made)
        assert not report.confirmed
        assert ld.stats().events.unconfirmed == 2
    finally:
        made.close()

    assert server.wait_for(lambda: len(server.custom_events()) == 2, timeout=5)
