"""One REST call: deadlines, retries, and answers turned into typed errors.

Sources of the rules: LaunchDarkly's REST documentation (rate limits, errors), and what its Terraform provider had to
learn: reset times that lie in the past, and herds of processes that wait for the same reset.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib import metadata
from typing import Any, cast
from urllib.parse import quote, urlsplit

import requests
import urllib3

from ..credentials import Host, Token
from ..errors import (
    ApiError,
    Conflict,
    DefinitionError,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
    Unreachable,
)

API_VERSION = "20240415"
_ERRORS: Mapping[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    429: RateLimited,
}
_ADVICE: Mapping[int, str] = {
    401: "the API token is wrong, expired, or may not make this call",
    403: "the role of the API token does not allow this; metrics need Writer, or a role with proj/*:metric/*",
}
_BODY_CAP = 64 * 1024 * 1024
_MESSAGE_CAP = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """A usable answer: the status, the headers and the decoded JSON (None for an empty body)."""

    status: int
    headers: Mapping[str, str]
    json: Any


class Calls:
    """Sends requests to one host with one token. Not for several threads at once.

    Args:
        host: where to.
        token: who asks.
        timeout: seconds for one attempt, from connecting to the last byte of the body.
        budget: seconds for one call with all its retries and waits.
        deadline: a `time.monotonic()` reading after which nothing is tried any more.
        sleep: waits for so many seconds (tests hand in a recorder).
    """

    def __init__(
        self,
        host: Host,
        token: Token,
        *,
        timeout: float = 10.0,
        budget: float = 60.0,
        deadline: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not timeout > 0 or not budget > 0:
            raise DefinitionError("timeout and budget: give seconds above 0")
        self.host = host
        self._token = token
        self._timeout = timeout
        self._budget = budget
        self._deadline = deadline
        self._sleep = sleep
        self._http = requests.Session()
        self._http.auth = _RawToken(token)
        self._http.headers.update({"LD-API-Version": API_VERSION, "User-Agent": f"ldinstrument/{_version()}"})
        # A proxy must not come between us and this machine.
        self._http.trust_env = not host.local

    def __repr__(self) -> str:
        return f"<Calls to {self.host.url}>"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def end(self) -> float:
        """When a call that begins now has to be over, as a `time.monotonic()` reading."""
        end = time.monotonic() + self._budget
        return end if self._deadline is None else min(end, self._deadline)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        repeatable: bool = True,
        end: float | None = None,
    ) -> Answer:
        """Send a request until it is answered, refused, or the budget is used up.

        Args:
            repeatable: whether sending it twice does the same as once. If not, only 429 (not processed) is repeated;
                after a 5xx or a network fault the caller has to look first.

        Raises:
            ApiError: the subclass for the last answer, or `Unreachable`.
        """
        end = self.end() if end is None else end
        request = f"{method} {path}"
        for attempt in range(100):
            outcome = self._attempt(method, path, params, body, end)
            if isinstance(outcome, Answer):
                if outcome.status < 300:
                    return outcome
                error = error_of(outcome, request)
            else:
                error = Unreachable(outcome.reason, request=request)
                if outcome.final:
                    raise error
            if not _worth_repeating(error, repeatable) or not self.wait(attempt, error, outcome, end):
                raise error
        raise error

    def wait(self, attempt: int, error: ApiError, outcome: Answer | Fault | None, end: float) -> bool:
        """Wait before the next attempt; False, at once, when that would not fit in before *end*."""
        headers = outcome.headers if isinstance(outcome, Answer) else {}
        seconds = pause(attempt, headers)
        if isinstance(error, RateLimited):
            error.retry_after = seconds
        if time.monotonic() + seconds >= end:
            return False
        self._sleep(seconds)
        return time.monotonic() < end

    def _attempt(
        self, method: str, path: str, params: Mapping[str, Any] | None, body: Any, end: float
    ) -> Answer | Fault:
        seconds = min(self._timeout, end - time.monotonic())
        if seconds <= 0:
            return Fault("no time left before the deadline", final=True)
        until = time.monotonic() + seconds
        # What goes wrong is turned into a value inside `except` and raised outside: an exception of requests carries
        # the request with its Authorization header, and would stay reachable as __context__.
        try:
            with self._http.request(
                method,
                self.host.url + path,
                params=params,
                data=None if body is None else json.dumps(body, allow_nan=False).encode(),
                headers={} if body is None else {"Content-Type": "application/json"},
                timeout=seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                return _answer(response, until)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as failure:
            return Fault(_why(failure, seconds, self.host))


@dataclass(frozen=True, slots=True)
class Fault:
    """No usable answer, and why; *final* when asking again cannot help."""

    reason: str
    final: bool = False


class _RawToken(requests.auth.AuthBase):
    """Puts the bare token on each request, and keeps `~/.netrc` from putting something else there."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._token.reveal()
        return request


def _version() -> str:
    try:
        return metadata.version("ldinstrument")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "0"


def path_of(*parts: str) -> str:
    """Join *parts* to a path below `/api/v2`, each percent-encoded.

    Raises:
        DefinitionError: a part is empty, or one of the dots that a URL would swallow.
    """
    for part in parts:
        if not isinstance(part, str) or not part or part in (".", ".."):
            raise DefinitionError(f"a key in a URL cannot be {part!r}")
    return "/api/v2/" + "/".join(quote(part, safe="") for part in parts)


# -- reading answers -----------------------------------------------------------------------------


