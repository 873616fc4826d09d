"""The event processor: what it sends is what the SDK would have sent, and what it drops has a
name.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from typing import Any

import faults
import pytest
from hostile import HostileServer
from ldclient import Config, Context, LDClient
from ldclient.impl.events.event_processor import DefaultEventProcessor
from ldclient.integrations.test_data import TestData

from ldinstrument.delivery import EventProcessor, FlushReport, Plugin, Receipt, flush
from ldinstrument.delivery.payloads import Payload, Sealer
from ldinstrument.delivery.transport import Answer
from ldinstrument.ledger import ledger
from ldinstrument.sessions.emission import emit, handing
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


def _sent(server: HostileServer, processor: Any, **options: Any) -> list[dict[str, Any]]:
    """What a client with *processor* sends for one and the same sequence of calls, dates taken
    out.
    """
    before = len(server.posts)
    settings = {"all_attributes_private": False, "private_attributes": {"plan"}, **options}
    client = LDClient(
        Config("sdk-key", base_uri=server.url, events_uri=server.url, stream_uri=server.url, flush_interval=3600,
               update_processor_class=_flags(), diagnostic_opt_out=True, event_processor_class=processor, **settings)
    )  # fmt: skip
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


def test_the_servers_clock_ends_debugging(server):
    """A flag is debugged until a date, which this machine's clock may not have reached: the
    answers' `Date` has.
    """
    data = TestData.data_source()
    flag = data.flag("exp").variation_for_all(True)
    built = flag._build(1) | {"debugEventsUntilDate": int((time.time() + 3600) * 1000)}
    flag._build = lambda version: built | {"version": version}  # the builder cannot express it
    data.update(flag)
    server.answer(headers={"Date": formatdate(time.time() + 7200, usegmt=True)})
    client = LDClient(
        Config("sdk-key", base_uri=server.url, events_uri=server.url, stream_uri=server.url, flush_interval=3600,
               update_processor_class=data, event_processor_class=EventProcessor)
    )  # fmt: skip
    seen = []
    for _ in range(2):
        client.variation("exp", RICH, False)
        client.track("a", RICH)
        assert flush(20.0, client).delivered == 1
        seen.append([event["kind"] for event in json.loads(server.posts[-1].body)])
    client.close()
    assert ["debug" in kinds for kinds in seen] == [True, False]


def test_headers_are_the_sdks(server, make):
    """Key, schema and payload id are where LaunchDarkly looks for them."""
    receipts: list[Receipt] = []
    client = make(on_receipt=receipts.append, flush_interval=3600)
    client.track("a", BARE)
    flush(30.0, client)
    assert [post.key for post in server.posts] == ["sdk-good"]
    assert [(one.payload_id, one.custom, one.status, one.attempts) for one in receipts] == [
        (server.posts[0].payload_id, 1, 202, 1)
    ]
    assert receipts[0].size == len(server.posts[0].body)
    assert receipts[0].delivered


def test_a_bad_value_costs_its_event_only(server, client):
    """NaN and what is not JSON are dropped by name; the batch arrives, and it is valid JSON."""
    for data, value in (
        ({"n": 1}, 1.0),
        ({"n": object()}, 1.0),
        (None, float("nan")),
        ({"n": {1, 2}}, None),
    ):
        client.track("a", BARE, data, value)
    loop: dict[str, Any] = {}
    loop["self"] = loop
    client.track("loop", BARE, loop)
    report = flush(30.0, client)
    assert (report.delivered, report.dropped) == (1, 4)
    assert ledger.stats().events.dropped == {"not_json": 4}
    assert server.keys() == {"a": 1}


def test_an_event_of_ours_carries_its_own_date(server, client):
    """The date of its value; the processor accepts it and settles it in the ledger."""
    emit(Emission("dated", 2.0, None, 1_700_000_000_000, 1), RICH, client)
    assert (handing.what, ledger.stats().events.unconfirmed) == (None, 0)
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


def test_a_single_event_that_is_too_large_is_named(server, client, caplog):
    """413 for one event: dropped as `too_large`, and the log says which; its neighbours arrive."""
    server.answer(largest=2)
    for number in range(5):
        client.track(f"e.{number}", BARE)
    flush(30.0, client)
    assert server.keys() == {f"e.{number}": 1 for number in range(5)}
    server.behave()
    server.answer(status=413)
    client.track("huge", BARE)
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        assert flush(30.0, client).dropped == 1
    assert ledger.stats().events.dropped == {"too_large": 1}
    assert "huge: too large" in caplog.text


def test_a_refused_key_is_said_once_and_never_shown(server, make, caplog):
    """401 stops sending; one line says so, without the key; a changed key starts it again."""
    server.answer(good_key="sdk-good")
    client = make(key="sdk-secret-1", flush_interval=0.05)
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        for _ in range(5):
            client.track("a", BARE)
            assert flush(30.0, client).failed > 0
    assert len(server.posts) == 1
    assert caplog.text.count("refuses the SDK key") == 1
    assert "sdk-secret" not in caplog.text
    client._config._Config__sdk_key = "sdk-good"
    assert flush(30.0, client).delivered == 5


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_tried_again(server, client, status):
    """Neither by itself nor for a flush; what is recorded meanwhile waits."""
    server.answer(status=status)
    for number in range(3):
        client.track(f"e.{number}", BARE)
        assert flush(20.0, client) == FlushReport(failed=1, pending=number)
    assert len(server.posts) == 1


def test_one_payload_at_a_time_probes_a_server_that_fails(make, caplog):
    """A server that comes back shall not meet everything that has waited for it at once."""
    failing = Failing()
    client = make(
        transport=lambda config: failing,
        flush_interval=3600,
        first_pause=0.001,
        longest_pause=0.002,
    )
    client.track("e.0", BARE)
    client.flush()
    while "does not take events" not in caplog.text:  # said at the second failure
        assert failing.reached(failing.posts + 1)
    failing.most = 0
    for number in range(1, 8):
        client.track(f"e.{number}", BARE)
        flush(0.05, client)
    assert failing.reached(failing.posts + 20)
    assert failing.most == 1
    failing.status = 202
    while flush(1.0, client).pending:
        pass
    assert ledger.stats().events.delivered == 8


class Failing:
    """A transport to a server that fails; it notes how many posts are under way at once."""

    def __init__(self) -> None:
        self.status = 503
        self.most = self.posts = self._now = 0
        self._changed = threading.Condition()

    def post(self, payload: Payload, headers: Mapping[str, str]) -> Answer:
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.01)
        with self._changed:
            self._now -= 1
            self.posts += 1
            self._changed.notify_all()
        return Answer(self.status)

    def close(self) -> None: ...

    def reached(self, posts: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.posts >= posts, 30)


def test_too_much_waiting_is_dropped_by_name(server, make):
    """What LaunchDarkly does not take is bounded by bytes: the oldest go first."""
    client = make(max_bytes=3000, flush_interval=3600)
    server.answer(status=503)
    for number in range(10):
        client.track(f"e.{number}", BARE, {"text": "x" * 1000})
        flush(0.05, client)
    server.behave()
    flush(30.0, client)
    kept, arrived = ledger.stats().events.dropped["backlog_full"], set(server.keys())
    assert kept + len(arrived) == 10
    assert "e.9" in arrived
    assert "e.0" not in arrived


def test_too_old_is_dropped_by_name(server, make):
    """What LaunchDarkly does not take is bounded by age."""
    client = make(max_age=0.2, flush_interval=0.05)
    server.answer(status=503)
    client.track("a", BARE)
    flush(0.1, client)
    deadline = 100
    while not ledger.stats().events.dropped and deadline:
        deadline -= 1
        flush(0.05, client)
        __import__("time").sleep(0.05)
    assert ledger.stats().events.dropped == {"too_old": 1}


def test_a_bad_request_is_given_up_after_three_attempts(server, client):
    """400 three times over: the payload will never do, and does not hold up the others."""
    server.answer(status=400, times=3)
    client.track("a", BARE)
    for _ in range(20):
        if flush(1.0, client).dropped:
            break
    assert ledger.stats().events.dropped == {"http_400": 1}
    client.track("b", BARE)
    assert flush(30.0, client).delivered == 1


def test_closing_hands_what_is_left_to_the_next_client(server, make):
    """`ldclient.set_config` makes the new client first: what the old one could not deliver, the new
    one does.
    """
    server.answer(status=503, times=1, headers={"Retry-After": "60"})
    first = make(close_timeout=0.1, flush_interval=3600)
    first.track("a", BARE)
    flush(30.0, first)
    second = make(flush_interval=3600)
    first.close()
    flush(30.0, second)  # which may find it delivered already
    assert ledger.stats().events.delivered == 1
    assert (server.keys(), set(server.posts_per_payload().values())) == ({"a": 1}, {2})


def test_another_environment_adopts_nothing(server, make):
    """Events recorded with one key are not delivered with another, unless LaunchDarkly had refused
    the first.
    """
    server.answer(status=503, times=1, headers={"Retry-After": "60"})
    first = make(close_timeout=0.1, flush_interval=3600)
    first.track("a", BARE)
    flush(30.0, first)
    second = make(key="sdk-other", flush_interval=3600)
    first.close()
    assert flush(1.0, second).delivered == 0
    assert server.keys() == {}


def test_disabled_is_the_sdks_own(server, monkeypatch):
    """`LDINSTRUMENT_DISABLED` leaves the client as if we were not there."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    client = LDClient(Config("sdk-key", base_uri=server.url, events_uri=server.url, stream_uri=server.url,
                             use_ldd=True, plugins=[Plugin()], event_processor_class=EventProcessor))  # fmt: skip
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


