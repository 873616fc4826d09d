"""The event processor: what it sends is what the SDK would have sent."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from clients import client_of
from event_server import EventServer
from ldclient import Config, Context
from ldclient.impl.events.event_processor import DefaultEventProcessor
from ldclient.integrations.test_data import TestData

from ldinstrument.delivery import EventProcessor, Plugin, flush
from ldinstrument.ledger import ledger
from ldinstrument.sessions.current_event import current_event
from ldinstrument.sessions.emission import emit
from ldinstrument.sessions.rollups import Emission

RICH = (
    Context.builder("u-1")
    .name("Ana")
    .set("plan", "pro")
    .set("email", "ana@example.test")
    .private("email")
    .build()
)


BARE = Context.create("u-1")


MULTI = (
    Context.multi_builder()
    .add(RICH)
    .add(Context.builder("r-1").kind("request").anonymous(True).build())
    .build()
)


def _flags() -> TestData:
    data = TestData.data_source()
    data.update(data.flag("exp").variation_for_all(True))
    return data


def _sent(server: EventServer, processor: Any, **options: Any) -> list[dict[str, Any]]:
    """What a client with *processor* sends for one and the same sequence of calls, dates taken
    out.
    """
    before = len(server.posts)
    settings = {"all_attributes_private": False, "private_attributes": {"plan"}, **options}
    client = client_of(
        server,
        flush_interval=3600,
        update_processor_class=_flags(),
        diagnostic_opt_out=True,
        event_processor_class=processor,
        **settings,
    )
    for context in (RICH, BARE, MULTI, RICH):
        client.variation("exp", context, False)
        client.variation_detail("absent", context, "d")
        client.track("a", context, {"n": [1, {"x": None}]}, 2.5)
        client.track("b", context, None, 0)
    client.identify(
        Context.builder("u-2").set("nested", {"a": {"b": 1}}).private("/nested/a").build()
    )
    client.close()
    events = [event for post in server.posts[before:] for event in json.loads(post.body)]
    for event in events:
        for dated in ("creationDate", "startDate", "endDate"):
            event.pop(dated, None)
        for feature in event.get("features", {}).values():
            feature["contextKinds"].sort()
    return events


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"all_attributes_private": True},
        {"omit_anonymous_contexts": True},
        {"enable_event_compression": True},
    ],
    ids=str,
)
def test_it_sends_what_the_sdk_sends(server, options):
    """Index, feature, custom, identify and summary events, dedupe and redaction: byte for byte the
    SDK's shapes.
    """
    expected = _sent(server, DefaultEventProcessor, **options)
    assert _sent(server, EventProcessor, **options) == expected
    assert len(expected) > 10


def test_an_event_of_ours_carries_its_own_date(server, client):
    """The date of its value; the processor accepts it and settles it in the ledger."""
    emit(Emission("dated", 2.0, None, 1_700_000_000_000, 1), RICH, client)
    assert (current_event.emission, ledger.stats().events.unconfirmed) == (None, 0)
    assert flush(30.0, client).delivered == 1
    (event,) = server.taken()
    assert (event["creationDate"], event["metricValue"]) == (1_700_000_000_000, 2.0)
    assert (ledger.stats().events.emitted, ledger.stats().events.delivered) == (1, 1)


@pytest.mark.parametrize("name", ["ours", "renamed.ours"])
def test_what_a_wrapper_tracks_meanwhile_is_its_own(server, client, name):
    """A client that wraps LaunchDarkly's may track events of its own: only ours has our date, and
    counts as ours.
    """

    class Audited:
        def track(self, event_name, context, data=None, metric_value=None):
            client.track("audit.before", context)
            client.track(name, context, data, metric_value)
            client.track("audit.after", context)

    emit(Emission("ours", 2.0, {"n": 1}, 1_700_000_000_000, 1), RICH, Audited())
    assert flush(5.0, client).delivered == 3
    dates = {event["key"]: event["creationDate"] for event in server.taken()}
    assert [key for key, date in dates.items() if date == 1_700_000_000_000] == [name]
    events = ledger.stats().events
    assert (events.emitted, events.delivered, events.unconfirmed) == (3, 3, 0)


def test_ours_never_indexes_a_bare_context_over_a_richer_one(server, client):
    """A `track` of ours with only a key sends no index event, and the richer one that follows is
    indexed.
    """
    emit(Emission("ours", None, None, 1, 1), BARE, client)
    client.variation("absent", RICH, False)
    flush(30.0, client)
    indexed = [
        e["context"] for p in server.posts for e in json.loads(p.body) if e["kind"] == "index"
    ]
    assert [context.get("name") for context in indexed] == ["Ana"]


def test_ours_indexes_the_rich_part_of_a_multi_context(server, client):
    """Of a multi-context, only the kinds that we know something about are indexed."""
    multi = Context.create_multi(BARE, Context.builder("o-1").kind("org").name("Acme").build())
    emit(Emission("ours", None, None, 1, 1), multi, client)
    flush(30.0, client)
    events = [event for post in server.posts for event in json.loads(post.body)]
    assert [e["context"] for e in events if e["kind"] == "index"] == [
        {"kind": "org", "key": "o-1", "name": "Acme"}
    ]
    assert events[-1]["context"]["user"] == {"key": "u-1"}


def test_disabled_is_the_sdks_own(server, monkeypatch):
    """`LDINSTRUMENT_DISABLED` leaves the client as if we were not there."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    client = client_of(
        server, use_ldd=True, plugins=[Plugin()], event_processor_class=EventProcessor
    )
    assert type(client._event_processor) is DefaultEventProcessor
    client.close()


def test_a_closed_seam_leaves_the_sdks_own_and_says_so(server, monkeypatch, caplog):
    """Should a future SDK move what we borrow, events still leave, unconfirmed, and it is said
    once.
    """
    from ldclient.impl import lru_cache

    monkeypatch.delattr(lru_cache, "SimpleLRUCache")
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        processor = EventProcessor(
            Config("sdk-key", events_uri=server.url, diagnostic_opt_out=True)
        )
    assert type(processor) is DefaultEventProcessor
    assert "keeps its own event processor" in caplog.text
    monkeypatch.undo()
    processor.stop()
