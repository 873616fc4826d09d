"""Failing stores, failing servers, killed workers: numbers may wait or be counted as lost; a
request never suffers.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ldclient import LDClient
from ldclient.config import Config, HTTPConfig
from stores_builders import delta, end, tallies_of

from ldinstrument import session
from ldinstrument.delivery import Plugin
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.diagnostics import diagnostics
from ldinstrument.ledger import ledger
from ldinstrument.sessions.current import open_session
from ldinstrument.stores import (
    Delta,
    MemoryStore,
    RedisStore,
    Rules,
    SqliteStore,
    end_request,
    end_session,
    open_store,
    sweep,
)
from ldinstrument.stores.circuit_breaker import MAX_WAIT, PendingMerge
from ldinstrument.stores.protocol import Sealed
from ldinstrument.stores.records import parsed, segment_text
from ldinstrument.stores.redis import connect
from ldinstrument.stores.reporting import WireOutlet
from ldinstrument.stores.sweeper import BATCH, MAX_AGE, Sweep, _jittered
from ldinstrument.testing import RecordingClient


@pytest.fixture(scope="module", name="server")
def _server():
    with LocalLaunchDarkly() as server:
        yield server


@pytest.fixture(name="ld")
def _ld(server):
    server.reset()
    server.max_payload_bytes = 100 * 1024 * 1024
    return server


@pytest.fixture(name="client")
def _client(ld):
    config = Config(
        "sdk-test", base_uri=ld.url, events_uri=ld.url, stream_uri=ld.url, use_ldd=True, diagnostic_opt_out=True,
        plugins=[Plugin()],
        http=HTTPConfig(connect_timeout=60, read_timeout=60),
    )  # fmt: skip
    client = LDClient(config)
    yield client
    client.close()


def visit(store, visitor="v-1", *, money=1.0, client=None):
    opened = open_session("ana", client=client if client is not None else RecordingClient())
    opened.interaction()
    opened.revenue(money)
    return end_request(opened, store, visitor)


def over(store, count, first=0):
    for number in range(first, first + count):
        store.merge(f"session:{number}", delta(f"s-{number}", context={"user": "ana"}))
        end(store, f"session:{number}")


def reported(ld):
    return Counter(event["data"]["sessionId"] for event in ld.custom_events("session.interactions"))


def until(condition, timeout=100.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


class Failing(MemoryStore):
    """A store in memory that fails on demand, like a server that is away."""

    def __init__(self):
        super().__init__(Rules())
        self.away, self.calls = False, 0

    def merge(self, key, delta):
        self.calls += 1
        if self.away:
            raise ConnectionError("redis://:secret@10.0.0.1 refused")
        return super().merge(key, delta)

    def refuses(self, error):
        return not isinstance(error, ConnectionError)


# -- a store that does not answer ------------------------------------------------------------------


def test_a_store_that_is_away_costs_no_request_and_no_number(keep, caplog):
    """Merges wait in memory; once it answers again they are brought in, with the dates that they
    had.
    """
    raw = Failing()
    store = keep(raw, client=RecordingClient())

    raw.away = True
    refs = [visit(store) for _ in range(50)]
    waiting, calls = store.waiting, raw.calls
    raw.away = False
    until(lambda: store.catch_up() or store.waiting == 0)

    assert not any(ref.stored for ref in refs)
    assert waiting == 50
    assert calls < 10, "the circuit breaker spares a store that is away"
    text = end(raw, "session:v-1", "ended")
    assert tallies_of(parsed(text))[0] == 50
    assert [record.message.count("secret") for record in caplog.records] == [0] * len(
        caplog.records
    )
    assert len([record for record in caplog.records if "does not answer" in record.message]) == 1
    stats = ledger.stats()
    assert stats.values.recorded == stats.values.emitted == 50


def test_one_caller_at_a_time_asks_whether_the_store_is_back(keep):
    """The others do not wait for its time-out, too."""
    raw = Failing()
    store = keep(raw, client=RecordingClient())
    raw.away = True
    visit(store)
    until(lambda: store.next_attempt() <= 0.05)
    merge, nested = raw.merge, []

    def probed(key, delta):
        nested.append(visit(store, "v-2"))  # another request, while this one asks
        return merge(key, delta)

    raw.merge = probed
    until(lambda: visit(store) and nested)

    assert len(nested) == 1
    assert raw.calls == 2


def test_what_a_store_cannot_take_costs_itself(make_store, keep):
    """A delta that no store can carry is lost and counted; it neither opens the breaker nor blocks
    the others.
    """
    raw = make_store()
    store = keep(raw, client=RecordingClient())

    with pytest.raises(TypeError):
        segment_text({}, 0, 0, groups={"s1a\n": ("no number", 1, 0, 0, None, None)})
    store.merge("v-1", replace(delta("s-1", values=3), exposures={"mark": "no date"}))
    store.merge("v-1", replace(delta("s-1", values=3), exposures={"mark": "no date"}))
    lone = {"user": "\ud800"}
    odd = store.merge("v-\ud800", Delta("s-\ud800", context=lone))

    assert store.waiting == 0
    assert odd is not None
    assert visit(store).stored


def test_a_text_that_somebody_else_put_there_stops_nobody(tmp_path, keep, servers, redis_server):
    """A record that cannot be read is dropped and counted; the visitor, and the sweep, go on."""
    sqlite, prefix = SqliteStore(tmp_path / "x.db", Rules(idle=0.01), timeout=10.0), "odd"
    redis = RedisStore(connect(redis_server.url, timeout=10.0), Rules(idle=0.01), prefix=prefix)
    for raw in (sqlite, redis):
        for visitor in ("v-1", "v-2", "v-3"):
            raw.merge(f"session:{visitor}", delta("s", context={"user": "ana"}))
    with sqlite._writing() as (file, _, _):
        file.execute("UPDATE visitors SET text = '{\"odd\"' WHERE key != 'session:v-3'")
    for visitor in ("v-1", "v-2"):
        redis._client.set(f"{{{prefix}}}:vsession:{visitor}", '{"odd"')

    for raw in (sqlite, redis):
        assert raw.merge("session:v-1", delta("s-2")).opened
        time.sleep(0.05)
        recording = RecordingClient()
        assert keep(raw, client=recording).sweep().complete
        assert len(recording.of("session.interactions")) == 1


def test_what_waits_is_bounded_and_counted(keep):
    """Beyond the bound the oldest waiting numbers are lost, and the ledger says how many."""
    raw = Failing()
    store = keep(raw, client=RecordingClient(), max_waiting=10)

    raw.away = True
    for _ in range(25):
        visit(store)

    assert store.waiting == 10
    assert ledger.stats().values.discarded["store_down"] == 15
    assert ledger.stats().values.open == 10


def test_what_has_waited_for_too_long_is_given_up_and_counted(keep):
    """A shared server remembers the names of merges for half an hour: later, one could count
    twice.
    """
    raw = Failing()
    store = keep(raw, client=RecordingClient())
    waiting = delta("s-1", context={"user": "ana"}, values=3)
    for waited in (MAX_WAIT + 1.0, 1.0):
        store._breaker.keep(PendingMerge("session:v-1", time.monotonic() - waited, waiting))

    store.catch_up()

    assert (store.waiting, raw.calls) == (0, 1)
    assert ledger.stats().values.discarded["store_down"] == 3


def test_an_event_loop_never_waits_for_a_shared_store(keep):
    """`async with session(store=)` in a coroutine: the round trip is made on the sweeper's
    thread.
    """
    threads = []

    class Remote(MemoryStore):
        shared = True

        def merge(self, key, delta):
            threads.append(threading.current_thread().name)
            return super().merge(key, delta)

    raw = Remote(Rules())
    store = keep(raw, client=RecordingClient(), sweep=True, interval=60.0)

    async def main():
        async with session("ana", id="conv-1", store=store) as stay:
            stay.interaction()

    asyncio.run(main())
    until(lambda: store.waiting == 0 and raw.holdings().open)

    assert threads == ["ldinstrument.stores.sweeper"]
    assert tallies_of(parsed(end(raw, "session:conv-1", "ended")))[0] == 1


def test_without_a_thread_the_next_merge_brings_in_what_waited(keep):
    """A store opened with `sweep=False` (Lambda) catches up a few at a time, with each merge that
    succeeds.
    """
    raw = Failing()
    store = keep(raw, client=RecordingClient())

    raw.away = True
    refs = [visit(store) for _ in range(15)]
    raw.away = False
    until(lambda: refs.append(visit(store)) or (refs[-1].stored and store.waiting == 0))

    assert tallies_of(parsed(end(raw, "session:v-1", "ended")))[0] == len(refs)


def test_an_end_that_could_not_be_said_is_said_later(keep):
    """A logout while the store is away happens when it is back, after the merges before it."""
    raw = Failing()
    store = keep(raw, client=RecordingClient())

    raw.away = True
    visit(store)
    assert end_session(store, "v-1") is None
    raw.away = False
    until(lambda: store.catch_up() or store.waiting == 0)

    assert (raw.holdings().open, raw.holdings().ended) == (0, 1)


def test_the_sweeper_brings_in_what_waited(keep):
    """Nobody has to call anything: the worker's own thread tries again."""
    raw = Failing()
    store = keep(raw, client=RecordingClient(), sweep=True, interval=60.0)

    raw.away = True
    visit(store)
    raw.away = False

    until(lambda: store.waiting == 0)
    assert raw.holdings().open == 1


