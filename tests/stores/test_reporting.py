"""`reporting`: the payloads that ended sessions become, and where they leave."""

from __future__ import annotations

import shutil
import time

import pytest
from ldclient import LDClient
from ldclient.config import Config
from stores_builders import ONE_WINDOW, delta, over, reported, until

from ldinstrument.ledger import ledger
from ldinstrument.stores import (
    RedisStore,
    Rules,
    SqliteStore,
    sweep,
)
from ldinstrument.stores.protocol import Sealed
from ldinstrument.stores.redis_client import connect
from ldinstrument.stores.reporting import BATCH, MAX_AGE, Sweep, WireOutlet
from ldinstrument.testing import RecordingClient


def test_a_text_that_somebody_else_put_there_stops_nobody(tmp_path, keep, servers, redis_server):
    """A record that cannot be read is dropped and counted; the visitor, and the sweep, go on."""
    sqlite, prefix = SqliteStore(tmp_path / "x.db", Rules(idle=0.01), timeout=10.0), "odd"
    redis = RedisStore(connect(redis_server.url, timeout=10.0), Rules(idle=0.01), prefix=prefix)
    for raw in (sqlite, redis):
        for visitor in ("v-1", "v-2", "v-3"):
            raw.merge(f"session:{visitor}", delta("s", context={"user": "ana"}))
    with sqlite._transaction() as (file, _, _):
        file.execute("UPDATE visitors SET text = '{\"odd\"' WHERE key != 'session:v-3'")
    for visitor in ("v-1", "v-2"):
        redis._client.set(f"{{{prefix}}}:vsession:{visitor}", '{"odd"')

    for raw in (sqlite, redis):
        assert raw.merge("session:v-1", delta("s-2")).opened
        time.sleep(0.05)
        recording = RecordingClient()
        assert keep(raw, client=recording).sweep().complete
        assert len(recording.of("session.interactions")) == 1


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


def test_without_a_client_sessions_wait(make_store, keep, monkeypatch):
    """No client, an offline client: nothing is claimed, and it is said once."""
    store = keep(make_store())
    over(store.store, 1)
    offline = LDClient(Config("sdk-test", offline=True))

    assert store.sweep().error == "no client"
    assert store.sweep(client=offline).error == "no client"
    assert store.holdings().ended == 1
    offline.close()


# -- the sweep: failing servers and killed sweepers lose nothing and repeat nothing ----------------


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
    raw = make_store(window=ONE_WINDOW)
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
    places = [session.place for session in raw.claim(10, 60.0, "long ago", early=True)]
    raw.seal(places, [Sealed("p-old", b"[{}]", 1, age=MAX_AGE + 60)], 0.0, "long ago")

    report = sweep(store)

    assert (report.dropped, report.posts, report.complete) == (1, 0, True)
    assert ledger.stats().events.dropped["too_old"] == 1
    assert raw.holdings().sealed == 0


def test_a_large_backlog_is_swept_in_batches(make_store, keep, ld, client):
    """Many sessions per POST, few enough for one; a limit ends the sweep after a whole batch."""
    raw = make_store(window=ONE_WINDOW)
    store = keep(raw, client=client)
    over(raw, BATCH * 2 + 50)

    limited = sweep(store, limit=30)
    rest = sweep(store)

    assert 30 <= limited.sessions <= BATCH
    assert not limited.complete
    assert (limited.sessions + rest.sessions, rest.complete) == (BATCH * 2 + 50, True)
    assert len(ld.posts()) <= 4
    assert set(reported(ld).values()) == {1}
    assert len(reported(ld)) == BATCH * 2 + 50


def test_sweepers_of_different_limits_cut_the_same_batches(keep, ld, client, tmp_path):
    """What one has reported, another reports from an older copy under the same payload ids."""
    paths = [tmp_path / name for name in ("one.db", "two.db")]
    raw = SqliteStore(paths[0], Rules(window=ONE_WINDOW))
    over(raw, BATCH + 20)
    raw.close()
    shutil.copy(*paths)
    for path, limit in zip(paths, (7, None), strict=True):
        store = keep(SqliteStore(path, Rules(window=ONE_WINDOW)), client=client)
        until(lambda store=store, limit=limit: sweep(store, limit=limit).complete)
        store.close()

    assert len(reported(ld)) == BATCH + 20
    assert set(reported(ld).values()) == {1}
    assert sum(post.duplicate for post in ld.posts()) == len(ld.posts()) / 2


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

    raw = make_store(window=ONE_WINDOW)
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
    lost = raw.seal([session.place for session in taken], [], 60.0, "slow")

    assert report.complete
    assert sorted(lost) == sorted(session.place for session in taken)
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
