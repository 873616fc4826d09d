"""`reporting`: the payloads that ended sessions become, and where they leave."""

from __future__ import annotations

import time

from ldclient import LDClient
from ldclient.config import Config
from stores_builders import (
    delta,
    over,
    reported,
)

from ldinstrument.stores import (
    RedisStore,
    Rules,
    SqliteStore,
    sweep,
)
from ldinstrument.stores.redis_client import connect
from ldinstrument.testing import RecordingClient


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