def test_a_stopped_redis_is_bounded_and_exact(servers, keep, tmp_path):
    """A server that hangs costs one short time-out; what it took although nobody heard of it is not
    counted twice.
    """
    server = servers.RedisServer(servers.redis_binary(), tmp_path)
    try:
        raw = RedisStore(connect(server.url, timeout=0.2), Rules())
        store = keep(raw, client=RecordingClient())
        visit(store)
        server.signal(signal.SIGSTOP)
        started = time.monotonic()
        for _ in range(100):
            visit(store)
        took = time.monotonic() - started
        server.signal(signal.SIGCONT)
        until(lambda: store.catch_up() or store.waiting == 0)

        assert took < 10, "a hundred requests met a dead server"
        text = end(raw, "session:v-1", "ended")
        assert tallies_of(parsed(text))[0] == 101
    finally:
        server.stop()


def test_a_restarted_redis_keeps_its_sessions_and_its_scripts_are_loaded_again(
    servers, keep, tmp_path
):
    """With its append-only file, a restart (here: `kill -9`) loses nothing; the first call loads
    the script anew.
    """
    server = servers.RedisServer(servers.redis_binary(), tmp_path, durable=True)
    try:
        raw = RedisStore(connect(server.url, timeout=5.0), Rules())
        store = keep(raw, client=RecordingClient())
        for _ in range(5):
            visit(store)
        server.stop()
        for _ in range(5):
            visit(store)
        server.start()
        until(lambda: store.catch_up() or store.waiting == 0)
        assert visit(store).stored

        assert tallies_of(parsed(end(raw, "session:v-1", "ended")))[0] == 11
    finally:
        server.stop()


