"""A REST call: deadlines, retries, and answers turned into typed errors.

Sources of the rules: LaunchDarkly's REST documentation (rate limits, errors), and what its
Terraform provider had to learn: reset times that lie in the past, and herds of processes that wait
for the same reset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from ..backoff import rest_pause
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
from .credentials import Host, Token
from .http import HttpClient, RestFailure, RestRequest, RestResponse, one_line

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
    404: "there is no such project or metric; keys are case-sensitive",
    403: (
        "the role of the API token does not allow this; metrics need Writer, or a role with "
        "proj/*:metric/*"
    ),
}


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
        self._timeout = timeout
        self._budget = budget
        self._deadline = deadline
        self._sleep = sleep
        self._http = HttpClient(host, token)

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
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        end: float | None = None,
    ) -> RestResponse:
        """Send a request until it is answered, refused, or the budget is used up.

        Args:
            repeatable: whether sending it twice does the same as once. If not, only 429 (not
                processed) is repeated; after a 5xx or a network fault the caller has to look first.

        Raises:
            ApiError: the subclass for the last answer, or `Unreachable`.

        """
        end = self.end() if end is None else end
        request = RestRequest(method, path, params, body, headers or {})
        for attempt in range(100):
            outcome = self._attempt(request, end)
            if isinstance(outcome, RestResponse):
                if outcome.status < 300:
                    return outcome
                error = error_of(outcome, str(request))
            else:
                error = Unreachable(outcome.reason, request=str(request))
                if outcome.final:
                    raise error
            if not _worth_repeating(error, repeatable) or not self.wait(
                attempt, error, outcome, end
            ):
                raise error
        raise error

    def wait(
        self, attempt: int, error: ApiError, outcome: RestResponse | RestFailure | None, end: float
    ) -> bool:
        """Wait before the next attempt; False, at once, when that would not fit in before *end*."""
        headers = outcome.headers if isinstance(outcome, RestResponse) else {}
        seconds = rest_pause(attempt, headers)
        if isinstance(error, RateLimited):
            error.retry_after = seconds
        if time.monotonic() + seconds >= end:
            if isinstance(error, RateLimited):
                error.message += f"; try again in {seconds:.0f} s"
            return False
        self._sleep(seconds)
        return time.monotonic() < end

    def _attempt(self, request: RestRequest, end: float) -> RestResponse | RestFailure:
        seconds = min(self._timeout, end - time.monotonic())
        if seconds <= 0:
            return RestFailure("no time left before the deadline", final=True)
        return self._http.ask(request, seconds)


def path_of(*parts: str) -> str:
    """Join *parts* to a path below `/api/v2`, each percent-encoded.

    Raises:
        DefinitionError: a part is empty, or one of the dots that a URL would swallow.

    """
    for part in parts:
        if not isinstance(part, str) or not part or part in (".", ".."):
            raise DefinitionError(f"a key in a URL cannot be {part!r}")
    return "/api/v2/" + "/".join(quote(part, safe="") for part in parts)


# -- errors --------------------------------------------------------------------------------------


def error_of(answer: RestResponse, request: str) -> ApiError:
    """Return the typed error for an answer of 400 or above, with LaunchDarkly's own message, code
    and support id.
    """
    body = answer.json if isinstance(answer.json, dict) else {}
    message = one_line(body.get("message")) or _phrase(answer.status)
    details = body.get("errors")
    for entry in details if isinstance(details, list) else ():
        if isinstance(entry, dict) and (reason := one_line(entry.get("reason"))):
            message += f"; {one_line(entry.get('attribute')) or 'it'}: {reason}"
    if answer.status in _ADVICE:
        message += f" - {_ADVICE[answer.status]}"
    kind = _ERRORS.get(answer.status, ServerError if answer.status >= 500 else ApiError)
    if answer.status == HTTPStatus.BAD_REQUEST and "already exists" in message:
        # LaunchDarkly's documentation shows this under 400, its own tools expect 409: one error for
        # both.
        kind = Conflict
    return kind(
        message,
        status=answer.status,
        code=one_line(body.get("code")),
        request=request,
        support_id=one_line(body.get("id")),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "an answer without a message"


def _worth_repeating(error: ApiError, repeatable: bool) -> bool:
    if isinstance(error, RateLimited):
        return True
    return repeatable and isinstance(error, (ServerError, Unreachable))
