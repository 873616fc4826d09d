"""One POST over the SDK's own connections, with one deadline over the whole answer.

urllib3 and http.client bound each read, so a server or a proxy that drips its answer byte by byte
would hold a thread for ever. `BoundedResponse` ends head and body at the read time-out.

Anything with the `post` of `Transport` can take the place of `PoolTransport` (tests, recorders).
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import http.client
import json
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from .. import sdk
from ..diagnostics import guard, raise_if_interrupted
from .program_warnings import ASKED_BY, ProgramWarnings

CONNECTIONS = 4
GZIP_LEVEL = 3
"""Level 9 takes twelve times as long as level 3 for a quarter fewer bytes."""
LONGEST_BODY = 2**20
READ = 65536
PAYLOAD_ID = "X-LaunchDarkly-Payload-ID"
"""LaunchDarkly counts a payload once, however often its id arrives."""


def body_of(texts: Iterable[bytes], zipped: bool) -> bytes:
    """Return the body of a POST of the events *texts*, each JSON as this package writes it, in
    UTF-8.
    """
    # One copy of the whole: it is written into pages that the process has to be given anew.
    pieces = [b"["]
    for text in texts:
        pieces += (text, b",")
    pieces[-1] = b"]"
    body = b"".join(pieces)
    return gzip.compress(body, GZIP_LEVEL) if zipped else body


def texts_of(body: bytes, zipped: bool) -> list[str]:
    """Return the events of the *body* of a POST, each as JSON text.

    Raises:
        ValueError: it is not JSON.
        OSError: it is not gzip.
    """
    return [sdk.as_json(event) for event in json.loads(gzip.decompress(body) if zipped else body)]


class PostHeaders:
    """The headers of POSTs of events by one configuration. Safe for several threads at once.

    Args:
        config: the SDK's; its key is read anew for each POST.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        self._standing: tuple[str | None, dict[str, str]] = (None, {})

    def of(self, payload_id: str, zipped: bool) -> dict[str, str]:
        """Return the headers of the POST of one payload."""
        key, standing = self._standing
        if key != self._config.sdk_key:
            key, standing = self._standing = self._config.sdk_key, sdk.event_headers(self._config)
        headers = {**standing, PAYLOAD_ID: payload_id}
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return headers


class PostResult:
    """What came back from one POST.

    Args:
        status: the HTTP status; 0 when nothing came back.
        headers: the answer's headers; `get` ignores case.
        seconds: how long it took.
        error: the kind of failure when nothing came back, such as `TimeoutError`.
        lost: the connection broke without a time-out, as a kept-alive one does that the server has
            closed.
    """

    __slots__ = ("accepted", "error", "headers", "lost", "seconds", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        seconds: float = 0.0,
        error: str = "",
        lost: bool = False,
    ) -> None:
        self.status = status
        self.accepted = 200 <= status < 300
        """Whether LaunchDarkly took the payload."""
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.seconds = seconds
        self.error = error
        self.lost = lost


class HasBody(Protocol):
    """What a transport sends: a payload of this package, or of a store."""

    @property
    def body(self) -> bytes:
        """The bytes to send."""


class Transport(Protocol):
    """Where payloads leave."""

    def post(self, payload: HasBody, headers: Mapping[str, str]) -> PostResult:
        """Send the payload's bytes once and wait for the answer; must not raise."""

    def close(self) -> None:
        """Close idle connections."""


def transport_of(config: Any) -> Transport:
    """Return the way to LaunchDarkly that *config* describes: straight, or through its proxy."""
    with contextlib.suppress(LookupError):
        # The first name resolution would import it, on a thread: a child that is forked meanwhile
        # would inherit that import's lock, held for ever; and file descriptors may have run out.
        codecs.lookup("idna")
    return PoolTransport(config, sdk.connection_pool(config, CONNECTIONS))


def _find_idna(name: str) -> codecs.CodecInfo | None:
    """Return the codec that name resolution needs.

    Python's own search remembers for ever that it could not be imported, as when file descriptors
    had run out, and never resolves a name again. This one is asked after it, each time.
    """
    if name != "idna":
        return None
    try:
        from encodings import idna
    except (ImportError, OSError):
        return None
    return idna.getregentry()


codecs.register(_find_idna)