def test_redis_as_a_cluster(servers, tmp_path):
    """Every script stays within one hash slot; visitors spread over the shards, and all are
    swept.
    """
    server = servers.RedisServer(servers.redis_binary(), tmp_path, cluster=True)
    try:
        with open_store(
            server.url.replace("redis://", "redis+cluster://") + "?prefix=x", sweep=False
        ) as store:
            assert store.store._client._client().get_node("127.0.0.1", server.port) is not None
            over(store.store, 40)
            recording = RecordingClient()
            report = sweep(store, client=recording)

        assert report.complete
        assert len(store.store._tags) == 16
        assert sorted(
            event.data["sessionId"] for event in recording.of("session.interactions")
        ) == sorted(f"s-{number}" for number in range(40))
    finally:
        server.stop()


@pytest.mark.parametrize("trouble", ["full", "read-only", "too few replicas", "somebody's key"])
def test_a_redis_that_may_get_well_loses_nothing(redis_of_its_own, keep, trouble):
    """A full server, a replica before its promotion, an operator's mistake: what is merged waits
    until it is over.
    """
    raw = RedisStore(connect(redis_of_its_own.url, timeout=10.0), Rules())
    store, server = keep(raw, client=RecordingClient()), connect(redis_of_its_own.url, timeout=10.0)
    visit(store)
    falls_ill, gets_well = {
        "full": (
            lambda: server.config_set("maxmemory", 1),
            lambda: server.config_set("maxmemory", 0),
        ),
        "read-only": (
            lambda: server.replicaof("127.0.0.1", 1),
            lambda: server.replicaof("NO", "ONE"),
        ),
        "too few replicas": (
            lambda: server.config_set("min-replicas-to-write", 3),
            lambda: server.config_set("min-replicas-to-write", 0),
        ),
        "somebody's key": (
            lambda: (
                server.delete("{ldinstrument}:open") and server.set("{ldinstrument}:open", "mine")
            ),
            lambda: server.delete("{ldinstrument}:open"),
        ),
    }[trouble]

    falls_ill()
    refs = [visit(store) for _ in range(3)]
    gets_well()
    until(lambda: store.catch_up() or store.waiting == 0)
    server.close()

    assert not any(ref.stored for ref in refs)
    assert dict(ledger.stats().values.discarded) == {}
    assert tallies_of(parsed(end(raw, "session:v-1", "ended")))[0] == 4


