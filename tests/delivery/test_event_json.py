"""A session's events at once: the same texts as one `track` for each, and the same accounts; and a
payload by itself: halves, ages, ids.
"""

from __future__ import annotations

import gzip
import json
import uuid
from struct import pack
from typing import Any

import pytest
from clients import client_of
from event_server import EventServer
from ldclient import Config, Context, LDClient

from ldinstrument import sdk
from ldinstrument.delivery import EventProcessor, Plugin, flush
from ldinstrument.delivery.event_json import EventJson, Payload, UnwrittenRuns, join
from ldinstrument.ledger import ledger
from ldinstrument.sessions.emission import emit
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.rollups import Emission, FinishedRuns
from ldinstrument.sessions.task_definition import declared_task

RICH = Context.builder("u-1").name("Ana").set("email", "ana@example.test").private("email").build()
BARE = Context.create("u-1")
MULTI = Context.create_multi(RICH, Context.builder("o-1").kind("org").name("Acme").build())
DATA = {"sessionId": "s-1", "nested": {"text": 'quote " and \\ and \u00e9'}}
BATCH = [
    Emission("a", 2.5, DATA, 1_700_000_000_000, 3),
    Emission("a", 17, DATA, 1_700_000_000_001),
    Emission('odd "key" 8640000000001', None, None, 1_700_000_000_002),
    Emission("b", None, {"n": [1, None, True]}, 1_700_000_000_003, 0),
    Emission("c", 0.1 + 0.2, None, 1_700_000_000_004),
]


def _runs(entries: list[Any], offset_ms: float) -> FinishedRuns:
    """Return *entries*, as sessions have them, as an accumulator holds them."""
    return FinishedRuns(
        [
            (task, task.plan(), outcome, data and [data], 1, pack("d", at), pack("d", at - started))
            for task, outcome, started, at, data in entries
        ],
        offset_ms,
    )


def _client(server: EventServer, **options: Any) -> LDClient:
    return client_of(
        server, use_ldd=True, flush_interval=3600, event_processor_class=EventProcessor, **options
    )


def _takes(client: Any) -> bool:
    """Whether *client* takes a session's events at once."""
    take = sdk.batch_taker(client)
    return take is not None and take(BATCH, RICH)


def _sent(server: EventServer, before: int) -> list[dict[str, Any]]:
    return [event for post in server.posts[before:] for event in json.loads(post.body)]


@pytest.mark.parametrize(
    "options", [{}, {"all_attributes_private": True}, {"enable_event_compression": True}], ids=str
)
@pytest.mark.parametrize("context", [RICH, BARE, MULTI], ids=["rich", "bare", "multi"])
def test_a_batch_is_what_track_sends(server, context, options):
    """Event by event, with its index event, dates, values, data and redaction."""
    one_by_one, at_once = _client(server, **options), _client(server, **options)
    for emission in BATCH:
        emit(emission, context, one_by_one)
    assert flush(20.0, one_by_one).ok
    posts, expected = len(server.posts), _sent(server, 0)
    take_batch = sdk.batch_taker(at_once)
    assert take_batch(BATCH, context) is True
    assert flush(20.0, at_once).ok
    assert _sent(server, posts) == expected
    stats = ledger.stats()
    assert (stats.events.emitted, stats.events.delivered) == (10, 10)
    assert stats.values.emitted == 12
    one_by_one.close()
    at_once.close()