def _answer(response: requests.Response, until: float) -> Answer | Fault:
    if 300 <= response.status_code < 400:
        target = urlsplit(response.headers.get("Location", "")).hostname or "somewhere else"
        return Fault(
            f"redirected ({response.status_code}) to {target}; not followed, because the token stays here: "
            "is the host right?",
            final=True,
        )
    content = _read(response, until)
    if isinstance(content, Fault):
        return content
    if not content:
        return Answer(response.status_code, response.headers, None)
    try:
        return Answer(response.status_code, response.headers, json.loads(content))
    except (ValueError, RecursionError):
        if response.status_code < 300:
            kind = response.headers.get("Content-Type", "something").split(";")[0]
            return Fault(f"answered {kind} that is not JSON; is the host right, or a proxy in between?")
        return Answer(response.status_code, response.headers, None)


def _read(response: requests.Response, until: float) -> bytes | Fault:
    """Read the body; requests' own timeout starts anew with every byte, so a slow drip needs this clock."""
    content = bytearray()
    for piece in _pieces(response):
        content += piece
        if time.monotonic() > until:
            return Fault("the answer came too slowly")
        if len(content) > _BODY_CAP:
            return Fault("the answer is too large", final=True)
    # urllib3 1.x takes the end of the connection for the end of the answer.
    if response.raw.tell() < _announced(response):
        return Fault("the answer broke off")
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


def _why(failure: BaseException, seconds: float, host: Host) -> str:
    where = urlsplit(host.url).netloc
    if isinstance(failure, requests.exceptions.ConnectTimeout):
        return f"no connection to {where} within {seconds:.3g} s"
    if isinstance(failure, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)):
        return f"no complete answer from {where} within {seconds:.3g} s"
    if isinstance(failure, requests.exceptions.ProxyError):
        return f"the proxy on the way to {where} failed"
    if isinstance(failure, requests.exceptions.SSLError):
        return f"no trusted TLS connection to {where}; check the host, the clock and the CA bundle"
    hint = "; is it running? (ldinstrument dev)" if host.local else ""
    return f"{where}: {_system_reason(failure)}{hint}"


def _system_reason(failure: BaseException) -> str:
    """The operating system's word for *failure*, or which half of the exchange broke."""
    seen: list[Any] = [failure]
    for one in seen:
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
        causes = [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
        seen += [cause for cause in causes if isinstance(cause, BaseException) and cause not in seen][:8]
        if len(seen) > 32:
            break
    text = " ".join(str(one) for one in seen)
    if "getaddrinfo" in text or "resolve" in text:
        return "the name does not resolve"
    if "Incomplete" in text or "prematurely" in text:
        return "the answer broke off"
    return "the connection broke"


# -- errors --------------------------------------------------------------------------------------


def error_of(answer: Answer, request: str) -> ApiError:
    """The typed error for an answer of 400 or above, with LaunchDarkly's own message, code and support id."""
    body = answer.json if isinstance(answer.json, dict) else {}
    message = _text(body.get("message")) or _phrase(answer.status)
    for entry in body.get("errors") or ():
        if isinstance(entry, dict):
            message += f"; {_text(entry.get('attribute'))}: {_text(entry.get('reason'))}"
    if answer.status in _ADVICE:
        message += f" - {_ADVICE[answer.status]}"
    kind = _ERRORS.get(answer.status, ServerError if answer.status >= 500 else ApiError)
    if answer.status == HTTPStatus.BAD_REQUEST and "already exists" in message:
        # LaunchDarkly's documentation shows this under 400, its own tools expect 409: one error for both.
        kind = Conflict
    return kind(
        message, status=answer.status, code=_text(body.get("code")), request=request, support_id=_text(body.get("id"))
    )


def _text(value: object) -> str:
    """*value* as one short line: it came over the network and goes to a terminal."""
    text = value if isinstance(value, str) else ""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text)[:_MESSAGE_CAP].strip()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "an answer without a message"


# -- waiting -------------------------------------------------------------------------------------


def _worth_repeating(error: ApiError, repeatable: bool) -> bool:
    if isinstance(error, RateLimited):
        return True
    return repeatable and isinstance(error, (ServerError, Unreachable))


def pause(attempt: int, headers: Mapping[str, str], now: float | None = None) -> float:
    """Seconds to wait before the next attempt.

    The longest wait that the headers ask for, plus jitter so that many processes do not come back at the same moment;
    without one, or when it lies in the past, exponential from 0.2 s to 10 s with jitter.

    Args:
        attempt: 0 after the first attempt.
        headers: of the answer: `Retry-After` (seconds or a date), `X-Ratelimit-Reset` and
            `X-Ratelimit-Auth-Token-Reset` (epoch milliseconds).
        now: epoch seconds; by default the server's own `Date`, or else this machine's clock.
    """
    now = _server_time(headers) if now is None else now
    asked = max(_retry_after(headers, now), _reset(headers, "X-Ratelimit-Reset", now),
                _reset(headers, "X-Ratelimit-Auth-Token-Reset", now))  # fmt: skip
    if asked > 0:
        return asked + random.uniform(0.0, min(2.0, 0.1 + asked / 4))
    backoff: float = min(10.0, 0.2 * 2 ** min(attempt, 10))
    return random.uniform(backoff / 2, backoff)


def _reset(headers: Mapping[str, str], name: str, now: float) -> float:
    try:
        return float(headers.get(name, "")) / 1000 - now
    except ValueError:
        return 0.0


def _retry_after(headers: Mapping[str, str], now: float) -> float:
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    moment = _moment(text)
    return 0.0 if moment is None else moment - now


def _server_time(headers: Mapping[str, str]) -> float:
    moment = _moment(headers.get("Date", ""))
    return time.time() if moment is None else moment


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
