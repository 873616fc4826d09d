"""The event intake: where SDKs, browsers and the import API post, and what they are answered."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .event_parsing import rows_of, single, split_array, unpacked
from .responses import Refused, invalid, now_ms
from .store import Post
from .tokens import Access, require_token
from .work import Work

UNAUTHORIZED = "Invalid SDK key"
DIAGNOSTIC = re.compile(r"diagnostic(/[^/]*)?$")
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
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


class Intake:
    """The intake's routes.

    Args:
        work: where the database work is done.
        access: SDK keys and client-side ids (None accepts all that are not empty), REST tokens for
            the import API, and the size above which a body is answered with 413.
    """

    def __init__(self, work: Work, access: Access):
        self.work = work
        self.access = access

    def routes(self) -> list[Route]:
        """The routes of launchdarkly.md section 2.1."""
        routes = [
            Route(path, self._keyed, methods=["POST"]) for path in (*SERVER_ROUTES, *MOBILE_ROUTES)
        ]
        routes += [Route(path, self._browser, methods=["POST"]) for path in BROWSER_ROUTES]
        return [
            *routes,
            Route(IMPORT_ROUTE, self._import, methods=["POST"]),
            Route("/a/{image}", self._pixel),
        ]

    async def _keyed(self, request: Request) -> Response:
        return await self._receive(request, lambda: self.check_key(request))

    async def _browser(self, request: Request) -> Response:
        return await self._receive(
            request, lambda: self.check_environment(request.path_params["env"])
        )

    async def _import(self, request: Request) -> Response:
        return await self._receive(request, lambda: require_token(request, self.access.tokens))

    async def _pixel(self, request: Request) -> Response:
        """Events of the oldest browsers: base64 in the address of an image."""
        data = request.query_params.get("d", "")
        try:
            body = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
        except ValueError:
            raise invalid("d is not base64") from None
        answer = await self._keep(request, body, body, lambda: None)
        return answer if answer.status_code >= 400 else Response(PIXEL, media_type="image/gif")

    def check_key(self, request: Request) -> None:
        """Refuse an SDK key that is missing or unknown; the oldest SDKs write `api_key` before
        it.
        """
        key = request.headers.get("authorization", "").removeprefix("api_key").strip()
        if not key or (self.access.sdk_keys is not None and key not in self.access.sdk_keys):
            raise Refused(401, "unauthorized", UNAUTHORIZED)

    def check_environment(self, environment: str) -> None:
        """Refuse an unknown client-side id where ids are configured."""
        if self.access.sdk_keys is not None and environment not in self.access.sdk_keys:
            raise Refused(401, "unauthorized", UNAUTHORIZED)

    async def _receive(self, request: Request, check: Callable[[], Any]) -> Response:
        raw = await request.body()
        return await self._keep(request, raw, None, check)

    async def _keep(
        self, request: Request, raw: bytes, plain: bytes | None, check: Callable[[], Any]
    ) -> Response:
        """Judge, record and answer one POST; what is refused is recorded too."""
        post = self._post(request, raw)
        try:
            check()
            if len(raw) > self.access.max_payload_bytes:
                raise Refused(413, "payload_too_large", "Request body is too large")
            await self.work.run(
                self._accept, post, raw, plain, request.headers.get("content-encoding", "")
            )
        except Refused as refused:
            await self.work.run(self.work.store.record, refused_post(post, refused))
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

    def _accept(self, post: Post, raw: bytes, plain: bytes | None, encoding: str) -> None:
        body = unpacked(raw, encoding) if plain is None else plain
        items = single(body) if is_diagnostic(post.route) else split_array(body)
        self.work.store.record(with_events(post, len(items)), rows_of(items, post.received))


def with_events(post: Post, events: int) -> Post:
    """The same POST, its events counted."""
    return replace(post, events=events)


def refused_post(post: Post, refused: Refused) -> Post:
    """The same POST, as it was refused."""
    return replace(post, status=refused.status, error=refused.message)


def faulted_post(path: str, headers: dict[str, str], body: bytes, status: int, fault: str) -> Post:
    """A POST that a fault of a test answered instead of the intake; its events are counted but not
    kept.
    """
    try:
        plain = unpacked(body, headers.get("content-encoding", ""))
        events = 1 if is_diagnostic(path) else len(split_array(plain))
    except Refused:
        events = 0
    agent = headers.get("user-agent", "")
    payload_id = headers.get("x-launchdarkly-payload-id", "")
    return Post(path, payload_id, status, len(body), events, False, now_ms(), agent, fault)
