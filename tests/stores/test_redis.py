"""`redis`: real servers that stop, restart, fill up, evict, or cannot serve at all."""

from __future__ import annotations

import signal
import time

import pytest
from stores_builders import (
    ONE_WINDOW,
    end,
    over,
    reported,
    tallies_of,
    until,
    visit,
)

from ldinstrument.errors import DefinitionError
from ldinstrument.ledger import ledger
from ldinstrument.stores import (
    Holdings,
    RedisStore,
    Rules,
    end_session,
    open_store,
    sweep,
)
from ldinstrument.stores.protocol import Sealed
from ldinstrument.stores.records import readable
from ldinstrument.stores.redis_client import connect
from ldinstrument.stores.reporting import Report
from ldinstrument.testing import RecordingClient


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
        assert tallies_of(readable(text))[0] == 101
    finally:
        server.stop()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signals here")
def test_a_time_limit_ends_the_wait_for_a_stopped_redis(servers, keep, tmp_path):
    """The host sees the very exception of its signal's handler, although the client of Redis makes
    a time-out of its own of it; the visit is counted once, whatever the server took.
    """
    limit = TimeoutError("the host's own")

    def handler(*_):
        raise limit

    server = servers.RedisServer(servers.redis_binary(), tmp_path)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        raw = RedisStore(connect(server.url, timeout=60), Rules())
        store = keep(raw, client=RecordingClient())
        visit(store)
        server.signal(signal.SIGSTOP)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(TimeoutError) as raised:
            visit(store)
        server.signal(signal.SIGCONT)
        assert raised.value is limit
        assert store.waiting == 1
        until(lambda: store.catch_up() or store.waiting == 0)
        assert tallies_of(readable(end(raw, "session:v-1", "ended")))[0] == 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
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

        assert tallies_of(readable(end(raw, "session:v-1", "ended")))[0] == 11
    finally:
        server.stop()


