"""What every REST call has in common: token, rate limit, JSON body, errors as documents."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..database_thread import DatabaseThread
from ..request_body import read_body
from ..responses import RefusedRequest, decode, invalid
from ..tokens import Access, require_token

WINDOW_SECONDS = 10
SEMANTIC = "domain-model=launchdarkly.semanticpatch"
"""What the header `Content-Type` of a semantic patch carries."""
Handler = Callable[[Request, Any], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


class RateLimit:
    """LaunchDarkly's account-wide limit: so many calls in each window of 10 s."""

    def __init__(self, limit: int):
        self.limit = limit
        self._window = 0
        self._used = 0

    def take(self) -> dict[str, str]:
        """Count one call.

        Returns:
            The rate limit headers of its answer; the reset is in epoch milliseconds.

        Raises:
            RefusedRequest: 429, with the same headers.
        """
        window = int(time.time()) // WINDOW_SECONDS
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        headers = {
            "X-Ratelimit-Global-Limit": str(self.limit),
            "X-Ratelimit-Global-Remaining": str(max(0, self.limit - self._used)),
            "X-Ratelimit-Reset": str((window + 1) * WINDOW_SECONDS * 1000),
        }
        if self._used > self.limit:
            raise RefusedRequest(
                429, "rate_limited", "You've exceeded the API rate limit. Try again later.", headers
            )
        return headers


class RestCalls:
    """Turns plain functions of (request, parsed body) into endpoints of the REST API."""

    def __init__(self, database_thread: DatabaseThread, access: Access, rate_limit: int):
        self.database_thread = database_thread
        self.access = access
        self.rate = RateLimit(rate_limit)

    def answer(self, handler: Handler, *, long: bool = False) -> Endpoint:
        """Return an endpoint that checks the token, counts the call, reads the body, and calls the
        handler beside the loop.

        Args:
            handler: answers a request and its parsed body.
            long: it may take long, so it must not be called where POSTs of events are recorded.
        """
        run = self.database_thread.read if long else self.database_thread.run

        async def endpoint(request: Request) -> Response:
            require_token(request, self.access.tokens)
            headers = self.rate.take()
            try:
                body = await _json(request)
                response = await run(handler, request, body)
            except RefusedRequest as refused:
                refused.headers = {**headers, **refused.headers}
                raise
            response.headers.update(headers)
            return response

        return endpoint


async def _json(request: Request) -> Any:
    """Return the parsed body; None for calls that carry none."""
    raw = await read_body(request)
    if request.method not in ("POST", "PATCH", "PUT"):
        return None
    try:
        return decode(raw)
    except ValueError:
        raise invalid("Invalid request body") from None


def is_semantic(request: Request) -> bool:
    """Return whether a PATCH says that its body is a semantic patch."""
    return SEMANTIC in request.headers.get("content-type", "").replace(" ", "")


def semantic_patch_expected() -> RefusedRequest:
    """400: LaunchDarkly would read instructions without that header as a JSON patch."""
    return invalid(f"a semantic patch needs {SEMANTIC} in its Content-Type")