def test_runs_are_what_their_values_would_be(server):
    """Success rate, duration and unfinished of each run, dated to its end, with its data."""
    task, plain = (
        declared_task("t", True, ("success_rate", "duration", "unfinished")),
        declared_task("p", False, ("duration",)),
    )
    entries = [
        (task, Outcome.SUCCESS, 1.0, 1.25, None),
        (task, Outcome.FAILURE, 2.0, 2.5, None),
        (plain, Outcome.SUCCESS, 3.0, 3.0, None),
        (task, Outcome.SUCCESS, 4.0, 4.125, {"n": 1}),
    ]
    client = _client(server)
    take_batch = sdk.batch_taker(client)
    assert (
        take_batch([_runs(entries, 1_000_000_000_000.0), Emission("a", 1.0, None, 7)], RICH) is True
    )
    assert flush(20.0, client).delivered == 11
    sent = [
        (
            event["key"],
            event["creationDate"] - 1_000_000_000_000,
            event["metricValue"],
            event.get("data"),
        )
        for event in _sent(server, 0)
        if event["kind"] == "custom" and event["key"] != "a"
    ]
    assert sent == [
        ("t.success_rate", 1250, 1.0, None),
        ("t.duration", 1250, 250.0, None),
        ("t.unfinished", 1250, 0.0, None),
        ("t.success_rate", 2500, 0.0, None),
        ("t.duration", 2500, 500.0, None),
        ("t.unfinished", 2500, 0.0, None),
        ("p.duration", 3000, 0.0, None),
        ("t.success_rate", 4125, 1.0, {"n": 1}),
        ("t.duration", 4125, 125.0, {"n": 1}),
        ("t.unfinished", 4125, 0.0, {"n": 1}),
    ]
    assert {event["context"]["key"] for event in _sent(server, 0)} == {"u-1"}
    assert ledger.stats().values.emitted == 11
    client.close()


def test_runs_within_one_millisecond_share_no_more_than_their_date(server):
    """Another task, another outcome, data and none: each run has its own events."""
    task, plain = (
        declared_task("t", True, ("success_rate", "duration")),
        declared_task("p", False, ("success_rate",)),
    )
    entries = [
        (task, Outcome.SUCCESS, 1.0, 1.0001, None),
        (task, Outcome.SUCCESS, 1.0, 1.0002, None),
        (plain, Outcome.SUCCESS, 1.0, 1.0002, None),
        (task, Outcome.FAILURE, 1.0, 1.0004, None),
        (task, Outcome.FAILURE, 1.0, 1.0005, {"n": 1}),
        (task, Outcome.FAILURE, 1.0, 1.0006, {"n": 2}),
        (task, Outcome.FAILURE, 1.0, 1.0007, None),
    ]
    client = _client(server)
    assert sdk.batch_taker(client)([_runs(entries, 0.0)], RICH) is True
    assert flush(20.0, client).delivered == 13
    sent = [
        (event["key"][0], event["key"][2:], event["metricValue"], event.get("data"))
        for event in _sent(server, 0)
        if event["kind"] == "custom"
    ]
    assert sent == [
        ("t", "success_rate", 1.0, None),
        ("t", "duration", 0.1, None),
        ("t", "success_rate", 1.0, None),
        ("t", "duration", 0.2, None),
        ("p", "success_rate", 1.0, None),
        ("t", "success_rate", 0.0, None),
        ("t", "duration", 0.4, None),
        ("t", "success_rate", 0.0, {"n": 1}),
        ("t", "duration", 0.5, {"n": 1}),
        ("t", "success_rate", 0.0, {"n": 2}),
        ("t", "duration", 0.6, {"n": 2}),
        ("t", "success_rate", 0.0, None),
        ("t", "duration", 0.7, None),
    ]
    client.close()


def test_runs_without_data_are_written_when_they_are_batched(server):
    """They cannot change; of data, what it was when it was recorded is written at once."""
    task = declared_task("t", True, ("success_rate", "duration"))
    client = _client(server)
    json_of = EventJson(sdk.Writer(client._config))
    plain = _runs([(task, Outcome.SUCCESS, 1.0, 1.0 + n / 1e4, None) for n in range(1, 65)], 0.0)
    ((unwritten, events, at),), values, _ = json_of.write([plain], RICH)
    assert isinstance(unwritten, UnwrittenRuns)
    assert (events, at, values) == (128, 1000, 128)
    text = json_of.text_of(unwritten)
    assert [event["creationDate"] for event in json.loads(b"[%b]" % text)][::2] == [
        int((1.0 + n / 1e4) * 1000) for n in range(1, 65)
    ]
    assert 0.8 < unwritten.size / len(text) < 1.25

    data = {"n": 1}
    told = _runs([(task, Outcome.FAILURE, 1.0, 2.0, data)], 0.0)
    ((written, events, at),), values, _ = json_of.write([told], RICH)
    assert (events, at, values) == (2, 2000, 2)
    assert isinstance(written, bytes)
    assert [event["data"] for event in json.loads(b"[%b]" % written)] == [{"n": 1}] * 2
    client.close()