def test_what_redis_throws_away_is_counted_and_said(redis_of_its_own, keep, caplog):
    """An eviction policy takes an open session and an ended one: not silently."""
    raw = RedisStore(connect(redis_of_its_own.url, timeout=10.0), Rules(idle=0.01))
    store, server = keep(raw, client=RecordingClient()), connect(redis_of_its_own.url, timeout=10.0)
    for visitor in ("v-1", "v-2", "v-3"):
        visit(store, visitor)
    end_session(store, "v-2")
    assert server.delete("{ldinstrument}:vsession:v-1", *server.keys("{ldinstrument}:e[0-9]*")) == 2
    server.close()
    time.sleep(0.05)

    report = store.sweep()

    assert (report.sessions, report.complete) == (1, True)
    assert ledger.stats().evicted_sessions == 2
    assert caplog.text.count("noeviction") == 1


def test_a_locked_sqlite_file_costs_a_wait_and_no_number(keep, tmp_path):
    """Somebody who holds the file for longer than the time-out makes merges wait in memory."""
    raw = SqliteStore(tmp_path / "x.db", Rules(), timeout=0.05)
    store = keep(raw, client=RecordingClient())
    visit(store)

    blocker = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    blocked = [visit(store) for _ in range(5)]
    blocker.execute("ROLLBACK")
    blocker.close()
    until(lambda: store.catch_up() or store.waiting == 0)

    assert not any(ref.stored for ref in blocked)
    assert tallies_of(parsed(end(raw, "session:v-1", "ended")))[0] == 6


def test_what_a_merge_waits_for_other_workers_is_no_activity(tmp_path, monkeypatch):
    """Dates go by the store's clock, and an age that was told before the wait is older after it."""
    store = SqliteStore(tmp_path / "x.db")
    store.merge("session:v", delta("s-1"))
    readings = iter((100.0, 100.5))
    monkeypatch.setattr(
        "ldinstrument.stores.sqlite.time", SimpleNamespace(monotonic=lambda: next(readings))
    )
    store.merge("session:other", delta("s-2", started_ago=50, last_ago=20))
    monkeypatch.undo()
    record = parsed(end(store, "session:other"))
    store.close()

    assert (record.started, record.last) == (-550, -520)


def test_what_is_wrong_with_a_sqlite_file_is_said(keep, tmp_path, caplog):
    """SQLite's own words, once; the numbers wait for somebody who mends it."""
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    store = keep(SqliteStore(tmp_path / "x.db"), client=RecordingClient())

    refs = [visit(store) for _ in range(3)]
    report = store.sweep()
    (tmp_path / "x.db").unlink()
    until(lambda: store.catch_up() or store.waiting == 0)

    assert not any(ref.stored for ref in refs)
    assert (report.complete, report.error) == (False, "DatabaseError")
    assert [
        record.message
        for record in caplog.records
        if "does not answer (DatabaseError: file is not" in record.message
    ]
    assert store.holdings().open == 1


