"""Every store, each real: in memory, a SQLite file, a Redis server, and a Valkey server where one
is installed.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ldclient import LDClient
from ldclient.config import Config, HTTPConfig

from ldinstrument.delivery import EventProcessor, Plugin
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.stores import MemoryStore, RedisStore, Rules, SessionStore, SqliteStore, Store
from ldinstrument.stores.redis_client import connect

MakeStore = Callable[..., Store]


def _module(name: str, file: str) -> ModuleType:
    """The module in a file beside this one, from now on importable by *name*."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_module("stores_builders", "builders.py")
_module("drawn_deltas", "drawn_deltas.py")
_module("laboratory", "../sessions/laboratory.py")
VALKEY: str | None = _module("servers_to_look", "servers.py").valkey_binary()


@pytest.fixture(scope="session")
def valkey_server(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Valkey server for the whole run."""
    server = servers.RedisServer(VALKEY, tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "redis", *(["valkey"] if VALKEY else [])])
def make_store(request, tmp_path) -> Iterator[MakeStore]:
    """Makes stores that see the same sessions (those in memory: each its own), with the given
    rules.
    """
    prefix, made = f"test-{uuid.uuid4().hex[:8]}", []
    served = request.param in ("redis", "valkey")
    server = request.getfixturevalue(f"{request.param}_server") if served else None

    def make(**times: float) -> Store:
        rules = Rules(**times)
        if request.param == "memory":
            store: Store = MemoryStore(rules)
        elif request.param == "sqlite":
            store = SqliteStore(tmp_path / "sessions.db", rules, timeout=10.0)
        else:
            store = RedisStore(connect(server.url, timeout=10.0), rules, prefix=prefix)
        made.append(store)
        return store

    yield make
    for opened in made:
        opened.close()


@pytest.fixture
def keep() -> Iterator[Callable[..., SessionStore]]:
    """Makes `SessionStore`s without a sweeper unless asked, and closes them."""
    made: list[SessionStore] = []

    def make(store: Store, **options) -> SessionStore:
        made.append(SessionStore(store, **{"sweep": False, **options}))
        return made[-1]

    yield make
    for opened in made:
        opened.close()


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[LocalLaunchDarkly]:
    with LocalLaunchDarkly() as server:
        yield server


@pytest.fixture(name="ld")
def _ld(server: LocalLaunchDarkly) -> LocalLaunchDarkly:
    """A local LaunchDarkly that has seen nothing."""
    server.reset()
    server.max_payload_bytes = 100 * 1024 * 1024
    return server


@pytest.fixture(name="client")
def _client(ld: LocalLaunchDarkly) -> Iterator[LDClient]:
    """A real client of it, with our hook."""
    config = Config(
        "sdk-test",
        base_uri=ld.url,
        events_uri=ld.url,
        stream_uri=ld.url,
        use_ldd=True,
        diagnostic_opt_out=True,
        plugins=[Plugin()],
        event_processor_class=functools.partial(EventProcessor, close_timeout=5.0),
        http=HTTPConfig(connect_timeout=60, read_timeout=60),
    )
    client = LDClient(config)
    yield client
    client.close()