def test_an_unknown_option_is_refused_where_it_is_written():
    """A typo must not look like a closed seam."""
    with pytest.raises(TypeError, match="spol"):
        EventProcessor(Config("sdk-key"), spol="/tmp/x")


def test_a_failing_receipt_taker_is_harmless(server, make):
    """What the receipts are given to may fail; delivery goes on."""
    client = make(on_receipt=_fail, flush_interval=3600)
    client.track("a", BARE)
    assert flush(30.0, client).delivered == 1


def _fail(receipt: Receipt) -> None:
    raise RuntimeError(receipt.payload_id)


def test_track_never_waits_on_an_event_loop(make: Callable[..., LDClient], monkeypatch):
    """The bounded wait is off on an event loop: what finds no room there is dropped at once, and
    counted.
    """
    import asyncio

    seal, sealing, go = Sealer.seal, threading.Event(), threading.Event()

    def slow(self: Sealer, recorded: Any) -> list[Payload]:
        sealing.set()
        assert go.wait(60)
        return seal(self, recorded)

    monkeypatch.setattr(Sealer, "seal", slow)
    client = make(pending=1, wait_when_full=60.0, flush_interval=3600)
    client.track("a", BARE)
    client.flush()
    assert sealing.wait(30)

    async def main() -> float:
        began = time.monotonic()
        for _ in range(5):
            client.track("b", BARE)
        return time.monotonic() - began

    took = asyncio.run(main())
    go.set()
    assert took < 30
    assert flush(20.0, client).delivered == 2
    assert ledger.stats().events.dropped == {"queue_full": 4}