def test_the_length_of_what_is_not_written_yet_is_known(server):
    """Also where keys are long: it is what `max_bytes` bounds."""
    client = _client(server)
    json_of = EventJson(sdk.Writer(client._config))
    for key in ("t", "checkout.payments.authorize", "k" * 200):
        task = declared_task(key, True, ("success_rate", "duration", "unfinished"))
        runs = [(task, Outcome.SUCCESS, 1.0, 1.0 + n / 1e4, None) for n in range(1, 65)]
        ((unwritten, _, _),), _, _ = json_of.write([_runs(runs, 0.0)], Context.create("u-1"))
        assert 0.8 < unwritten.size / len(json_of.text_of(unwritten)) < 1.25
    client.close()


def test_what_cannot_be_written_at_once_is_left_to_track(server):
    """Nothing of the batch is queued or counted: the caller gives each to `track`."""
    client = _client(server)
    bad = Emission("bad", 1.0, {"n": object()}, 1)  # type: ignore[dict-item]
    assert sdk.batch_taker(client)([*BATCH, bad], RICH) is False
    assert ledger.stats().events.emitted == 0
    assert flush(20.0, client).delivered == 0
    client.close()


def test_a_batch_with_a_spool_is_on_disk(server, tmp_path):
    """Each event of it, soon; whoever takes the file over counts every one."""

    import faults

    from ldinstrument.delivery.memory_spool import origin_of
    from ldinstrument.delivery.spool import Spool

    server.answer(status=503)
    config = faults.config(server.url, spool=tmp_path, flush_interval=3600, close_timeout=0.1)
    client = LDClient(config)
    assert sdk.batch_taker(client)(BATCH, RICH) is True
    faults.close(client)
    heir = Spool(tmp_path, origin_of(config.events_uri, config.sdk_key))
    (found,), _ = heir.take_over(10**6, 60)
    assert (found.custom, found.events) == (5, 6)
    heir.end()


def test_a_client_that_somebody_has_a_hand_in_gets_one_track_per_event(server, monkeypatch):
    """Subclassed, patched on the object or the class, wrapped, or with another processor."""
    plain = _client(server)
    assert _takes(plain)

    class Sub(LDClient):
        """Somebody's."""

    class Wrapper:
        def __init__(self, client: LDClient) -> None:
            self._client = client

        def track(self, *arguments: Any, **more: Any) -> None:
            self._client.track(*arguments, **more)

    class Looks(EventProcessor):
        def send_event(self, event: Any) -> None:
            super().send_event(event)

    others: list[Any] = [Wrapper(plain), Sub(plain._config)]
    others.append(
        LDClient(
            Config("sdk-key", events_uri=server.url, use_ldd=True, event_processor_class=Looks)
        )
    )
    others.append(
        LDClient(Config("sdk-key", events_uri=server.url, use_ldd=True, diagnostic_opt_out=True))
    )
    others.append(LDClient(Config("sdk-key", offline=True)))
    patched = _client(server)
    patched.track = lambda *arguments: None  # type: ignore[method-assign]
    others.append(patched)
    watched = _client(server)
    watched._event_processor.send_event = lambda event: None
    others.append(watched)
    assert not any(_takes(other) for other in others)
    monkeypatch.setattr(LDClient, "track", lambda *arguments: None)
    assert not _takes(plain)
    monkeypatch.undo()
    monkeypatch.setattr(EventProcessor, "send_event", lambda self, event: None)
    assert not _takes(plain)
    monkeypatch.undo()
    for client in [plain, *others[1:]]:
        client.close()


def _looks(seen: list[Any]) -> Any:
    def look(*arguments: Any, **more: Any) -> None:
        seen.append(arguments)

    return look


