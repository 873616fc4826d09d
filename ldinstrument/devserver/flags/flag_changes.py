"""Flag changes on their way to the open streams, and the server-sent events that carry them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeAlias

from starlette.responses import Response, StreamingResponse

from ..database import Document

HEARTBEAT_SECONDS = 15.0
ENVIRONMENT_ID = "ldinstrument-local"
HEADERS = {"Cache-Control": "no-cache", "X-LD-EnvID": ENVIRONMENT_ID}
COMMENT = b":\n\n"


class FlagChange(NamedTuple):
    """One change: `put` or `delete` (or `heartbeat`) of a `flag` or `segment`, and the document."""

    verb: str
    kind: str = ""
    document: Document = {}  # noqa: RUF012 - never changed


Changes: TypeAlias = "asyncio.Queue[FlagChange | None]"
HEARTBEAT = FlagChange("heartbeat")


def sse(event: str, data: Any) -> bytes:
    """Return one server-sent event."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def event_stream(messages: AsyncIterator[bytes]) -> Response:
    """Return server-sent events; without a length, so that the server sends them in chunks, which
    the Python SDK needs.
    """
    return StreamingResponse(messages, media_type="text/event-stream", headers=HEADERS)


class FlagChanges:
    """Hands flag changes to the open streams; lives on the event loop of one server run."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: set[Changes] = set()
        self._closed = False

    @property
    def streams(self) -> int:
        """Return how many streams are open."""
        return len(self._queues)

    def publish(self, change: FlagChange) -> None:
        """Send a change to every stream; from any thread."""
        with suppress(RuntimeError):  # the loop has just ended, and the streams with it
            self._loop.call_soon_threadsafe(self._offer, change)

    def close(self) -> None:
        """End every stream at once, and those that come; on the loop."""
        self._closed = True
        self._offer(None)

    def _offer(self, change: FlagChange | None) -> None:
        for queue in self._queues:
            queue.put_nowait(change)

    @contextmanager
    def subscription(self) -> Iterator[Changes]:
        """Subscribe to the changes from now on."""
        queue: Changes = asyncio.Queue()
        self._queues.add(queue)
        if self._closed:
            queue.put_nowait(None)
        try:
            yield queue
        finally:
            self._queues.discard(queue)


async def next_change(changes: Changes) -> FlagChange | None:
    """Return the next change, a heartbeat after a silence, or None when the server stops."""
    try:
        return await asyncio.wait_for(changes.get(), HEARTBEAT_SECONDS)
    except asyncio.TimeoutError:
        return HEARTBEAT
