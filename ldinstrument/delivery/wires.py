"""Kept-alive connections of our own: one write per request, and one deadline over all that the
answer takes.

The SDK's urllib3 takes twice as long as `http.client` for a small POST, and bounds each read but
never the whole: a server that drips its answer byte by byte holds it for ever.
"""

from __future__ import annotations

import http.client
import io
import re
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from urllib3.util import wait_for_read

from .payloads import Payload
from .transport import PAYLOAD_ID, Answer, Outstanding

LONGEST_ANSWER = 65536
ONE_PACKET = 8192
PRECISION = 0.001
MOST_HINTS = 10


class DirectTransport:
    """`http.client` without a proxy, with the time-outs and the CA of the SDK's configuration.

    `post` may wait for as long as the configuration allows; `post_by` never waits beyond its
    deadline, and needs a
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
        self._last_head: tuple[Mapping[str, str], Head | None] = ({}, None)

    def post(self, payload: Payload, headers: Mapping[str, str]) -> Answer:
        """Send once and wait for the answer."""
        began = time.monotonic()
        wire = self._warm()
        if wire is None:
            try:
                wire = Wire(self._place(), self._connect_timeout)
            except Exception as error:
                return _nothing(error, began, lost=False)
        sent = self._send(wire, payload, headers, time.monotonic() + self._read_timeout)
        return sent or self._answer(wire, began, time.monotonic() + self._read_timeout)

    def ready(self) -> bool:
        """Whether `post_by` would find an open connection."""
        return bool(self._idle)

    def post_by(
        self, payload: Payload, headers: Mapping[str, str], deadline: float
    ) -> Answer | Outstanding | None:
        """Send once and wait until *deadline* (`time.monotonic`).

        Args:
            payload: what to send; its id is added here.
            headers: all others. The same mapping again and again costs nothing; it must not change.
            deadline: when to return at the latest.

        Returns:
            The answer; what is still to be waited for; or None when no connection was open and
            nothing was sent.
        """
        began = time.monotonic()
        wire = self._warm()
        if wire is None:
            return None
        latest = began + self._read_timeout
        sent = self._send(wire, payload, headers, min(deadline, latest))
        return sent or self._answer(wire, began, min(deadline, latest), latest)

    def close(self) -> None:
        """Close idle connections."""
        while (wire := self._taken()) is not None:
            wire.close()

    def _taken(self) -> Wire | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _warm(self) -> Wire | None:
        while (wire := self._taken()) is not None:
            if wire.idle():
                return wire
            wire.close()
        return None

    def _place(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port)
        if (
            self._tls is None
        ):  # reading a CA bundle takes 15 ms, and not every client sends an event
            self._tls = _tls_as_the_sdk(self._config)
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls)

    def _head(self, payload: Payload, headers: Mapping[str, str]) -> bytes:
        known, head = self._last_head
        if head is None or known is not headers:
            standing = {name: value for name, value in headers.items() if name != PAYLOAD_ID}
            head = Head(self._place(), self._path, standing, PAYLOAD_ID)
            self._last_head = (headers, head)
        return head.filled(payload.id, len(payload.body))

    def _send(
        self, wire: Wire, payload: Payload, headers: Mapping[str, str], until: float
    ) -> Answer | None:
        began = time.monotonic()
        try:
            wire.ask(self._head(payload, headers), payload.body, until)
        except BaseException as error:
            wire.close()
            if not isinstance(error, Exception):
                raise
            return _nothing(error, began, lost=not isinstance(error, TimeoutError))
        return None

    def _answer(self, wire: Wire, began: float, until: float, latest: float = 0.0) -> Answer | Any:
        """Wait until *until*; somebody else may wait until *latest*, when that is later and nothing
        came yet.
        """
        try:
            status, headers = wire.answer(until)
        except BaseException as error:
            late = isinstance(error, TimeoutError)
            if late and until < latest and not wire.heard:
                return Outstanding(lambda: self._answer(wire, began, latest))
            wire.close()
            if not isinstance(error, Exception):
                raise
            return _nothing(error, began, lost=not late)
        if wire.reusable and len(self._idle) < self._most_idle:
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


class Wire:
    """One open connection. Not safe for several threads at once.

    Args:
        connection: made for the place, not open yet.
        connect_timeout: seconds for opening it.
    """

    def __init__(self, connection: http.client.HTTPConnection, connect_timeout: float) -> None:
        connection.timeout = connect_timeout
        connection.connect()
        self._connection = connection
        self._sock: Any = connection.sock
        self.until = float("inf")
        """When whatever it does has to be over (`time.monotonic`)."""
        self.heard = 0
        """Bytes of the answer so far."""
        self.reusable = False
        self._granted = 0.0

    def idle(self) -> bool:
        """Whether it is open and silent; a server that has closed it can be heard."""
        return not wait_for_read(self._sock, 0.0)

    def ask(self, head: bytes, body: bytes, until: float) -> None:
        """Send a request."""
        self.until, self.heard, self.reusable = until, 0, False
        if len(body) < ONE_PACKET:
            self.limit()
            self._sock.sendall(head + body)
        else:  # a copy would cost more than a second call, and the server can begin with the head
            for part in (head, body):
                self.limit()
                self._sock.sendall(part)

    def answer(self, until: float) -> tuple[int, Mapping[str, str]]:
        """Status and headers; the body is read and forgotten.

        Raises:
            TimeoutError: *until* has come. When nothing was `heard`, one may ask again.
        """
        self.until = until
        self._read = self.limit().recv(LONGEST_ANSWER)
        self.heard = len(self._read)
        plain = plain_answer(self._read)
        if plain is not None:
            self.reusable = True
            return plain
        response = self._begun()
        try:
            response.read(LONGEST_ANSWER)
            self.reusable = response.isclosed() and not response.will_close
        finally:
            response.close()
        headers: Any = response.headers
        return response.status, headers

    def _begun(self) -> http.client.HTTPResponse:
        """The answer with its head read; what only announces one, such as 103, is none."""
        self._reader = io.BufferedReader(_Bytes(self, self._read))
        for _ in range(MOST_HINTS):
            response = http.client.HTTPResponse(self, method="POST")  # type: ignore[arg-type]
            response.begin()
            if not 100 <= response.status < 200:
                break
            response.fp = None  # type: ignore[assignment]  # or it would close what the next one reads
        return response

    def limit(self) -> Any:
        """The socket, whose next read or write may last until `until` at most.

        Raises:
            TimeoutError: it has come.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if abs(left - self._granted) > PRECISION:
            self._sock.settimeout(left)
            self._granted = left
        return self._sock

    def makefile(self, mode: str) -> Any:
        """What an `HTTPResponse` reads."""
        return self._reader

    def close(self) -> None:
        """Close it."""
        self._connection.close()