def test_a_sqlite_file_that_is_taken_away_is_missed(keep, tmp_path, caplog):
    """Its workers go on with what they have open, which nobody who starts later can see: that is
    said, once.
    """
    store = keep(SqliteStore(tmp_path / "x.db"), client=RecordingClient())

    assert visit(store).stored
    assert "restart all workers" not in caplog.text
    (tmp_path / "x.db").rename(tmp_path / "y.db")
    for _ in range(3):
        assert visit(store).stored

    assert caplog.text.count("restart all workers") == 1


def test_a_sqlite_file_is_readable_by_its_owner_only(tmp_path):
    """It holds the keys of contexts."""
    store = SqliteStore(tmp_path / "x.db")
    store.merge("session:v", delta("s"))
    store.close()

    assert (tmp_path / "x.db").stat().st_mode & 0o077 == 0


def test_a_sweep_of_sqlite_reads_only_what_is_due(tmp_path):
    """Every query of a claim goes by an index: its cost does not grow with what is open, or has
    been gone for long.
    """
    store, seen = SqliteStore(tmp_path / "x.db"), []
    over(store, 1)
    store._file._connection.set_trace_callback(seen.append)
    store.claim(10, 60.0, "the-test")
    store.claim_sealed(10, 60.0, "the-test")
    store._file._connection.set_trace_callback(None)
    queries = [text for text in seen if "FROM" in text and "julianday" not in text]
    plans = [
        row[3]
        for text in queries
        for row in store._file._connection.execute(f"EXPLAIN QUERY PLAN {text}")
        if "SCAN" in row[3]
    ]
    store.close()

    assert len(queries) >= 4
    assert [plan for plan in plans if "outbox" not in plan] == []


# -- a LaunchDarkly that does not answer -----------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"status": 429},
        {"drop": True},
        {"status": 202, "drop": True, "after": True},
    ],
)
def test_what_could_not_be_sent_is_sent_again_with_the_same_id_and_bytes(
    make_store, keep, ld, client, fault
):
    """Whether LaunchDarkly had taken it or not: the repetition has the same payload id, so it
    counts once.
    """
    raw = make_store()
    store = keep(raw, client=client)
    over(raw, 3)

    ld.fault("/bulk", **fault)
    first = sweep(store)
    held = raw.holdings()
    for post in ld.posts():
        raw.postpone(post.payload_id, 0.0)
    second = sweep(store)

    assert (first.sessions, first.complete, held.sealed) == (3, False, 1)
    assert first.error
    assert (second.sessions, second.complete) == (0, True)
    assert len({post.payload_id for post in ld.posts()}) == 1
    assert len(ld.posts()) == 2
    assert reported(ld) == {f"s-{number}": 1 for number in range(3)}


def test_a_refused_key_keeps_everything(make_store, keep, ld, client, caplog):
    """401: nothing is lost, nothing is claimed in vain; when the key is right it all leaves."""
    raw = make_store()
    store = keep(raw, client=client)
    over(raw, 3)

    ld.fault("/bulk", status=401)
    refused = sweep(store)
    (post,) = ld.posts()
    raw.postpone(post.payload_id, 0.0)
    ld.clear_faults()
    sweep(store)

    assert refused.error == "401"
    assert caplog.text.count("check LAUNCHDARKLY_SDK_KEY") == 1
    assert reported(ld) == {f"s-{number}": 1 for number in range(3)}


@pytest.mark.parametrize(("asked", "least", "most"), [("17", 17.0, 17.0), (None, 0.5, 2.0)])
def test_launchdarkly_says_when_to_come_again(
    make_store, keep, ld, client, monkeypatch, asked, least, most
):
    """`Retry-After` where there is one; else soon, and later each time."""
    raw, delays = make_store(), []
    store = keep(raw, client=client)
    over(raw, 1)
    monkeypatch.setattr(raw, "postpone", lambda payload_id, delay: delays.append(delay))

    ld.fault("/bulk", status=429, headers={} if asked is None else {"Retry-After": asked})
    sweep(store)

    (delay,) = delays
    assert least <= delay <= most


