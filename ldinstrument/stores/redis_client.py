"""Clients of Redis servers and clusters that fail fast, made without connecting."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from ..errors import DefinitionError, missing_extra


def connect(url: str, *, timeout: float = 0.25, cluster: bool = False) -> Any:
    """Return a client for *url* that fails fast: short time-outs, no retries. `redis` loads now.

    Raises:
        DefinitionError: an address that redis-py cannot read, or an option that it does not know.
        MissingExtra: redis-py is not installed.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise missing_extra("redis", "redis") from None
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "health_check_interval": 0,
    }
    options["retry"] = Retry(NoBackoff(), 0)
    if cluster:
        return LazyCluster(redis.RedisCluster, url, **options)
    try:
        client = redis.Redis.from_url(url, **options)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # connects nowhere, but knows its options
    except (TypeError, ValueError) as error:
        # Its text may hold a part of the address, such as the password.
        raise DefinitionError(
            f"redis: redis-py cannot read this address ({type(error).__name__}): "
            "redis://[user:password@]host:port/0, with special characters of the password as %xx, "
            "and options that redis-py knows"
        ) from None
    return client


class LazyCluster:
    """A `RedisCluster` that connects when it is first needed: one that is away keeps no program
    from starting.
    """

    def __init__(self, kind: Any, url: str, **options: Any) -> None:
        self._make = partial(kind.from_url, url, **options)
        self.forked()

    def forked(self) -> None:
        """Connect anew, in the child after a fork."""
        self._lock = threading.Lock()
        self._made: Any = None

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def evalsha(self, *arguments: Any) -> Any:
        """Run a script by its name."""
        return self._client().evalsha(*arguments)

    def eval(self, *arguments: Any) -> Any:
        """Run a script."""
        return self._client().eval(*arguments)

    def info(self, section: str) -> dict[str, Any]:
        """Return what a node says of itself."""
        found: dict[str, Any] = self._client().info(section)
        return next((node for node in found.values() if isinstance(node, dict)), found)

    def close(self) -> None:
        """Close the connections that there are."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()


def decodes(client: Any) -> bool:
    """Tell whether *client* decodes its responses."""
    pool = getattr(client, "connection_pool", None)
    return bool(getattr(pool, "connection_kwargs", {}).get("decode_responses"))


def is_cluster(client: Any) -> bool:
    """Tell whether *client* speaks to a cluster."""
    return isinstance(client, LazyCluster) or hasattr(client, "get_redis_connection")