class _Bytes(io.RawIOBase):
    """What has been *read* of a wire and what follows; each further read has only what is left of
    its time.
    """

    def __init__(self, wire: Wire, read: bytes) -> None:
        self._wire = wire
        self._read: bytes | None = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._read:
            count = min(len(buffer), len(self._read))
            buffer[:count], self._read = self._read[:count], self._read[count:] or None
        elif self._read is not None:  # nothing: the other side has closed
            count = 0
        else:
            count = self._wire.limit().recv_into(buffer)
        return count


class Headers(dict[str, str]):
    """Headers by their names in lower case; `get` ignores case."""

    def get(self, name: str, default: Any = None) -> Any:
        """The value of the header *name*."""
        return super().get(name.lower(), default)


_PLAIN = re.compile(rb"HTTP/1\.1 (2\d\d) [^\r\n]*\r\n((?:[!-9;-~]+:[^\r\n]*\r\n)+)\r\n")


def plain_answer(read: bytes) -> tuple[int, Headers] | None:
    """Status and headers of an answer that *read* holds whole, a 2xx without a body that keeps the
    connection.

    None for any other, which is for `http.client` to read: for this one it takes a quarter of a
        small flush.
    """
    found = _PLAIN.fullmatch(read)
    if found is None:
        return None
    headers = Headers()
    for line in found[2].decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if (
        headers.get("content-length") != "0"
        or "connection" in headers
        or "transfer-encoding" in headers
    ):
        return None
    return int(found[1]), headers


class Head:
    """The head of a POST as `http.client` writes it, once per set of headers; each request fills in
    two values.

    Args:
        place: a connection to where it goes; it is not opened.
        path: path and query.
        headers: what stays the same from request to request.
        varying: the header whose value does not.
    """

    def __init__(
        self, place: http.client.HTTPConnection, path: str, headers: Mapping[str, str], varying: str
    ) -> None:
        written: list[bytes] = []
        place.send = written.append  # type: ignore[method-assign, assignment]
        place.request("POST", path, _LENGTH, {**headers, varying: _VALUE})
        head = b"".join(written[:-1])
        length = f"Content-Length: {len(_LENGTH)}\r\n".encode()
        before, _, after = head.replace(length, b"", 1).partition(_VALUE.encode())
        self._before = before
        self._after = after.removesuffix(b"\r\n") + b"Content-Length: "

    def filled(self, value: str, length: int) -> bytes:
        """The head of the request with this *value* and a body of *length* bytes."""
        return b"%b%b%b%d\r\n\r\n" % (self._before, value.encode("latin-1"), self._after, length)


_VALUE = "00000000-0000-4000-8000-000000000000"
_LENGTH = b"x"
