"""Flag delivery: streaming and polling, as the server SDKs know them (FDv1 and FDv2)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .database_thread import DatabaseThread
from .flags import Flags
from .intake import IntakeRoutes

HEARTBEAT_SECONDS = 15.0
ENVIRONMENT_ID = "ldinstrument-local"
HEADERS = {"Cache-Control": "no-cache", "X-LD-EnvID": ENVIRONMENT_ID}


def sse(event: str, data: Any) -> bytes:
    """One server-sent event."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


Change = tuple[str, dict[str, Any]]
Changes: TypeAlias = "asyncio.Queue[Change | None]"
HEARTBEAT: Change = ("heartbeat", {})


class FlagChanges:
    """Hands flag changes to the open streams; lives on the event loop of one server run."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: set[Changes] = set()
        self._closed = False

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._queues)

    def publish(self, verb: str, change: dict[str, Any]) -> None:
        """Send a change to every stream; from any thread."""
        with suppress(RuntimeError):  # the loop has just ended, and the streams with it
            self._loop.call_soon_threadsafe(self._offer, (verb, change))

    def close(self) -> None:
        """End every stream at once, and those that come; on the loop."""
        self._closed = True
        self._offer(None)

    def _offer(self, message: Change | None) -> None:
        for queue in self._queues:
            queue.put_nowait(message)

    @contextmanager
    def subscription(self) -> Iterator[Changes]:
        """Return the changes from now on."""
        queue: Changes = asyncio.Queue()
        self._queues.add(queue)
        if self._closed:
            queue.put_nowait(None)
        try:
            yield queue
        finally:
            self._queues.discard(queue)


async def next_change(changes: Changes) -> Change | None:
    """Return the next change, a heartbeat after a silence, or None when the server stops."""
    try:
        return await asyncio.wait_for(changes.get(), HEARTBEAT_SECONDS)
    except asyncio.TimeoutError:
        return HEARTBEAT


class FlagRoutes:
    """The delivery routes over the flags of a database."""

    def __init__(self, database_thread: DatabaseThread, flags: Flags, intake: IntakeRoutes):
        self.database_thread = database_thread
        self.flags = flags
        self.intake = intake
        self.changes: FlagChanges | None = None

    def routes(self) -> list[Route]:
        """Return the routes that server SDKs read flags from."""
        return [
            Route("/all", self._stream),
            Route("/flags", self._stream_flags),
            Route("/sdk/latest-all", self._latest),
            Route("/sdk/flags/{key}", self._one),
            Route("/sdk/poll", self._poll),
            Route("/sdk/stream", self._stream_v2),
        ]

    def everything(self) -> dict[str, Any]:
        """All flags and segments, as FDv1 sends them."""
        return {"flags": self.flags.all(), "segments": {}}

    async def _stream(self, request: Request) -> Response:
        self.intake.check_key(request)
        return event_stream(self._messages())

    async def _stream_flags(self, request: Request) -> Response:
        """Return the stream of SDKs before segments: flags only."""
        self.intake.check_key(request)
        return event_stream(self._messages(flags_only=True))

    async def _messages(self, *, flags_only: bool = False) -> AsyncIterator[bytes]:
        """Subscribe first, then read: a change in between is sent twice rather than never; SDKs go
        by its version.
        """
        with self._changes().subscription() as changes:
            content = await self.database_thread.run(self.everything)
            prefix = "" if flags_only else "/flags"
            yield sse("put", content["flags"] if flags_only else {"path": "/", "data": content})
            while (change := await next_change(changes)) is not None:
                yield _v1_message(*change, prefix)

    def _changes(self) -> FlagChanges:
        assert self.changes is not None, "the server is not running"
        return self.changes

    async def _latest(self, request: Request) -> Response:
        self.intake.check_key(request)
        content = await self.database_thread.run(self.everything)
        return with_etag(request, content)

    async def _one(self, request: Request) -> Response:
        self.intake.check_key(request)
        flag = (await self.database_thread.run(self.flags.all)).get(request.path_params["key"])
        return JSONResponse(flag) if flag else Response(status_code=404)

    async def _poll(self, request: Request) -> Response:
        self.intake.check_key(request)
        messages = await self.database_thread.run(
            self._changeset, request.query_params.get("basis", "")
        )
        return with_etag(
            request, {"events": [{"event": event, "data": data} for event, data in messages]}
        )

    def _changeset(self, basis: str) -> list[tuple[str, dict[str, Any]]]:
        """Return what an FDv2 client with this basis has to hear: nothing, or everything."""
        version = self.flags.version()
        return list(
            _v2_full(self.flags.all(), version)
            if basis != _state(version)
            else _v2_nothing(version)
        )

    async def _stream_v2(self, request: Request) -> Response:
        self.intake.check_key(request)
        return event_stream(self._messages_v2(request.query_params.get("basis", "")))

    async def _messages_v2(self, basis: str) -> AsyncIterator[bytes]:
        with self._changes().subscription() as changes:
            for event, data in await self.database_thread.run(self._changeset, basis):
                yield sse(event, data)
            while (change := await next_change(changes)) is not None:
                version = await self.database_thread.run(self.flags.version)
                yield _v2_message(*change, version)


def event_stream(messages: AsyncIterator[bytes]) -> Response:
    """Server-sent events; without a length, so that the server sends them in chunks, which the
    Python SDK needs.
    """
    return StreamingResponse(messages, media_type="text/event-stream", headers=HEADERS)


def with_etag(request: Request, content: dict[str, Any]) -> Response:
    """JSON with an ETag, or 304 when the client has it."""
    body = json.dumps(content, separators=(",", ":")).encode()
    headers = {**HEADERS, "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _v1_message(verb: str, change: dict[str, Any], prefix: str) -> bytes:
    if verb == "put":
        return sse("patch", {"path": f"{prefix}/{change['key']}", "data": change})
    if verb == "delete":
        return sse("delete", {"path": f"{prefix}/{change['key']}", "version": change["version"]})
    return b":\n\n"


def _state(version: int) -> str:
    return f"(p:ldinstrument:{version})"


def _intent(code: str, version: int) -> tuple[str, dict[str, Any]]:
    payload = {
        "id": "ldinstrument",
        "target": version,
        "intentCode": code,
        "reason": "payload-missing",
    }
    return "server-intent", {"payloads": [payload]}


def _transferred(version: int) -> tuple[str, dict[str, Any]]:
    return "payload-transferred", {"state": _state(version), "version": version}


def _put_object(flag: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "put-object", {
        "version": flag["version"],
        "kind": "flag",
        "key": flag["key"],
        "object": flag,
    }


def _v2_nothing(version: int) -> Iterator[tuple[str, dict[str, Any]]]:
    yield _intent("none", version)


def _v2_full(
    flags: dict[str, dict[str, Any]], version: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    yield _intent("xfer-full", version)
    yield from map(_put_object, flags.values())
    yield _transferred(version)


def _v2_message(verb: str, change: dict[str, Any], version: int) -> bytes:
    if verb == "put":
        changed = _put_object(change)
    elif verb == "delete":
        changed = (
            "delete-object",
            {"version": change["version"], "kind": "flag", "key": change["key"]},
        )
    else:
        return sse("heart-beat", {})
    return b"".join(
        sse(*message)
        for message in (_intent("xfer-changes", version), changed, _transferred(version))
    )
