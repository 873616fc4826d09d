"""The JSON under `/dev`: what the page shows, for programs and the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..api.flag_rules import evaluable
from ..api.listing import whole_number
from ..database import Database, Document
from ..database_thread import DatabaseThread
from ..events.event_log import EventLog
from ..flags.flag_changes import sse
from ..flags.flags import simple_flag
from ..readout.health import HealthCheck
from ..readout.readout_document import readout_document
from ..readout.readout_reader import ReadoutReader
from ..request_body import read_body
from ..responses import decode, invalid, not_found

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
GUARDS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TICK_SECONDS = 0.3
PAYLOADS_SHOWN = 200


class Local(Protocol):
    """What the page may do to the server that it shows."""

    database: Database
    event_log: EventLog
    reader: ReadoutReader

    def health(self, project: str | None = None) -> list[HealthCheck]:
        """Return the health checks."""

    def reset(self) -> None:
        """Forget what arrived."""

    def set_flag(self, flag: Document) -> None:
        """Create or change a flag."""

    def delete_flag(self, key: str) -> None:
        """Delete a flag."""


class PageDataRoutes:
    """The routes of data under `/dev`."""

    def __init__(self, database_thread: DatabaseThread, local: Local):
        self.database_thread = database_thread
        self.local = local
        self.stopping: asyncio.Event | None = None

    def routes(self) -> list[Route]:
        """Return the routes of data, changes, and of the stream that tells of changes."""
        return [
            Route("/dev/stream", self._stream),
            Route("/dev/readout", self._json(self._readout)),
            Route("/dev/metrics", self._json(self._metrics)),
            Route("/dev/events", self._events),
            Route("/dev/payloads", self._json(self._payloads)),
            Route("/dev/health", self._json(self._health)),
            Route("/dev/flags", self._json(self._flags)),
            Route("/dev/flags/{key:path}", self._put_flag, methods=["PUT"]),
            Route("/dev/flags/{key:path}", self._delete_flag, methods=["DELETE"]),
            Route("/dev/reset", self._reset, methods=["POST"]),
        ]

    def _json(self, read: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            content = json.dumps(await self.database_thread.read(read, request), allow_nan=False)
            return Response(content, media_type="application/json", headers=GUARDS)

        return endpoint

    async def _stream(self, request: Request) -> Response:
        return StreamingResponse(self._revisions(), media_type="text/event-stream", headers=GUARDS)

    async def _revisions(self) -> AsyncIterator[bytes]:
        """Return the database's revision whenever it has changed, at most some times a second,
        until the server stops.
        """
        assert self.stopping is not None
        said = None
        while not self.stopping.is_set():
            if said != self.local.database.revision:
                said = self.local.database.revision
                yield sse("revision", said)
            try:
                await asyncio.wait_for(self.stopping.wait(), TICK_SECONDS)
            except asyncio.TimeoutError:
                pass

    def _readout(self, request: Request) -> Document:
        project = request.query_params.get("project")
        found = self.local.reader.current(project)
        document = readout_document(found, self.local.database.revision)
        others = self.local.database.projects("metric")
        return {**document, "otherProjects": [name for name in others if name != project]}

    def _metrics(self, request: Request) -> list[Document]:
        database, event_log = self.local.database, self.local.event_log
        return [
            {
                **metric,
                "project": project,
                "lastSeen": event_log.reader.last_seen(metric.get("eventKey", "")),
            }
            for project in database.projects("metric")
            for metric in database.documents("metric", project)
        ]

    async def _events(self, request: Request) -> Response:
        return Response(
            await self.database_thread.read(self._listed, request),
            media_type="application/json",
            headers=GUARDS,
        )

    def _listed(self, request: Request) -> bytes:
        """Events since an id, or the newest; their text goes out as it came in, whatever strange
        values it has.
        """
        limit = whole_number(request.query_params, "limit", 100, 1, 10_000)
        key, event_log = request.query_params.get("key"), self.local.event_log.reader
        if "since" in request.query_params:
            since = whole_number(request.query_params, "since", 0, 0, 999_999_999)
            rows = event_log.event_texts(since=since, limit=limit, key=key)
            last = rows[-1][0] if rows else since
        else:
            rows = event_log.newest(limit, key)
            last = event_log.last_event()
        items = (
            f'{json.dumps({"id": i, "payloadId": p, "received": at})[:-1]}, "event": {text}}}'
            for i, text, p, at in rows
        )
        return f'{{"items": [{",".join(items)}], "last": {last}}}'.encode()

    def _payloads(self, request: Request) -> Document:
        return payload_counts(self.local.database)

    def _health(self, request: Request) -> list[Document]:
        return [
            asdict(finding) for finding in self.local.health(request.query_params.get("project"))
        ]

    def _flags(self, request: Request) -> list[Document]:
        return [flag for flag in self.local.database.documents("flag") if not flag.get("deleted")]

    async def _put_flag(self, request: Request) -> Response:
        try:
            flag = decode(await read_body(request))
        except ValueError:
            raise invalid("Invalid request body") from None
        key = request.path_params["key"]
        if (
            not isinstance(flag, dict)
            or flag.get("key", key) != key
            or not isinstance(flag.get("variations"), list)
            or not flag["variations"]
        ):
            raise invalid("expected a flag with this key and variations")
        if type(flag.get("version", 1)) is not int:
            raise invalid("version must be an integer")
        made = evaluable({**simple_flag(key, flag["variations"]), **flag, "key": key})
        await self.database_thread.run(self.local.set_flag, made)
        return JSONResponse(self.local.database.document("flag", "", key), headers=GUARDS)

    async def _delete_flag(self, request: Request) -> Response:
        known = self.local.database.document("flag", "", request.path_params["key"])
        if known is None or known.get("deleted"):
            raise not_found()
        await self.database_thread.run(self.local.delete_flag, request.path_params["key"])
        return Response(status_code=204)

    async def _reset(self, request: Request) -> Response:
        await self.database_thread.run(self.local.reset)
        return Response(status_code=204)


TOTALS = """
SELECT count(*),
  coalesce(sum(iif(status BETWEEN 1 AND 299 AND NOT duplicate, events, 0)), 0),
  coalesce(sum(duplicate), 0), coalesce(sum(status >= 400), 0), coalesce(sum(fault <> ''), 0)
FROM posts
WHERE route NOT LIKE '%diagnostic%'
"""
NEWEST = """
SELECT payload_id, count(*), max(events), sum(duplicate), max(received), group_concat(status)
FROM posts
WHERE payload_id <> '' GROUP BY payload_id ORDER BY max(id) DESC LIMIT ?
"""
REFUSALS = """
SELECT status, error, count(*) FROM posts WHERE status >= 400 AND fault = '' GROUP BY status, error
ORDER BY max(id) DESC LIMIT 5
"""


def payload_counts(database: Database) -> Document:
    """Return counts of POSTs and events, refusals with their reasons, and the newest payloads."""
    names = ("posts", "events", "duplicates", "refused", "faults")
    totals = dict(zip(names, database.rows(TOTALS)[0], strict=True))
    fields = ("payloadId", "posts", "events", "duplicates", "received", "statuses")
    return {
        **totals,
        "refusals": [
            dict(zip(("status", "error", "posts"), row, strict=True))
            for row in database.rows(REFUSALS)
        ],
        "payloads": [
            dict(zip(fields, row, strict=True)) for row in database.rows(NEWEST, (PAYLOADS_SHOWN,))
        ],
    }