def test_a_payload_that_is_too_large_is_halved(make_store, keep, ld, client):
    """413: two payloads under new ids take its place in the store, until they fit."""
    raw = make_store()
    store = keep(raw, client=client)
    over(raw, 16)

    ld.max_payload_bytes = 3000
    report = sweep(store)

    assert (report.complete, report.dropped) == (True, 0)
    assert reported(ld) == {f"s-{number}": 1 for number in range(16)}
    assert max(post.bytes for post in ld.posts() if post.status == 202) <= 3000
    assert raw.holdings().sealed == 0


def test_a_payload_that_launchdarkly_never_takes_is_dropped_and_counted(
    make_store, keep, ld, client
):
    """400 three times: it is in nobody's way any more."""
    raw = make_store()
    store = keep(raw, client=client)
    over(raw, 1)

    held = []
    ld.fault("/bulk", status=400, times=None)
    for _ in range(3):
        sweep(store)
        held.append(raw.holdings().sealed)
        for post in ld.posts():
            raw.postpone(post.payload_id, 0.0)
    ld.clear_faults()

    assert held == [1, 1, 0]
    assert ledger.stats().events.dropped["http_400"] == 3
    assert sweep(store).posts == 0


def test_a_payload_that_has_waited_for_a_day_is_dropped_and_counted(make_store, keep, ld, client):
    """LaunchDarkly may have forgotten its id by then: sent again, it could count twice."""
    raw = make_store()
    store = keep(raw, client=client)
    over(raw, 1)
    places = [one.place for one in raw.claim(10, 60.0, "long ago", early=True)]
    raw.seal(places, [Sealed("p-old", b"[{}]", 1, age=MAX_AGE + 60)], 0.0, "long ago")

    report = sweep(store)

    assert (report.dropped, report.posts, report.complete) == (1, 0, True)
    assert ledger.stats().events.dropped["too_old"] == 1
    assert raw.holdings().sealed == 0


def test_a_large_backlog_is_swept_in_batches(make_store, keep, ld, client):
    """Many sessions per POST, few enough for one; a limit is kept."""
    raw = make_store()
    store = keep(raw, client=client)
    over(raw, BATCH * 2 + 50)

    limited = sweep(store, limit=30)
    rest = sweep(store)

    assert (limited.sessions, limited.complete) == (30, False)
    assert (rest.sessions, rest.complete) == (BATCH * 2 + 20, True)
    assert len(ld.posts()) == 4
    assert set(reported(ld).values()) == {1}
    assert len(reported(ld)) == BATCH * 2 + 50


def test_what_leaves_looks_as_the_sdk_sends_it(make_store, keep, ld, client):
    """Route, key, schema and payload id are those of the SDK."""
    raw, seen = make_store(), {}
    store = keep(raw, client=client)
    over(raw, 1)

    ld.fault(
        "/bulk",
        delay=0.0,
        when=lambda method, path, headers, body: seen.update(headers) is not None,
    )
    sweep(store)

    (post,) = ld.posts()
    assert post.route == "/bulk"
    assert seen["authorization"] == "sdk-test"
    assert seen["x-launchdarkly-event-schema"] == "4"
    assert seen["x-launchdarkly-payload-id"] == post.payload_id
    assert seen["content-type"] == "application/json"


