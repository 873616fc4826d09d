"""The event intake: where SDKs, browsers and the import API post, and what they are answered."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..database_thread import DatabaseThread
from ..responses import RefusedRequest, invalid, now_ms, too_large
from ..tokens import Access, require_token
from .bodies import parse_array, parse_object, unpacked
from .event_log import EventLog
from .parsing import ParsedEvent, parsed
from .post_rows import rows_of_post
from .received import Post

UNAUTHORIZED = "Invalid SDK key"
DIAGNOSTIC = re.compile(r"diagnostic(/[^/]*)?$")
SERVER_ROUTES = ("/bulk", "/diagnostic")
MOBILE_ROUTES = ("/mobile", "/mobile/events", "/mobile/events/bulk", "/mobile/events/diagnostic")
BROWSER_ROUTES = ("/events/bulk/{env}", "/events/diagnostic/{env}")
PROGRAM = {"X-Ldinstrument-Program": "/ldinstrument/program"}
"""Where a program may say what it has warned about; see `programs`."""
IMPORT = "/v2/event-data-import/"
MAX_IMPORT_BYTES = 10 * 1024 * 1024
INTAKE = re.compile(
    r"/(bulk|diagnostic|mobile|mobile/events(/bulk|/diagnostic)?|events/(bulk|diagnostic)/[^/]+)$"
    rf"|{IMPORT}"
)


def is_intake(path: str) -> bool:
    """Return whether a request path belongs to the event intake."""
    return INTAKE.match(path) is not None


def is_diagnostic(path: str) -> bool:
    """Return whether a request path receives SDK diagnostics, which are no events."""
    return DIAGNOSTIC.search(path) is not None


class IntakeRoutes:
    """The intake's routes.

    Args:
        database_thread: where the database work is done.
        event_log: what records the POSTs.
        access: SDK keys and client-side ids (None accepts all that are not empty), REST tokens for
            the import API, and the size above which a body is answered with 413.
    """

    def __init__(self, database_thread: DatabaseThread, event_log: EventLog, access: Access):
        self.database_thread = database_thread
        self.event_log = event_log
        self.access = access
        self.receiving: Callable[[], AbstractContextManager[None]] = nullcontext

    def routes(self) -> list[Route]:
        """Return the routes that SDKs, browsers and importers post events to."""
        keyed = (*SERVER_ROUTES, *MOBILE_ROUTES)
        routes = [Route(path, self._keyed, methods=["POST"]) for path in keyed]
        routes += [Route(path, self._browser, methods=["POST"]) for path in BROWSER_ROUTES]
        imports = Route(IMPORT + "{project}/{env}", self._import, methods=["POST"])
        return [*routes, imports]

    async def _keyed(self, request: Request) -> Response:
        return await self._receive(request, lambda: self.check_key(request))

    async def _browser(self, request: Request) -> Response:
        return await self._receive(
            request, lambda: self.check_environment(request.path_params["env"])
        )

    async def _import(self, request: Request) -> Response:
        return await self._receive(request, lambda: self._check_import(request), MAX_IMPORT_BYTES)

    def _check_import(self, request: Request) -> None:
        require_token(request, self.access.tokens)
        if request.headers.get("x-launchdarkly-event-schema") != "4":
            message = "X-LaunchDarkly-Event-Schema must be 4"
            raise RefusedRequest(406, "not_acceptable", message)

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

    async def _receive(
        self, request: Request, check: Callable[[], Any], most: int | None = None
    ) -> Response:
        """Check, record and answer one POST; what is refused is recorded too."""
        with self.receiving():
            limit = min(self.access.max_payload_bytes, most or self.access.max_payload_bytes)
            raw, complete = await _body(request, limit)
            await self._take(request, check, raw, limit if complete else 0)
        return Response(status_code=202, headers=PROGRAM)

    async def _take(
        self, request: Request, check: Callable[[], Any], raw: bytes, limit: int
    ) -> None:
        """Check and record one POST; a limit of 0 says that its body was too large to be read."""
        post = _post(request, raw)
        try:
            check()
            if not limit:
                raise too_large()
            encoding = request.headers.get("content-encoding", "")
            await self.database_thread.run(self._accept, post, raw, encoding, limit)
        except RefusedRequest as refused:
            refusal = replace(post, status=refused.status, error=refused.message)
            await self.database_thread.run(self.event_log.record, refusal)
            raise

    def _accept(self, post: Post, raw: bytes, encoding: str, limit: int) -> None:
        body = unpacked(raw, encoding, limit)
        if is_diagnostic(post.route):
            items = [parsed(parse_object(body))]
            batch = rows_of_post(b"[" + body + b"]", items, post.received)
        else:
            items = parse_array(body)
            if post.route.startswith(IMPORT):
                _check_custom(items)
            batch = rows_of_post(body, items, post.received, self.event_log.filters())
        self.event_log.record(replace(post, events=len(items)), batch)


async def _body(request: Request, limit: int) -> tuple[bytes, bool]:
    """Read a body up to a limit; return it and whether that is all of it."""
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            return b"".join(chunks), False
    return b"".join(chunks), True


def _post(request: Request, raw: bytes) -> Post:
    headers = request.headers
    return Post(
        route=request.url.path,
        payload_id=headers.get("x-launchdarkly-payload-id", ""),
        status=202,
        bytes=len(raw),
        events=0,
        duplicate=False,
        received=now_ms(),
        agent=headers.get("x-launchdarkly-user-agent") or headers.get("user-agent", ""),
        fault=request.scope.get("ldinstrument.fault", ""),
        wrapper=headers.get("x-launchdarkly-wrapper", ""),
    )


def _check_custom(items: list[Any]) -> None:
    """Refuse an import of anything but custom events, as LaunchDarkly does."""
    for item in items:
        if not isinstance(item, ParsedEvent) or item.kind != "custom":
            raise invalid('every event of an import must be of kind "custom"')


def faulted_post(path: str, headers: dict[str, str], body: bytes, status: int, fault: str) -> Post:
    """Return what is recorded of a POST that an injected fault answered; its events are counted but
    not kept.
    """
    try:
        plain = unpacked(body, headers.get("content-encoding", ""), len(body) + 2**25)
        events = 1 if is_diagnostic(path) else len(parse_array(plain))
    except RefusedRequest:
        events = 0
    agent = headers.get("user-agent", "")
    payload_id = headers.get("x-launchdarkly-payload-id", "")
    return Post(path, payload_id, status, len(body), events, False, now_ms(), agent, fault)
