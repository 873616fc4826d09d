"""The event intake: where SDKs, browsers and the import API post, and what they are answered."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .database import Post
from .database_thread import DatabaseThread
from .event_parsing import rows_of, single, split_array, unpacked
from .responses import RefusedRequest, now_ms
from .tokens import Access, require_token

UNAUTHORIZED = "Invalid SDK key"
DIAGNOSTIC = re.compile(r"diagnostic(/[^/]*)?$")
SERVER_ROUTES = ("/bulk", "/diagnostic")
MOBILE_ROUTES = ("/mobile", "/mobile/events", "/mobile/events/bulk", "/mobile/events/diagnostic")
BROWSER_ROUTES = ("/events/bulk/{env}", "/events/diagnostic/{env}")
IMPORT_ROUTE = "/v2/event-data-import/{project}/{env}"
INTAKE = re.compile(
    r"/(bulk|diagnostic|mobile|mobile/events(/bulk|/diagnostic)?|events/(bulk|diagnostic)/[^/]+)$|/v2/event-data-import/"
)


def is_intake(path: str) -> bool:
    """Whether a request path belongs to the event intake."""
    return INTAKE.match(path) is not None


def is_diagnostic(path: str) -> bool:
    """Whether a request path receives SDK diagnostics, which are no events."""
    return DIAGNOSTIC.search(path) is not None


class IntakeRoutes:
    """The intake's routes.

    Args:
        database_thread: where the database work is done.
        access: SDK keys and client-side ids (None accepts all that are not empty), REST tokens for
            the import API, and the size above which a body is answered with 413.
    """

    def __init__(self, database_thread: DatabaseThread, access: Access):
        self.database_thread = database_thread
        self.access = access

    def routes(self) -> list[Route]:
        """Return the routes that SDKs, browsers and importers post events to."""
        routes = [
            Route(path, self._keyed, methods=["POST"]) for path in (*SERVER_ROUTES, *MOBILE_ROUTES)
        ]
        routes += [Route(path, self._browser, methods=["POST"]) for path in BROWSER_ROUTES]
        return [
            *routes,
            Route(IMPORT_ROUTE, self._import, methods=["POST"]),
        ]

    async def _keyed(self, request: Request) -> Response:
        return await self._receive(request, lambda: self.check_key(request))

    async def _browser(self, request: Request) -> Response:
        return await self._receive(
            request, lambda: self.check_environment(request.path_params["env"])
        )

    async def _import(self, request: Request) -> Response:
        return await self._receive(request, lambda: require_token(request, self.access.tokens))

    def check_key(self, request: Request) -> None:
        """Refuse an SDK key that is missing or unknown; the oldest SDKs write `api_key` before
        it.
        """
        key = request.headers.get("authorization", "").removeprefix("api_key").strip()
        if not key or (self.access.sdk_keys is not None and key not in self.access.sdk_keys):
            raise RefusedRequest(401, "unauthorized", UNAUTHORIZED)

    def check_environment(self, environment: str) -> None:
        """Refuse an unknown client-side id where ids are configured."""
        if self.access.sdk_keys is not None and environment not in self.access.sdk_keys:
            raise RefusedRequest(401, "unauthorized", UNAUTHORIZED)

    async def _receive(self, request: Request, check: Callable[[], Any]) -> Response:
        """Check, record and answer one POST; what is refused is recorded too."""
        raw = await request.body()
        post = self._post(request, raw)
        try:
            check()
            if len(raw) > self.access.max_payload_bytes:
                raise RefusedRequest(413, "payload_too_large", "Request body is too large")
            await self.database_thread.run(
                self._accept, post, raw, request.headers.get("content-encoding", "")
            )
        except RefusedRequest as refused:
            await self.database_thread.run(
                self.database_thread.database.record, refused_post(post, refused)
            )
            raise
        return Response(status_code=202)

    @staticmethod
    def _post(request: Request, raw: bytes) -> Post:
        return Post(
            route=request.url.path,
            payload_id=request.headers.get("x-launchdarkly-payload-id", ""),
            status=202,
            bytes=len(raw),
            events=0,
            duplicate=False,
            received=now_ms(),
            agent=request.headers.get("x-launchdarkly-user-agent")
            or request.headers.get("user-agent", ""),
            fault=request.scope.get("ldinstrument.fault", ""),
        )

    def _accept(self, post: Post, raw: bytes, encoding: str) -> None:
        body = unpacked(raw, encoding)
        items = single(body) if is_diagnostic(post.route) else split_array(body)
        self.database_thread.database.record(
            with_events(post, len(items)), rows_of(items, post.received)
        )


def with_events(post: Post, events: int) -> Post:
    """Return the same POST, its events counted."""
    return replace(post, events=events)


def refused_post(post: Post, refused: RefusedRequest) -> Post:
    """Return the same POST, as it was refused."""
    return replace(post, status=refused.status, error=refused.message)


def faulted_post(path: str, headers: dict[str, str], body: bytes, status: int, fault: str) -> Post:
    """Record a POST that a fault of a test answered instead of the intake; its events are counted
    but not kept.
    """
    try:
        plain = unpacked(body, headers.get("content-encoding", ""))
        events = 1 if is_diagnostic(path) else len(split_array(plain))
    except RefusedRequest:
        events = 0
    agent = headers.get("user-agent", "")
    payload_id = headers.get("x-launchdarkly-payload-id", "")
    return Post(path, payload_id, status, len(body), events, False, now_ms(), agent, fault)