def test_redis_as_a_cluster(servers, tmp_path):
    """Every script stays within one hash slot; visitors spread over the shards, and all are
    swept.
    """
    server = servers.RedisServer(servers.redis_binary(), tmp_path, cluster=True)
    try:
        with open_store(
            server.url.replace("redis://", "redis+cluster://") + "?prefix=x&timeout=10",
            sweep=False,
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
    assert tallies_of(readable(end(raw, "session:v-1", "ended")))[0] == 4


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


def _evicting(server, policy):
    """Let a server throw keys away."""
    with connect(server.url, timeout=10.0) as client:
        client.config_set("maxmemory-policy", policy)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_named_at_opening(redis_of_its_own, caplog, policy):
    """Before it has thrown anything away, with what to set instead."""
    _evicting(redis_of_its_own, policy)
    with open_store(f"{redis_of_its_own.url}?timeout=10", sweep=False):
        assert caplog.text.count(f"maxmemory-policy {policy}") == 1
        assert "noeviction" in caplog.text


def test_a_server_that_refuses_when_it_is_full_is_not_spoken_of(redis_of_its_own, caplog):
    """Its numbers wait in memory: nothing is lost."""
    with open_store(f"{redis_of_its_own.url}?timeout=10", sweep=False):
        assert caplog.text == ""


def test_sealed_payloads_that_redis_throws_away_are_counted(redis_of_its_own, keep, ld, client):
    """By their events: nobody else knows that they are missing."""
    raw = RedisStore(connect(redis_of_its_own.url, timeout=10.0), Rules())
    store = keep(raw, client=client)
    over(raw, 3)
    ld.fault("/bulk", status=503)
    store.sweep()
    with connect(redis_of_its_own.url, timeout=10.0) as server:
        (payload,) = server.keys("{ldinstrument}:p[0-9a-f]*")
        server.delete(payload)
        raw.postpone(payload.decode().partition(":p")[2], 0.0)
        server.zadd("{ldinstrument}:out", {payload.decode().partition(":p")[2]: 0})

    report = store.sweep()

    assert report.complete
    assert ledger.stats().events.dropped["store_evicted"] == 9


@pytest.mark.parametrize("ended_before", [True, False])
def test_a_redis_that_comes_back_older_reports_nothing_twice(
    servers, keep, tmp_path, ld, client, ended_before
):
    """Restarted with an older snapshot, and swept by another worker: the same batches under the
    same payload ids, of which LaunchDarkly counts each once.
    """
    server = servers.RedisServer(servers.redis_binary(), tmp_path)
    rules = Rules(idle=60.0 if ended_before else 0.5, window=0.5)
    try:
        raw = RedisStore(connect(server.url, timeout=10.0), rules)
        store = keep(raw, client=client)
        for number in range(40):
            visit(store, f"v-{number}", client=client)
            if ended_before:
                end_session(store, f"v-{number}")
        with connect(server.url, timeout=10.0) as admin:
            admin.save()
        time.sleep(1.1)
        first = store.sweep_in_background()
        posted = len(ld.posts())
        server.stop()
        server.start()
        other = RedisStore(connect(server.url, timeout=10.0), rules)
        second = keep(other, client=client).sweep_in_background()
    finally:
        server.stop()

    assert (first.sessions, second.sessions) == (40, 40)
    assert len(ld.posts()) == 2 * posted
    assert [post.duplicate for post in ld.posts()] == [False] * posted + [True] * posted
    assert set(reported(ld).values()) == {1}
    assert len(reported(ld)) == 40


def _earlier(server, change):
    """Restart *server* as it was before *change*."""
    with connect(server.url, timeout=10.0) as admin:
        admin.save()
    change()
    server.stop()
    server.start()


def test_a_session_of_which_redis_has_lost_a_request_is_not_reported_again(
    servers, keep, tmp_path, ld, client, caplog
):
    """It would end at another time, in another batch, under another payload id. The worker that has
    reported it tells the server so, before anybody is handed anything.
    """
    server = servers.RedisServer(servers.redis_binary(), tmp_path)
    # Idle for longer than a full machine may take from the first visits to the second ones.
    raw = RedisStore(connect(server.url, timeout=10.0), Rules(idle=3.0, window=0.05))
    store = keep(raw, client=client, lease=0.4)

    def visit_all(money):
        for number in range(10):
            visit(store, f"v-{number}", money=money, client=client)

    def go_on():
        visit_all(2.0)
        for number in range(5):
            end_session(store, f"v-{number}")
        until(lambda: store.sweep() and len(reported(ld)) == 10)

    try:
        visit_all(1.0)
        store.sweep()
        _earlier(server, go_on)
        until(lambda: store.sweep() and raw.holdings() == Holdings())
        visit(store, "v-0", money=4.0, client=client)
        end_session(store, "v-0")
        until(lambda: store.sweep() and raw.holdings() == Holdings())
    finally:
        server.stop()

    assert len(reported(ld)) == 11
    assert set(reported(ld).values()) == {1}
    values = [event["metricValue"] for event in ld.custom_events("revenue.impact")]
    assert sorted(values) == [3.0] * 10 + [4.0]
    assert caplog.text.count("has come back as it was earlier") == 1


def test_sessions_that_were_swept_in_mid_window_are_not_reported_again(
    servers, keep, tmp_path, ld, client
):
    """Each was a batch of its own, and in the server's memory they are one; another worker, which
    has reported none of them, waits until it has been told.
    """
    server = servers.RedisServer(servers.redis_binary(), tmp_path)
    rules = Rules(idle=0.5, window=ONE_WINDOW)
    store, other = (
        keep(RedisStore(connect(server.url, timeout=10.0), rules), client=client, lease=1.0)
        for _ in range(2)
    )

    def go_on():
        for number in range(3):
            end_session(store, f"v-{number}")
            store.sweep()
        assert len(reported(ld)) == 3

    try:
        for number in range(3):
            visit(store, f"v-{number}", client=client)
        store.sweep()
        _earlier(server, go_on)
        time.sleep(0.6)  # until they are over
        assert other.sweep().sessions == 0
        store.sweep()
        until(lambda: other.sweep() and other.holdings() == Holdings())
    finally:
        server.stop()

    assert reported(ld) == dict.fromkeys(reported(ld), 1)
    assert len(reported(ld)) == 3


@pytest.mark.parametrize("finisher", ["the reporter", "another worker", "after a 413"])
def test_a_redis_that_comes_back_older_is_told_by_a_worker_that_reported_nothing(
    servers, keep, tmp_path, ld, client, finisher
):
    """The worker that reported is gone; every other one has heard of it from the server before."""
    server = servers.RedisServer(servers.redis_binary(), tmp_path)
    rules = Rules(idle=0.5, window=ONE_WINDOW)
    reporter, other = (
        keep(RedisStore(connect(server.url, timeout=10.0), rules), client=client, lease=0.3)
        for _ in range(2)
    )

    def report(number):
        end_session(reporter, f"v-{number}")
        if finisher == "another worker":
            dead = RedisStore(connect(server.url, timeout=10.0), rules)
            _seal(dead)
            until(lambda: other.sweep() and dead.holdings().sealed == 0)
        else:
            reporter.sweep()

    def go_on():
        if finisher == "after a 413":
            ld.fault("/bulk", status=413)
        for number in range(3):
            report(number)
        assert len(reported(ld)) == 3
        other.sweep()
        reporter.close()

    try:
        for number in range(3):
            visit(reporter, f"v-{number}", client=client)
        reporter.sweep()
        other.sweep()
        _earlier(server, go_on)
        time.sleep(0.6)  # until they are over
        until(lambda: other.sweep() and other.holdings() == Holdings())
    finally:
        server.stop()

    assert reported(ld) == dict.fromkeys(reported(ld), 1)
    assert len(reported(ld)) == 3


def _seal(store):
    """Claim and seal as a worker does that dies before its POST."""
    ended = store.claim(10, 60.0, "dead")
    payloads = Report(ended, store.rules, False).payloads
    assert store.seal([session.place for session in ended], payloads, 0.1, "dead") == []


def test_an_evicted_counter_of_places_overwrites_nothing(redis_of_its_own, keep, ld, client):
    """Places are counted anew in the same window; those that are taken are passed over."""
    raw = RedisStore(connect(redis_of_its_own.url, timeout=10.0), Rules(window=ONE_WINDOW))
    store = keep(raw, client=client)
    with connect(redis_of_its_own.url, timeout=10.0) as server:
        for number in range(6):
            visit(store, f"v-{number}", client=client)
            end_session(store, f"v-{number}")
            if number % 2:
                server.delete("{ldinstrument}:places")

    assert raw.holdings().ended == 6
    assert store.sweep().sessions == 6
    assert len(reported(ld)) == 6


def test_what_could_not_be_told_is_told_later(redis_of_its_own, monkeypatch):
    """A server that has just been restarted may fail once more."""
    raw = RedisStore(connect(redis_of_its_own.url, timeout=10.0))
    (tag,) = raw._tags
    raw._lives[tag], raw._reported = "an earlier life", {"digest": None}
    run = raw._run

    def fails(verb, *arguments):
        if verb == "tell":
            raise ConnectionError
        return run(verb, *arguments)

    monkeypatch.setattr(raw, "_run", fails)
    with pytest.raises(ConnectionError):
        raw.claim(10, 60.0, "first")
    monkeypatch.undo()
    assert raw.claim(10, 60.0, "first") == []

    with connect(redis_of_its_own.url, timeout=10.0) as admin:
        assert admin.smembers(f"{tag}told") == {b"digest"}
    raw.close()


def test_a_server_that_was_restarted_and_lost_nothing_goes_on(servers, keep, tmp_path, ld, client):
    """Workers tell it what they have reported, which it does not have any more anyway."""
    server = servers.RedisServer(servers.redis_binary(), tmp_path, durable=True)
    raw = RedisStore(connect(server.url, timeout=10.0), Rules(idle=0.2, window=0.05))
    store = keep(raw, client=client, lease=0.3)
    try:
        for visitor in ("v-1", "v-2"):
            visit(store, visitor, client=client)
            until(lambda: store.sweep() and raw.holdings() == Holdings())
            server.stop()
            server.start()
        visit(store, "v-3", client=client)
        until(lambda: store.sweep() and raw.holdings() == Holdings())
    finally:
        server.stop()

    assert sorted(reported(ld).values()) == [1, 1, 1]


def test_sessions_whose_index_redis_has_thrown_away_are_found_again(
    redis_of_its_own, keep, ld, client, caplog
):
    """Under `allkeys-*` also the sorted sets may go that say what there is to sweep: open sessions,
    ended ones and sealed payloads.
    """
    raw = RedisStore(connect(redis_of_its_own.url, timeout=10.0), Rules(idle=0.3, window=0.05))
    store = keep(raw, client=client)
    visit(store, "v-1", client=client)
    end_session(store, "v-1")
    time.sleep(0.1)
    places = [session.place for session in raw.claim(10, 0.0, "dead")]
    sealed = Sealed("1a2b-3c", b'[{"kind":"custom","key":"kept","context":{"key":"ana"}}]', 1)
    assert raw.seal(places, [sealed], 0.0, "dead") == []
    for visitor in ("v-2", "v-3"):
        visit(store, visitor, client=client)
    end_session(store, "v-2")
    with connect(redis_of_its_own.url, timeout=10.0) as admin:
        _throw_something_away(admin)
        assert admin.delete(*(f"{{ldinstrument}}:{name}" for name in ("open", "ended", "out"))) == 3

    until(lambda: store.sweep() and len(reported(ld)) == 2)
    store.sweep()

    assert raw.holdings() == Holdings()
    assert len(ld.custom_events("kept")) == 1
    assert caplog.text.count("3 sessions and payloads") == 1


def _throw_something_away(admin):
    """Let the server evict keys, those of somebody else."""
    admin.config_set("maxmemory-policy", "volatile-ttl")
    for number in range(500):
        admin.set(f"other-{number}", b"x" * 2000, px=60_000)
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] - 200_000)
    admin.set("other", b"x", px=60_000)
    admin.config_set("maxmemory", 0)
    assert admin.info("stats")["evicted_keys"] > 0


