"""Kept-alive connections of our own: one write per request, and one deadline over all that the answer takes.

The SDK's urllib3 takes twice as long as `http.client` for a small POST, and bounds each read but never the whole: a
server that drips its answer byte by byte holds it for ever.
"""

from __future__ import annotations

import http.client
import io
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .payloads import Payload
from .transport import Answer, Outstanding

LONGEST_ANSWER = 65536


class DirectTransport:
    """`http.client` without a proxy, with the time-outs and the CA of the SDK's configuration.

    `post` may wait for as long as the configuration allows; `post_by` never waits beyond its deadline, and needs a
    connection that is open already: nothing can interrupt the resolution of a name.

    Args:
        config: the SDK's configuration.
        idle: how many connections stay open.
    """

    def __init__(self, config: Any, idle: int) -> None:
        place = urlsplit(config.events_uri)
        self._path = place.path + (f"?{place.query}" if place.query else "")
        self._connect_timeout = config.http.connect_timeout
        self._read_timeout = config.http.read_timeout
        self._most_idle = idle
        self._idle: deque[Wire] = deque()
        self._host, self._port = place.hostname or "", place.port
        self._secure = place.scheme == "https"
        self._config = config
        self._tls: ssl.SSLContext | None = None

    def post(self, payload: Payload, headers: Mapping[str, str]) -> Answer:
        """Send once and wait for the answer."""
        began = time.monotonic()
        wire = self._warm()
        if wire is None:
            try:
                wire = self._new()
                wire.timeout = self._connect_timeout
                wire.connect()
            except Exception as error:
                return _nothing(error, began, lost=False)
        sent = self._send(wire, payload, headers, began + self._read_timeout)
        return sent or self._answer(wire, began)

    def ready(self) -> bool:
        """Whether `post_by` would find an open connection."""
        return bool(self._idle)

    def post_by(self, payload: Payload, headers: Mapping[str, str], deadline: float) -> Answer | Outstanding | None:
        """Send once and wait until *deadline* (`time.monotonic`).

        Returns:
            The answer; what is still to be waited for; or None when no connection was open and nothing was sent.
        """
        began = time.monotonic()
        wire = self._warm()
        if wire is None:
            return None
        sent = self._send(wire, payload, headers, min(deadline, began + self._read_timeout))
        return sent or self._answer(wire, began, deadline)

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _warm(self) -> Wire | None:
        while self._idle:
            try:
                wire = self._idle.pop()
            except IndexError:
                break
            if wire.idle():
                return wire
            wire.close()
        return None

    def _new(self) -> Wire:
        if not self._secure:
            return Wire(self._host, self._port)
        if self._tls is None:  # reading a CA bundle takes 15 ms, and not every client sends an event
            self._tls = _tls_as_the_sdk(self._config)
        return SecureWire(self._host, self._port, context=self._tls)

    def _send(self, wire: Wire, payload: Payload, headers: Mapping[str, str], until: float) -> Answer | None:
        began = time.monotonic()
        try:
            wire.ask(self._path, payload.body, headers, until)
        except BaseException as error:
            wire.close()
            if not isinstance(error, Exception):
                raise
            return _nothing(error, began, lost=not isinstance(error, TimeoutError))
        return None

    def _answer(self, wire: Wire, began: float, deadline: float | None = None) -> Answer | Any:
        """Wait until *deadline*, or as long as the configuration allows."""
        wire.until = time.monotonic() + self._read_timeout if deadline is None else deadline
        try:
            status, headers = wire.answer()
        except BaseException as error:
            late = isinstance(error, TimeoutError)
            if late and deadline is not None and not wire.heard:
                return Outstanding(lambda: self._answer(wire, began))
            wire.close()
            if not isinstance(error, Exception):
                raise
            return _nothing(error, began, lost=not late)
        if wire.sock is not None and len(self._idle) < self._most_idle:
            self._idle.append(wire)
        else:
            wire.close()
        return Answer(status, headers, time.monotonic() - began)


def _nothing(error: Exception, began: float, lost: bool) -> Answer:
    return Answer(0, seconds=time.monotonic() - began, error=type(error).__name__, lost=lost)


def _tls_as_the_sdk(config: Any) -> ssl.SSLContext:
    from urllib3.util.ssl_ import create_urllib3_context

    context: ssl.SSLContext = create_urllib3_context()
    if config.http.disable_ssl_verification:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.check_hostname, context.verify_mode = True, ssl.CERT_REQUIRED
        context.load_verify_locations(config.http.ca_certs or _their_certificates())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _their_certificates() -> str:
    import certifi

    return certifi.where()


class Wire(http.client.HTTPConnection):
    """One connection. Not safe for several threads at once.

    `until` (`time.monotonic`) bounds whatever it does next; `heard` counts the bytes of the answer so far.
    """

    until = float("inf")
    heard = 0
    _unsent: list[bytes]

    def idle(self) -> bool:
        """Whether it is open and silent; a server that has closed it can be heard."""
        from urllib3.util import wait_for_read

        return self.sock is not None and not wait_for_read(self.sock, 0.0)

    def send(self, data: Any) -> None:
        """Keep *data* for `ask`: head and body leave in one packet, and in one system call."""
        self._unsent.append(data)

    def ask(self, path: str, body: bytes, headers: Mapping[str, str], until: float) -> None:
        """POST *body*; the connection must be open."""
        self.until, self.heard, self._unsent = until, 0, []
        self.request("POST", path, body, headers)
        self.limit()
        self.sock.sendall(b"".join(self._unsent))
        self._unsent = []

    def answer(self) -> tuple[int, Mapping[str, str]]:
        """Status and headers; the body is read and forgotten.

        Raises:
            TimeoutError: `until` has come. When nothing was `heard`, one may ask again.
        """
        response = self.getresponse()
        response.read(LONGEST_ANSWER)
        if not response.isclosed():
            response.close()
            self.close()
        headers: Any = response.headers
        return response.status, headers

    def response_class(  # type: ignore[override]
        self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> http.client.HTTPResponse:
        """What `getresponse` reads with."""
        return _Response(sock, self, method)

    def limit(self) -> None:
        """Let the next read or write last until `until` at most.

        Raises:
            TimeoutError: it has come.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)


class SecureWire(Wire, http.client.HTTPSConnection):
    """The same over TLS."""


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, wire: Wire, method: str | None) -> None:
        super().__init__(sock, method=method)
        self.fp = io.BufferedReader(_Limited(self.fp.detach(), wire, sock))


class _Limited(io.RawIOBase):
    """A socket's bytes, each read of which has only what is left of the wire's time."""

    def __init__(self, raw: io.RawIOBase, wire: Wire, sock: Any) -> None:
        self._raw = raw
        self._wire = wire
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._wire.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        count: int | None = self._raw.readinto(buffer)
        self._wire.heard += count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