@pytest.mark.parametrize("dies", ["claimed", "sealed", "sent"])
def test_a_sweeper_that_dies_loses_nothing_and_repeats_nothing(make_store, ld, client, dies):
    """After the claim, after sealing, after the POST: whoever takes over makes it one report."""

    class Killed(BaseException):
        pass

    class Dying(WireOutlet):
        def post(self, sealed):
            if dies == "sealed":
                raise Killed
            super().post(sealed)
            raise Killed

    raw = make_store()
    over(raw, 5)
    if dies == "claimed":
        assert len(raw.claim(100, 0.0, "dead", early=True)) == 5
    else:
        with pytest.raises(Killed):
            Sweep(raw, Dying(client._config), raw.rules, "dead", lease=0.0).run()
    report = Sweep(raw, WireOutlet(client._config), raw.rules, "alive").run()

    assert report.complete
    assert reported(ld) == {f"s-{number}": 1 for number in range(5)}
    assert len({post.payload_id for post in ld.posts()}) == 1
    assert [post.duplicate for post in ld.posts()] == ([False, True] if dies == "sent" else [False])


def test_a_sweeper_that_slept_through_its_lease_sends_nothing_of_anothers(make_store, ld, client):
    """It finds at sealing that others have taken over, and keeps its hands off."""
    raw = make_store()
    over(raw, 5)

    class Slow(WireOutlet):
        zipped = False

    taken = raw.claim(100, 0.0, "slow", early=True)
    report = Sweep(raw, Slow(client._config), raw.rules, "quick").run()
    lost = raw.seal([one.place for one in taken], [], 60.0, "slow")

    assert report.complete
    assert sorted(lost) == sorted(one.place for one in taken)
    assert reported(ld) == {f"s-{number}": 1 for number in range(5)}


def test_a_page_that_comes_between_claim_and_sealing_is_reported_with_its_visit(
    make_store, ld, client, monkeypatch
):
    """Not lost, not twice, and in this very sweep."""
    raw = make_store()
    over(raw, 3)
    claim, late = (
        raw.claim,
        delta("late", context={"user": "ana"}, tallies=(1, 0, 0, 0), started_ago=60_000),
    )

    def claimed_in_time(*arguments, **options):
        found = claim(*arguments, **options)
        monkeypatch.setattr(raw, "claim", claim)
        assert raw.merge("session:1", late).id == "s-1"
        return found

    monkeypatch.setattr(raw, "claim", claimed_in_time)
    report = Sweep(raw, WireOutlet(client._config), raw.rules, "the-test").run()

    assert (report.sessions, report.complete) == (3, True)
    assert reported(ld) == {f"s-{number}": 1 for number in range(3)}
    told = {
        event["data"]["sessionId"]: event["metricValue"]
        for event in ld.custom_events("session.interactions")
    }
    assert told == {"s-0": 1, "s-1": 2, "s-2": 1}


# -- life ------------------------------------------------------------------------------------------


def test_the_background_sweeper_reports(make_store, keep, ld, client):
    """The thread of a worker finds what fell silent, by itself."""
    store = keep(make_store(idle=0.05), client=client, sweep=True, interval=0.1)

    visit(store, client=client)

    ld.wait_for(lambda: ld.custom_events("session.interactions"), timeout=60.0)
    assert len(reported(ld)) == 1


def test_a_logout_is_reported_without_waiting_for_the_next_sweep(make_store, keep, ld, client):
    """Either way: by its own request, or by a call; the sweeper would come by itself in an hour
    only.
    """
    store = keep(make_store(), client=client, sweep=True, interval=3600.0)

    opened = open_session("ana", client=client)
    end_request(opened, store, "v-1", ends="ended")
    ld.wait_for(lambda: len(reported(ld)) == 1, timeout=60.0)
    visit(store, "v-2", client=client)
    end_session(store, "v-2")
    ld.wait_for(lambda: len(reported(ld)) == 2, timeout=60.0)


def test_the_background_sweeper_rests_between_batches(make_store, keep, ld, client, monkeypatch):
    """Its worker has requests to serve; who calls `sweep` himself has not."""
    raw, rests = make_store(window=0.05), []
    store = keep(raw, client=client)
    monkeypatch.setattr(store, "_rest", lambda seconds: not rests.append(seconds))

    over(raw, 3)
    time.sleep(0.05)
    over(raw, 3, first=3)
    time.sleep(0.05)
    store.sweep_in_background()
    rested = len(rests)
    over(raw, 3, first=6)
    sweep(store)

    assert len(rests) == rested >= 2
    assert len(reported(ld)) == 9


