"""One POST over the SDK's own connections. Anything with this `post` can take its place (tests,
recorders).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from .. import sdk
from .payloads import Payload

CONNECTIONS = 4
PAYLOAD_ID = "X-LaunchDarkly-Payload-ID"
"""LaunchDarkly counts a payload once, however often its id arrives."""


class Answer:
    """What came back.

    Args:
        status: the HTTP status; 0 when nothing came back.
        headers: the answer's headers; `get` ignores case.
        seconds: how long it took.
        error: the kind of failure when nothing came back.
        lost: the connection broke without a time-out, as a kept-alive one does that the server has
            closed.
    """

    __slots__ = ("error", "headers", "lost", "seconds", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        seconds: float = 0.0,
        error: str = "",
        lost: bool = False,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.seconds = seconds
        self.error = error
        self.lost = lost

    @property
    def accepted(self) -> bool:
        """Whether LaunchDarkly took the payload."""
        return 200 <= self.status < 300


class Outstanding:
    """A request that has left and was not answered in time.

    Args:
        wait: waits for the answer as long as the configuration allows; must not raise.
    """

    __slots__ = ("wait",)

    def __init__(self, wait: Callable[[], Answer]) -> None:
        self.wait = wait


class Transport(Protocol):
    """Where payloads leave.

    With `ready` and `post_by`, as `DirectTransport` has them, a flush may use it on its own thread.
    """

    def post(self, payload: Payload, headers: Mapping[str, str]) -> Answer:
        """Send the payload's bytes once and wait for the answer; must not raise."""

    def close(self) -> None:
        """Close idle connections."""


def transport_of(config: Any) -> Transport:
    """The way to LaunchDarkly that *config* describes: straight, or through its proxy."""
    pool = sdk.connection_pool(config, CONNECTIONS)
    place = urlsplit(config.events_uri)
    if pool.proxy is not None or place.scheme not in ("http", "https") or not place.hostname:
        return PoolTransport(
            config, pool
        )  # what an odd address means is for the SDK's library to say
    from .wires import DirectTransport

    return DirectTransport(config, CONNECTIONS)


class PoolTransport:
    """The SDK's urllib3 manager, with the time-outs, proxy and CA of its configuration.

    Args:
        config: the SDK's configuration.
        pool: its manager.
    """

    def __init__(self, config: Any, pool: Any) -> None:
        import urllib3

        self._pool = pool
        self._url = config.events_uri
        self._timeout = urllib3.Timeout(
            connect=config.http.connect_timeout, read=config.http.read_timeout
        )
        self._lost = (urllib3.exceptions.ProtocolError, ConnectionError)

    def post(self, payload: Payload, headers: Mapping[str, str]) -> Answer:
        """Send once; urllib3's own retries and redirects are off."""
        started = time.monotonic()
        try:
            answer = self._pool.request(
                "POST",
                self._url,
                body=payload.body,
                headers=headers,
                timeout=self._timeout,
                retries=False,
            )
        except Exception as error:
            reason = getattr(error, "reason", None) or error
            seconds = time.monotonic() - started
            return Answer(
                0, seconds=seconds, error=type(reason).__name__, lost=isinstance(error, self._lost)
            )
        return Answer(answer.status, answer.headers, time.monotonic() - started)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()
