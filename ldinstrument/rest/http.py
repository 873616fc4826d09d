"""One HTTP request and its answer: within its time and without showing the token, whatever the
other side does.
"""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3

from ..process import start_thread
from .credentials import Host, Token

API_VERSION = "20240415"
GRACE_SECONDS = 0.5
_REDIRECTS = (301, 302, 303, 307, 308)
_BODY_CAP = 64 * 1024 * 1024
_MESSAGE_CAP = 300
_TOKEN_LENGTH = 16
"""A shorter token is made up, for a local LaunchDarkly, and may be a word that answers hold."""


@dataclass(frozen=True, slots=True)
class RestRequest:
    """What is asked: method, path below the host, query parameters, and a body to be sent as
    JSON.
    """

    method: str
    path: str
    params: Mapping[str, Any] | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class RestResponse:
    """A usable answer: the status, the headers and the decoded JSON (None for an empty body)."""

    status: int
    headers: Mapping[str, str]
    json: Any


@dataclass(frozen=True, slots=True)
class RestFailure:
    """No usable answer, and why; *final* when asking again cannot help."""

    reason: str
    final: bool = False


class HttpClient:
    """Connections to one host with one token. Not for several threads at once.

    Args:
        host: where to.
        token: who asks.

    """

    def __init__(self, host: Host, token: Token) -> None:
        self._host = host
        self._token = token
        self._http = self._session()

    def __repr__(self) -> str:
        return f"<HttpClient to {self._host.url}>"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _session(self) -> requests.Session:
        session = _NoRedirects()
        session.auth = _RawToken(self._token)
        session.headers.update(
            {"LD-API-Version": API_VERSION, "User-Agent": f"ldinstrument/{own_version()}"}
        )
        # A proxy must not come between us and this machine.
        session.trust_env = not self._host.local
        return session

    def ask(self, request: RestRequest, seconds: float) -> RestResponse | RestFailure:
        """Send one request and read its answer, in about *seconds* altogether."""
        done: list[RestResponse | RestFailure] = []
        over = threading.Event()
        http = self._http

        def work() -> None:
            # What goes wrong becomes a value in here: an exception of requests carries the request
            # with its Authorization header, and would stay reachable as __context__ of whatever is
            # raised for it.
            try:
                done.append(self._exchange(http, request, seconds))
            except Exception as failure:
                reason = _why(failure, seconds, self._host)
                done.append(RestFailure(reason, final=_is_final(failure, self._host)))
            over.set()

        # No time-out of requests holds for a name that does not resolve, or for headers that drip
        # in byte by byte: only a thread can be left behind. At exit there is none any more.
        if start_thread("rest", work) is None:
            work()
        if over.wait(seconds + GRACE_SECONDS):
            return done[0]
        self._http = self._session()
        return RestFailure(_too_slow(seconds, self._host))

    def _exchange(
        self, http: requests.Session, request: RestRequest, seconds: float
    ) -> RestResponse | RestFailure:
        until = time.monotonic() + seconds
        body = request.body
        with http.request(
            request.method,
            self._host.url + request.path,
            params=request.params,
            data=None if body is None else json.dumps(body, allow_nan=False).encode(),
            headers={
                **request.headers,
                **({} if body is None else {"Content-Type": "application/json"}),
            },
            timeout=seconds,
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code in _REDIRECTS:
                return _redirected(response)
            content = _read(response, until)
            if content is None:
                return RestFailure(_too_slow(seconds, self._host))
            return (
                content
                if isinstance(content, RestFailure)
                else _answer(response, self._without_token(content))
            )

    def _without_token(self, content: bytes) -> bytes:
        """*content*, should somebody on the way have echoed the request in it."""
        token = self._token.reveal().encode()
        return content.replace(token, b"***") if len(token) >= _TOKEN_LENGTH else content


class _NoRedirects(requests.Session):
    """Looks at no redirect: requests would read its whole body, and parse its address, although it
    does not follow.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follow no redirect: the token is for one host."""
        return None


class _RawToken(requests.auth.AuthBase):
    """Puts the bare token on each request, and keeps `~/.netrc` from putting something else
    there.
    """

    def __init__(self, token: Token) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._token.reveal()
        return request


def own_version() -> str:
    """Return the version of this library, as it was installed."""
    try:
        return metadata.version("ldinstrument")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "0"


# -- reading answers -----------------------------------------------------------------------------


def _redirected(response: requests.Response) -> RestFailure:
    try:
        target = urlsplit(response.headers.get("Location", "")).hostname
    except ValueError:
        target = None
    return RestFailure(
        f"redirected ({response.status_code}) to {one_line(target) or 'somewhere else'}; not "
        f"followed, because the "
        "token stays here: is the host right?",
        final=True,
    )


def _answer(response: requests.Response, content: bytes) -> RestResponse | RestFailure:
    if not content:
        return RestResponse(response.status_code, response.headers, None)
    try:
        # What is read here may be written again (--json), where only strict JSON will do.
        decoded = json.loads(content, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        if response.status_code >= 300:
            return RestResponse(response.status_code, response.headers, None)
        kind = one_line(response.headers.get("Content-Type", "something").split(";")[0])
        # A page will still be a page in ten seconds; JSON that is cut off may be whole the next
        # time.
        return RestFailure(
            f"answered {kind} that is not JSON; is the host right, or a proxy in between?",
            "html" in kind,
        )
    return RestResponse(response.status_code, response.headers, decoded)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _read(response: requests.Response, until: float) -> bytes | RestFailure | None:
    """Return the body; None when it took too long: requests' own timeout starts anew with every
    byte.
    """
    content = bytearray()
    for piece in _pieces(response):
        content += piece
        if time.monotonic() > until:
            return None
        if len(content) > _BODY_CAP:
            return RestFailure("the answer is too large", final=True)
    # urllib3 1.x takes the end of the connection for the end of the answer.
    if response.raw.tell() < _announced(response):
        return RestFailure("the answer broke off")
    return bytes(content)


def _announced(response: requests.Response) -> int:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and "Transfer-Encoding" not in response.headers else 0


def _pieces(response: requests.Response) -> Iterator[bytes]:
    read1 = getattr(response.raw, "read1", None)
    if read1 is None:
        # urllib3 1.x can only wait for a full chunk.
        yield from response.iter_content(1)
        return
    while piece := cast("bytes", read1(65536, decode_content=True)):
        yield piece


def one_line(value: object) -> str:
    """*value* as one short line: it came over the network and goes to a terminal."""
    text = value if isinstance(value, str) else ""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text)[:_MESSAGE_CAP].strip()


# -- what went wrong -----------------------------------------------------------------------------


def _too_slow(seconds: float, host: Host) -> str:
    return f"no complete answer from {urlsplit(host.url).netloc} within {seconds:.3g} s"


def _why(failure: BaseException, seconds: float, host: Host) -> str:
    where = urlsplit(host.url).netloc
    if isinstance(failure, requests.exceptions.ConnectTimeout):
        return f"no connection to {where} within {seconds:.3g} s"
    if isinstance(failure, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)):
        return _too_slow(seconds, host)
    if isinstance(failure, requests.exceptions.ProxyError):
        return f"the proxy on the way to {where} failed"
    if isinstance(failure, requests.exceptions.SSLError):
        return f"no trusted TLS connection to {where}; check the host, the clock and the CA bundle"
    reason = _system_reason(failure)
    hint = "; is it running? (ldinstrument dev)" if host.local and "refused" in reason else ""
    return f"{where}: {reason}{hint}"


def _is_final(failure: BaseException, host: Host) -> bool:
    """Tell whether asking again cannot help: no such name, or nobody listens on this machine."""
    causes = _causes(failure)
    if host.local and any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return True
    unknown = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    return any(isinstance(cause, socket.gaierror) and cause.errno in unknown for cause in causes)


def _causes(failure: BaseException) -> list[BaseException]:
    """Return *failure* and what is behind it: requests and urllib3 hide it in four places."""
    seen = [failure]
    for cause in seen:
        behind = [getattr(cause, "reason", None), cause.__cause__, cause.__context__, *cause.args]
        seen += [
            error for error in behind if isinstance(error, BaseException) and error not in seen
        ][:8]
        if len(seen) > 32:
            break
    return seen


def _system_reason(failure: BaseException) -> str:
    """Return the operating system's word for *failure*, or which half of the exchange broke."""
    seen = _causes(failure)
    for cause in seen:
        if isinstance(cause, socket.gaierror):
            return "the name does not resolve"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    text = " ".join(str(cause) for cause in seen)
    if "getaddrinfo" in text or "resolve" in text:
        return "the name does not resolve"
    if "Incomplete" in text or "prematurely" in text:
        return "the answer broke off"
    return "the connection broke"
