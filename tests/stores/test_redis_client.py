"""Clients of Redis: they fail fast, connect late, and never show what is in their address."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

from ldinstrument.errors import DefinitionError, MissingExtra
from ldinstrument.stores.redis_client import LazyCluster, connect, decodes, is_cluster

NOBODY = "redis://127.0.0.1:1/0"


def test_a_client_waits_briefly_and_never_twice():
    """A request must not wait for a server that is away; what it brings is kept elsewhere."""
    client = connect(NOBODY, timeout=0.125)
    options = client.connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.125, 0.125)
    assert options["retry"]._retries == 0
    assert options["health_check_interval"] == 0


@pytest.mark.parametrize(
    "address",
    ["redis://:hunter2@host:99999999/0", "redis://:hunter2@host/0?colour=red", "hunter2://host"],
)
def test_an_address_that_cannot_be_read_is_refused_without_its_password(address):
    """When the client is made, with the shape of a right one."""
    with pytest.raises(DefinitionError, match=r"redis://\[user:password@\]host:port/0") as refused:
        connect(address)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("cluster", [False, True])
def test_a_missing_library_is_one_line_with_the_command(monkeypatch, cluster):
    """The line names the extra to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ldinstrument\[redis\]'"):
        connect(NOBODY, cluster=cluster)


class Cluster:
    """Stands for redis-py's, which connects when it is made."""

    made: list[Cluster]

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url, self.options, self.calls = url, options, []
        time.sleep(0.01)
        Cluster.made.append(self)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Cluster:
        return cls(url, options)

    def evalsha(self, *arguments: Any) -> tuple[Any, ...]:
        return ("evalsha", *arguments)

    def eval(self, *arguments: Any) -> tuple[Any, ...]:
        return ("eval", *arguments)

    def info(self, section: str) -> dict[str, Any]:
        return {"127.0.0.1:1": {"section": section}, "127.0.0.1:2": {"section": "other"}}

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(name="lazy")
def _lazy() -> LazyCluster:
    Cluster.made = []
    return LazyCluster(Cluster, NOBODY, retry=None)


def test_a_cluster_is_connected_when_it_is_first_needed(lazy):
    """Once, however many threads want it at the same time."""
    assert Cluster.made == []
    threads = [threading.Thread(target=lazy.evalsha, args=("sha", 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(Cluster.made) == 1
    assert (Cluster.made[0].url, Cluster.made[0].options) == (NOBODY, {"retry": None})
    assert lazy.evalsha("sha", 1) == ("evalsha", "sha", 1)
    assert lazy.eval("text", 1) == ("eval", "text", 1)


def test_a_cluster_that_cannot_be_reached_is_tried_again(lazy):
    """The caller gets the error each time, and a client once it is there."""

    def refuse() -> Any:
        raise ConnectionError("away")

    make, lazy._make = lazy._make, refuse
    for _ in range(2):
        with pytest.raises(ConnectionError):
            lazy.eval("text")
    lazy._make = make
    assert lazy.eval("text") == ("eval", "text")


def test_a_node_speaks_for_the_cluster(lazy, monkeypatch):
    """The answers of several nodes become the first one's; a plain answer stays what it is."""
    assert lazy.info("memory") == {"section": "memory"}
    monkeypatch.setattr(Cluster, "info", lambda self, section: {"maxmemory": 5})
    assert lazy.info("memory") == {"maxmemory": 5}


def test_a_closed_cluster_connects_anew(lazy):
    """So does the child of a fork, which leaves its parent's connections alone."""
    lazy.close()
    assert Cluster.made == []
    lazy.eval("text")
    lazy.close()
    lazy.close()
    assert Cluster.made[0].calls == ["close"]
    lazy.eval("text")
    lazy.forked()
    lazy.eval("text")
    assert len(Cluster.made) == 3
    assert Cluster.made[1].calls == []


def test_what_a_client_is_can_be_told():
    """Of ours, of the user's own, and of something else."""
    redis = pytest.importorskip("redis")
    assert decodes(redis.Redis(decode_responses=True))
    assert not decodes(connect(NOBODY))
    assert not decodes(object())
    assert is_cluster(connect(NOBODY, cluster=True))
    assert not is_cluster(connect(NOBODY))
    assert hasattr(redis.RedisCluster, "get_redis_connection")