class PoolTransport:
    """POST over the SDK's urllib3 pool, with the time-outs, proxy and CA of its configuration.

    Retries and redirects are off: the sender decides about them.

    Args:
        config: the SDK's configuration.
        pool: its pool manager, not used by anybody else.
    """

    def __init__(self, config: Any, pool: Any) -> None:
        import urllib3

        pool.pool_classes_by_scheme = _bounded_pools(pool.pool_classes_by_scheme)
        self._warnings = ProgramWarnings(pool, config.events_uri)
        send: Any = partial(pool.request, "POST", config.events_uri)
        self._close: Any = pool.clear
        if getattr(pool, "proxy", None) is None:
            # The manager would look its only pool up anew, which is a fifth of a POST's cost.
            with contextlib.suppress(urllib3.exceptions.HTTPError):  # each POST says what is wrong
                only = pool.connection_from_url(config.events_uri)
                path = urllib3.util.parse_url(config.events_uri).request_uri
                send = partial(only.urlopen, "POST", path, assert_same_host=False)
                self._close = only.close
        timeout = urllib3.Timeout(
            connect=config.http.connect_timeout, read=config.http.read_timeout
        )
        self._send = partial(
            send, timeout=timeout, retries=False, redirect=False, preload_content=False
        )
        self._failure = urllib3.exceptions.HTTPError
        self._lost = (urllib3.exceptions.ProtocolError, ConnectionError)

    def post(self, payload: HasBody, headers: Mapping[str, str]) -> PostResult:
        """Send once and wait for the answer."""
        began = time.monotonic()
        try:
            response = self._send(body=payload.body, headers=headers)
            # To its end, so that the connection can be used again; a long one ends it instead.
            opening = chunk = response.read(READ, decode_content=False)
            most = LONGEST_BODY
            while chunk and most > 0:
                chunk = response.read(READ, decode_content=False)
                most -= len(chunk)
            if chunk:
                response.close()
            response.release_conn()
        except Exception as error:
            raise_if_interrupted(error)
            return PostResult(
                0,
                seconds=time.monotonic() - began,
                error=type(error.__cause__ or error).__name__,
                lost=isinstance(error, self._lost),
            )
        seconds = time.monotonic() - began
        status, answer = response.status, response.headers
        if 200 <= status < 300 and status != 202 and _is_web_page(answer, opening):
            return PostResult(0, seconds=seconds, error="WebPage")
        if ASKED_BY in answer:
            with guard("program_warnings"), contextlib.suppress(OSError, self._failure):
                self._warnings.tell(answer, headers)
        return PostResult(status, answer, seconds)

    def close(self) -> None:
        """Close idle connections."""
        self._close()


def _is_web_page(headers: Mapping[str, str], opening: bytes) -> bool:
    """Tell whether a page takes the place of LaunchDarkly's answer.

    LaunchDarkly answers 202 with an empty body. A captive portal, or a proxy that wants a login,
    answers 200 with a page: nothing was delivered.

    Args:
        headers: of the answer.
        opening: of its body, as it came.
    """
    kind = headers.get("Content-Type")  # some portals leave it out
    html = not kind or "html" in kind.lower()
    return html and opening.lstrip()[:1] in (b"<", b"\x1f")  # a tag, or gzip


def _bounded_pools(pools: Mapping[str, Any]) -> dict[str, Any]:
    """Return connection pools like *pools* (by scheme) whose answers are `BoundedResponse`."""
    return {scheme: _bounded_pool(pool) for scheme, pool in pools.items()}


def _bounded_pool(pool: Any) -> Any:
    connection = type(
        "BoundedConnection", (pool.ConnectionCls,), {"response_class": BoundedResponse}
    )
    return type("BoundedPool", (pool,), {"ConnectionCls": connection})


class BoundedResponse(http.client.HTTPResponse):
    """Let head and body take no longer than the time-out of the socket when they are waited for."""

    def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        timeout = sock.gettimeout()
        if timeout is not None:
            raw: Any = self.fp.raw
            raw.readinto = partial(_read_by, time.monotonic() + timeout, sock)


def _read_by(deadline: float, sock: Any, buffer: Any) -> Any:
    """Read once from *sock* into *buffer*, until *deadline* (`time.monotonic`); return how many
    bytes.

    Raises:
        TimeoutError: the deadline has come.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)
    return sock.recv_into(buffer)