def test_without_a_client_sessions_wait(make_store, keep, monkeypatch):
    """No client, an offline client: nothing is claimed, and it is said once."""
    store = keep(make_store())
    over(store.store, 1)
    offline = LDClient(Config("sdk-test", offline=True))

    assert store.sweep().error == "no client"
    assert store.sweep(client=offline).error == "no client"
    assert store.holdings().ended == 1
    offline.close()


def test_closing_reports_what_only_this_process_knows(keep, ld, client):
    """Sessions in memory end as abandoned at exit: counts, no duration or rate, which would be
    censored.
    """
    store = keep(MemoryStore(Rules()), client=client, sweep=True, interval=60.0)
    visit(store, money=2.5, client=client)

    store.close(timeout=60.0)
    store.close()

    keys = {event["key"]: event for event in ld.custom_events()}
    assert set(keys) == {"session.interactions", "revenue.impact"}
    assert keys["session.interactions"]["data"]["endReason"] == "abandoned"


def test_closing_leaves_a_shared_store_alone(keep, tmp_path, ld, client):
    """Other workers go on with its sessions."""
    store = keep(SqliteStore(tmp_path / "x.db"), client=client, sweep=True)
    visit(store, client=client)
    store.close(timeout=60.0)

    assert SqliteStore(tmp_path / "x.db").holdings().open == 1
    assert ld.custom_events("session.interactions") == []


def test_memory_is_bounded_and_evictions_are_counted(keep):
    """The session silent for longest ends early, as abandoned, and is reported."""
    recording = RecordingClient()
    store = keep(MemoryStore(Rules(), max_sessions=3), client=recording)

    for number in range(5):
        visit(store, f"v-{number}")
        visit(store, "v-0")
    sweep(store)

    assert store.holdings().open == 3
    assert ledger.stats().evicted_sessions == 2
    assert [event.data["endReason"] for event in recording.of("session.interactions")] == [
        "abandoned"
    ] * 2
    assert recording.of("session.duration") == []


def test_what_waits_in_memory_to_be_reported_is_bounded_too(keep):
    """Without a client nothing is reported: the oldest ended sessions are dropped, said once and
    counted.
    """
    store = keep(MemoryStore(Rules(), max_sessions=3))

    over(store.store, 5)

    assert store.holdings().ended == 3
    assert ledger.stats().events.dropped["store_full"] == 2 * 3
    assert diagnostics.counts()["store_full", "MemoryStore"] == 2


def _in_child(work):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(answer)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_shares_the_store_and_nothing_else(make_store, keep):
    """A child merges into the same session (of a shared store) on a connection, a name and a thread
    of its own.
    """
    raw = make_store()
    store = keep(raw, client=RecordingClient(), sweep=True, interval=60.0)
    visit(store)
    worker = store._worker

    def child():
        inherited = store._sweeper is None
        ref = visit(store)
        return [
            inherited,
            ref.stored,
            ref.opened,
            store._worker != worker,
            store._sweeper is not None,
        ]

    sweeper = store._sweeper
    answers = _in_child(child)
    after = visit(store)

    assert answers == [True, True, not raw.shared, True, True]
    assert after.stored
    assert store._sweeper is sweeper
    assert tallies_of(parsed(end(raw, "session:v-1", "ended")))[0] == (3 if raw.shared else 2)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_memory_in_several_workers_is_said(keep):
    """A forked worker with a store in memory hears that its visitors will be two people."""
    store = keep(MemoryStore(Rules()), client=RecordingClient())

    def child():
        visit(store)
        visit(store)
        return sum(diagnostics.counts().get(("several_workers", "memory"), 0) for _ in range(1))

    assert _in_child(child) == 1
    assert ("several_workers", "memory") not in diagnostics.counts()


def test_sweepers_do_not_come_in_step():
    """Half of the interval to one and a half, anew each time."""
    waits = {_jittered(10.0) for _ in range(50)}

    assert len(waits) > 1
    assert all(5.0 <= wait <= 15.0 for wait in waits)
