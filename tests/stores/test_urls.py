"""`open_store` and `sweep`: from an address to sessions, as a program and as cron use them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
from stores_builders import delta

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import DefinitionError, MissingExtra
from ldinstrument.ledger import ledger
from ldinstrument.stores import MemoryStore, RedisStore, SqliteStore, open_store, sweep
from ldinstrument.testing import RecordingClient


def test_addresses(tmp_path, redis_server):
    """Each scheme opens its store, with the times that it was given."""
    with open_store() as store:
        assert isinstance(store.store, MemoryStore)
        assert (store.rules.idle, store.rules.maximum) == (1800.0, 86_400.0)
    with open_store("memory:", idle=60, max_sessions=5) as store:
        assert (store.rules.idle, store.store._max) == (60.0, 5)
    for address in (f"sqlite:///{tmp_path}/a.db", tmp_path / "a.db"):
        with open_store(address, sweep=False) as store:
            assert isinstance(store.store, SqliteStore)
            store.merge("v", delta("s"))
            assert store.holdings().open == 1
    with open_store(
        f"{redis_server.url}?prefix=addresses&timeout=5", sweep=False, maximum=7200
    ) as store:
        assert isinstance(store.store, RedisStore)
        assert store.store._tags == ["{addresses}:"]
        store.merge("v", delta("s"))
        assert store.holdings().open == 1


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("postgres://x", "use memory:"),
        ("sqlite:", "name a file"),
        ("sqlite:///:memory:", "use memory:"),
        ("sqlite:///x.db?timeout=0", "timeout"),
        ("sqlite:///x.db?timeout=soon", "timeout"),
        ("sqlite:///x.db?prefix=mine", "no option .prefix="),
    ],
)
def test_an_address_that_is_none_says_what_to_write(address, advice):
    """One clear line, where it is written."""
    with pytest.raises(DefinitionError, match=advice):
        open_store(address)


@pytest.mark.parametrize(
    "address",
    [
        "redis://:hunter2@host:99999/0",
        "redis://:hun/ter2@host:6379/0",
        "redis://[::1/0?hunter2",
        "redis://host/0?hunter2=1",
        "redis://host/0?timeout=soon",
        "redis://host/0?timeout=0",
        "redis+tls://host/0",
    ],
)
def test_a_redis_address_that_cannot_be_read_is_said_at_once(address):
    """Not with the first request, whose numbers would be lost; and without what may be a
    password.
    """
    with pytest.raises(DefinitionError) as raised:
        open_store(address, sweep=False)

    assert "ter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_other_ways_to_write_a_redis_address(redis_of_its_own):
    """A socket, Valkey's own schemes, no port; an option that would spoil the payloads is
    ignored.
    """
    port = redis_of_its_own.port
    with open_store(
        f"valkey://127.0.0.1:{port}?decode_responses=True&timeout=5&protocol=3", sweep=False
    ) as store:
        store.merge("v", delta("s"))
        assert store.holdings().open == 1
    for address, key, value in (
        ("unix:///run/redis.sock?db=2", "path", "/run/redis.sock"),
        ("unix://user:pw@/run/redis.sock", "username", "user"),
        ("redis://", "host", None),
        ("valkeys://cache.example:6380/1", "port", 6380),
    ):
        with open_store(address, sweep=False) as store:
            pool = store.store._client.connection_pool
            assert pool.connection_kwargs.get(key) == value
    assert "SSL" in pool.connection_class.__name__


def test_a_client_that_decodes_its_responses_is_refused():
    """Its answers are no bytes: said where it is given, with what to give instead."""
    redis = pytest.importorskip("redis")

    with pytest.raises(DefinitionError, match="decode_responses"):
        RedisStore(redis.Redis(decode_responses=True))


@pytest.mark.parametrize("idle", [0, -1, True, "30", float("nan")])
def test_a_time_must_be_positive(idle):
    """Zero would end every session at once."""
    with pytest.raises(DefinitionError, match="idle"):
        open_store("memory:", idle=idle)


def test_redis_without_its_library_names_the_extra(monkeypatch):
    """The error is the command to type."""
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(MissingExtra, match=r"ldinstrument\[redis\]"):
        open_store("redis://127.0.0.1:1/0")


@pytest.mark.parametrize("address", ["redis://127.0.0.1:1/0", "redis+cluster://127.0.0.1:1/0"])
def test_a_server_that_is_away_keeps_no_program_from_starting(address):
    """Opening connects to nothing; what comes waits for the server."""
    with open_store(address, sweep=False) as store:
        assert store.merge("v", delta("s")) is None
        assert store.waiting == 1


def test_a_password_in_the_address_is_never_said(keep, caplog):
    """Not in the log, not in a repr."""
    with open_store("redis://:hunter2@127.0.0.1:1/0", sweep=False) as store:
        store.merge("v", delta("s"))

        assert store.waiting == 1
        assert "hunter2" not in caplog.text + repr(store) + repr(ledger.stats())


def test_importing_the_stores_loads_no_library():
    """Neither redis nor sqlite3 nor the SDK before they are needed."""
    program = (
        "import sys, ldinstrument.stores as s; s.SessionStore; s.open_store; s.end_request;"
        "print([m for m in ('redis', 'sqlite3', 'ldclient', 'urllib3') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "[]"


def test_sweep_as_cron_runs_it(tmp_path):
    """An address and a key are enough: no client, no worker; where LaunchDarkly is, the environment
    says.
    """
    with open_store(tmp_path / "x.db", sweep=False) as store:
        store.merge("v", delta("s-1", context={"user": "ana"}, tallies=(2, 0, 0, 0)))
        store.end("v")
    program = textwrap.dedent(
        """
        import sys
        from ldinstrument.stores import sweep
        report = sweep(sys.argv[1], sdk_key="sdk-cron")
        print(report.sessions, report.delivered, report.complete)
        """
    )
    with LocalLaunchDarkly() as ld:
        answer = subprocess.run(
            [sys.executable, "-c", program, f"sqlite:///{tmp_path}/x.db"],
            env={**os.environ, "LDINSTRUMENT_URL": ld.url},
            capture_output=True,
            text=True,
            check=True,
        )

        assert answer.stdout.split() == ["1", "3", "True"]
        assert answer.stderr == ""
        (event,) = ld.custom_events("session.interactions")
        assert (event["metricValue"], event["data"]["sessionId"]) == (2, "s-1")


def test_sweep_needs_a_key(tmp_path):
    """Without a client and a key there is nowhere to send: it says what to set."""
    with pytest.raises(DefinitionError, match="LAUNCHDARKLY_SDK_KEY"):
        sweep(tmp_path / "x.db")


def test_the_end_of_the_interpreter_reports_what_memory_holds(tmp_path):
    """Short, silent, bounded: sessions in memory leave at exit as abandoned, without anybody
    closing anything.
    """
    program = textwrap.dedent(
        """
        import sys, ldclient
        from ldclient.config import Config
        from ldinstrument.delivery import Plugin
        from ldinstrument.sessions.scopes import open_session
        from ldinstrument.stores import end_request, open_store
        url = sys.argv[1]
        ldclient.set_config(Config("sdk-test", base_uri=url, events_uri=url, stream_uri=url,
                                   use_ldd=True, diagnostic_opt_out=True, plugins=[Plugin()]))
        ldclient.get()
        store = open_store("memory:")
        request = open_session("ana")
        request.interaction()
        end_request(request, store, "v-1")
        """
    )
    with LocalLaunchDarkly() as ld:
        answer = subprocess.run(
            [sys.executable, "-c", program, ld.url], capture_output=True, text=True, check=True
        )

        assert answer.stderr == ""
        (event,) = ld.custom_events("session.interactions")
        assert event["data"]["endReason"] == "abandoned"


def test_a_sqlite_address_says_how_long_a_request_waits(tmp_path, monkeypatch):
    """For other threads and workers together; a quarter of a second when it does not say."""
    monkeypatch.setattr("ldinstrument.stores.sqlite.time", SimpleNamespace(monotonic=lambda: 100.0))
    waits = []
    for query in ("?timeout=0.05", ""):
        with open_store(f"sqlite:///{tmp_path}/x.db{query}", sweep=False) as store:
            store.merge("v", delta("s"))
            with store.store._transaction() as (file, _, _):
                waits += file.execute("PRAGMA busy_timeout").fetchone()

    assert waits == [pytest.approx(50, abs=1), pytest.approx(250, abs=1)]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_sweep_may_be_stricter_than_the_workers(kind, tmp_path, redis_of_its_own):
    """`idle=` of a sweep ends what the workers would still wait for, and counts what stays open."""
    address = f"sqlite:///{tmp_path}/x.db" if kind == "sqlite" else redis_of_its_own.url
    address += "?timeout=10"
    recording = RecordingClient()
    with open_store(address, sweep=False) as store:
        store.merge(
            "v-1", delta("s-1", context={"user": "ana"}, started_ago=90_000, last_ago=70_000)
        )
        store.merge("v-2", delta("s-2", context={"user": "ben"}, started_ago=90_000))
        as_workers = sweep(address, client=recording)
        stricter = sweep(address, client=recording, idle=60)

    assert (as_workers.sessions, as_workers.open) == (0, 2)
    assert (stricter.sessions, stricter.open) == (1, 1)
    (duration,) = recording.of("session.duration")
    assert (duration.context.key, duration.data["endReason"]) == ("ana", "idle")