@pytest.mark.parametrize(
    "where",
    ["track", "_send_event", "_event_processor.send_event", "LDClient.track",
     "LDClient._send_event", "EventProcessor.send_event", "_event_processor", "__class__"],
)  # fmt: skip
def test_who_has_a_hand_in_a_client_only_later_sees_each_event(server, monkeypatch, where):
    """Also after a session has given its events at once; and not once they take it away again."""
    client, seen = _client(server, plugins=[Plugin()]), []
    emit(BATCH[0], RICH, client)
    look = _looks(seen)
    if where == "_event_processor":
        monkeypatch.setattr(client, where, type("Theirs", (), {"send_event": look})())
    elif where == "__class__":
        client.__class__ = type("Theirs", (LDClient,), {"track": look})
    elif "." in where:
        owner, name = where.split(".")
        found = {"LDClient": LDClient, "EventProcessor": EventProcessor}.get(owner)
        monkeypatch.setattr(found or client._event_processor, name, look)
    else:
        monkeypatch.setattr(client, where, look)
    emit(BATCH[0], RICH, client)
    emit(BATCH[1], RICH, client)
    assert len(seen) == 2
    monkeypatch.undo()
    client.__class__ = LDClient
    emit(BATCH[0], RICH, client)
    assert len(seen) == 2
    assert flush(20.0, client).delivered == 2
    assert [event["kind"] for event in _sent(server, 0)] == ["index", "custom", "custom"]
    client.close()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"all_attributes_private": True},
        {"private_attributes": {"key", "name"}},
        {"private_attributes": {"/name/first", "kind"}},
    ],
)
@pytest.mark.parametrize(
    "context",
    [
        Context.create('say "\\" \0 \n \x7f \u2028 \xe9 \U0001f600'),
        Context.create("half \ud83d of one"),
        Context.create("a specimen \N{REPLACEMENT CHARACTER} of a key"),
        Context.create("org-1", "organization"),
        Context.builder("u-1").private("name").build(),
        Context.builder("u-1").anonymous(True).build(),
        Context.builder("u-1").name("").build(),
        Context.builder("named").kind("org").name('say "\\" \0 \xe9 \U0001f600').build(),
        Context.builder("a specimen \N{REPLACEMENT CHARACTER} of a name").name("Ana").build(),
        Context.builder("hidden").name("Ana").private("name").build(),
        Context.builder("nobody").name("Ana").anonymous(True).build(),
        Context.builder("more").name("Ana").set("plan", "pro").build(),
        Context.create_multi(
            Context.builder("u-1").name("Ana").build(), Context.create("o", "org")
        ),
        Context.create(17),  # type: ignore[arg-type]
    ],
    ids=lambda context: ascii(context.fully_qualified_key),
)
def test_a_context_that_tells_little_is_what_the_sdk_writes(server, options, context):
    """Byte by byte, whatever is in its key and its name, of any kind, and private or not."""
    client = _client(server, **options)
    worker = client._event_processor.worker
    writer = sdk.Writer(worker.config)
    for _ in range(2):
        texts, _, told = EventJson(writer).write([BATCH[0]], context)
        (text, _, _) = texts[0]
        at, data = BATCH[0].at, BATCH[0].data
        event = sdk.custom_event(BATCH[0].event_key, context, at, data, BATCH[0].value)
        assert text.decode() == sdk.Writer(worker.config).text(event)
        assert bool(told) == (context.multiple or context.name is not None)
    client.close()


# -- payloads


def _texts(count: int) -> list[str]:
    return [
        json.dumps({"kind": "custom", "key": f"e.{n}"}, separators=(",", ":")) for n in range(count)
    ]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_split_loses_nothing_and_makes_new_ids(zipped):
    """Halves, until single events remain."""
    payload = join(_texts(5), zipped)
    leaves, splitting = [], [payload]
    while splitting:
        one = splitting.pop(0)
        heirs = one.halves()
        splitting += heirs
        if not heirs:
            leaves.append(one)
    keys = [
        json.loads(gzip.decompress(leaf.body) if zipped else leaf.body)[0]["key"] for leaf in leaves
    ]
    assert keys == [f"e.{n}" for n in range(5)]
    assert len({leaf.id for leaf in [payload, *leaves]}) == 6
    assert [leaf.custom for leaf in leaves] == [1] * 5


def test_the_id_of_a_payload_is_a_uuid_of_version_4():
    """Its variant is the usual one, so that LaunchDarkly takes it as a payload id."""
    made = [uuid.UUID(Payload().id) for _ in range(1000)]

    assert {(id.version, id.variant) for id in made} == {(4, uuid.RFC_4122)}
    assert len(set(made)) == 1000


def test_halves_are_as_old_as_what_they_were():
    """Splitting is no new beginning: what has waited for a day is a day old, in memory and in a
    spool.
    """
    payload = Payload(join(_texts(4), False).body, 4, 4, sealed_at=1_000.0, age_from=2_000.0)
    assert [(half.sealed_at, half.age_from) for half in payload.halves()] == [
        (1_000.0, 2_000.0)
    ] * 2