def test_options_travel_through_partial(server, tmp_path):
    """`functools.partial(EventProcessor, spool=...)` is how options are given to a `Config`."""
    made = partial(EventProcessor, spool=tmp_path / "spool")
    client = LDClient(Config("sdk-key", base_uri=server.url, events_uri=server.url, stream_uri=server.url,
                             use_ldd=True, event_processor_class=made))  # fmt: skip
    client.track("a", BARE)
    assert flush(30.0, client).delivered == 1
    faults.close(client)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_client_that_nobody_holds_still_delivers(server, make):
    """Dropped without `close()`: the processor sends what it has, waits for the answers, and ends
    its threads.
    """
    import gc

    def elsewhere() -> None:
        processor = EventProcessor(make(flush_interval=3600)._config)
        engines.append(processor._engine)
        from ldclient.impl.events.types import EventInputCustom

        processor.send_event(EventInputCustom(1, BARE, "a"))

    engines: list[Any] = []
    server.answer(late=0.3, times=1)
    elsewhere()
    gc.collect()
    deadline = time.monotonic() + 100
    while not engines[0].closed and time.monotonic() < deadline:
        time.sleep(0.02)
    assert engines[0].closed
    engines[0]._coordinator.join(60)  # it is the last at work, and has begun to end
    assert engines[0]._coordinator not in threading.enumerate()
    assert server.keys() == {"a": 1}
    assert ledger.stats().events.delivered == 1


def test_a_full_thousand_leaves_early_whatever_came_before(server, client):
    """With a flush interval of an hour: 1,000 waiting events are sent at once, also after a flush
    and a failure.
    """
    import time

    for round_ in range(3):
        server.answer(status=503, times=1)
        client.track(f"single.{round_}", BARE)
        while flush(30.0, client).failed:
            pass
        for number in range(1000):
            client.track(f"many.{round_}.{number}", BARE)
        deadline = time.monotonic() + 100
        while ledger.stats().events.pending and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ledger.stats().events.pending == 0
    assert len(server.keys()) == 3003
