"""Flag delivery to server SDKs: streaming and polling, FDv1 and FDv2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..database_thread import DatabaseThread
from ..events.intake import IntakeRoutes
from .data_system import FlagPayload, Message, delete_object, put_object
from .environment import Flags
from .flag_changes import COMMENT, HEADERS, FlagChange, FlagChanges, event_stream, next_change, sse

PATHS = {"flag": "/flags", "segment": "/segments"}


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
        """Return all flags and segments, as FDv1 sends them."""
        return {"flags": self.flags.all(), "segments": self.flags.segments()}

    async def _stream(self, request: Request) -> Response:
        self.intake.check_key(request)
        return event_stream(self._messages())

    async def _stream_flags(self, request: Request) -> Response:
        """Serve the stream of SDKs before segments: flags only."""
        self.intake.check_key(request)
        return event_stream(self._flag_messages())

    async def _messages(self) -> AsyncIterator[bytes]:
        """Subscribe first, then read: a change in between is sent twice rather than never; SDKs go
        by its version.
        """
        with self._changes().subscription() as changes:
            content = await self.database_thread.run(self.everything)
            yield sse("put", {"path": "/", "data": content})
            while (change := await next_change(changes)) is not None:
                yield _v1_message(change, PATHS.get(change.kind, ""))

    async def _flag_messages(self) -> AsyncIterator[bytes]:
        with self._changes().subscription() as changes:
            yield sse("put", await self.database_thread.run(self.flags.all))
            while (change := await next_change(changes)) is not None:
                yield COMMENT if change.kind == "segment" else _v1_message(change, "")

    def _changes(self) -> FlagChanges:
        assert self.changes is not None, "the server is not running"
        return self.changes

    async def _latest(self, request: Request) -> Response:
        self.intake.check_key(request)
        content = await self.database_thread.run(self.everything)
        return with_etag(request, content)

    async def _one(self, request: Request) -> Response:
        self.intake.check_key(request)
        flags = await self.database_thread.run(self.flags.all)
        flag = flags.get(request.path_params["key"])
        return JSONResponse(flag) if flag else Response(status_code=404)

    async def _poll(self, request: Request) -> Response:
        self.intake.check_key(request)
        basis = request.query_params.get("basis", "")
        return polled(request, await self.database_thread.run(self._transfer, basis))

    def _payload(self) -> FlagPayload:
        return FlagPayload(self.flags.payload_id, self.flags.version())

    def _transfer(self, basis: str) -> list[Message]:
        """Return what an FDv2 client with this basis has to hear: nothing, or everything."""
        payload = self._payload()
        if basis == payload.state:
            return list(payload.nothing())
        kinds = (("flag", self.flags.all()), ("segment", self.flags.segments()))
        objects = (
            put_object(kind, key, document["version"], document)
            for kind, documents in kinds
            for key, document in documents.items()
        )
        return list(payload.everything(objects))

    async def _stream_v2(self, request: Request) -> Response:
        self.intake.check_key(request)
        return event_stream(self._messages_v2(request.query_params.get("basis", "")))

    async def _messages_v2(self, basis: str) -> AsyncIterator[bytes]:
        with self._changes().subscription() as changes:
            for message in await self.database_thread.run(self._transfer, basis):
                yield sse(*message)
            while (change := await next_change(changes)) is not None:
                yield await self.database_thread.run(self._v2_message, change)

    def _v2_message(self, change: FlagChange) -> bytes:
        verb, kind, document = change
        if verb == "heartbeat":
            return sse("heart-beat", {})
        key, version = document["key"], document["version"]
        changed = delete_object(kind, key, version)
        if verb == "put":
            changed = put_object(kind, key, version, document)
        return b"".join(sse(*message) for message in self._payload().changes([changed]))


def polled(request: Request, messages: list[Message]) -> Response:
    """Return the answer to an FDv2 poll."""
    return with_etag(
        request, {"events": [{"event": event, "data": data} for event, data in messages]}
    )


def with_etag(request: Request, content: dict[str, Any]) -> Response:
    """Return JSON with an ETag, or 304 when the client has it."""
    body = json.dumps(content, separators=(",", ":")).encode()
    headers = {**HEADERS, "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _v1_message(change: FlagChange, prefix: str) -> bytes:
    verb, _, document = change
    if verb == "heartbeat":
        return COMMENT
    path = f"{prefix}/{document['key']}"
    if verb == "put":
        return sse("patch", {"path": path, "data": document})
    return sse("delete", {"path": path, "version": document["version"]})