def test_a_server_without_scripts_is_refused_at_opening(servers, tmp_path):
    """With the server's own reason, before a request could lose its numbers."""
    server = servers.RedisServer(
        servers.redis_binary(), tmp_path, options=["--rename-command", "EVALSHA", ""]
    )
    try:
        with pytest.raises(DefinitionError, match="unknown command"):
            open_store(f"{server.url}?timeout=10")
    finally:
        server.stop()


def test_a_user_who_may_not_ask_for_the_servers_state_can_use_it(redis_of_its_own, keep):
    """INFO counts as dangerous, and many managed servers keep it from their users."""
    with connect(redis_of_its_own.url, timeout=10.0) as admin:
        admin.execute_command("ACL", "SETUSER", "plain", "on", ">pass", "~*", "+@all", "-info")
    address = redis_of_its_own.url.replace("redis://", "redis://plain:pass@")
    store = open_store(f"{address}?timeout=10", idle=0.05, client=RecordingClient(), sweep=False)

    for count in (1, 2):
        visit(store)
        time.sleep(0.1)
        assert store.sweep().sessions == 1, count
    store.close()


@pytest.mark.parametrize("prefix", ["", "a{b", "}"])
def test_a_prefix_that_is_no_hash_tag_is_refused_on_a_cluster(prefix):
    """Each script stays within one slot by it."""
    with pytest.raises(DefinitionError, match="prefix"):
        open_store(f"redis+cluster://127.0.0.1:1/0?prefix={prefix}")


def test_a_cluster_that_is_taken_for_one_server_is_refused_at_opening(servers, tmp_path):
    """An empty prefix makes no hash tag: the keys of one script lie in several slots."""
    server = servers.RedisServer(servers.redis_binary(), tmp_path, cluster=True)
    try:
        with pytest.raises(DefinitionError, match="hash slot"):
            open_store(server.url + "?prefix=&timeout=10")
    finally:
        server.stop()
