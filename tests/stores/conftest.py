"""Every store, each real: in memory, a SQLite file, a Redis server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from ldinstrument.stores import MemoryStore, RedisStore, Rules, SessionStore, SqliteStore, Store
from ldinstrument.stores.redis import connect

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
