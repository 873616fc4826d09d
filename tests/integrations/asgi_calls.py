"""An ASGI server in a few lines: it hands in what was received, and keeps what is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import ldinstrument as ld

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


def http(path: str = "/", method: str = "GET", **scope: Any) -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "headers": [], **scope}


async def call(app: Any, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """Do what a server does: hand in what was received, keep what is sent."""
    inbox, sent = list(received), []

    async def receive() -> dict[str, Any]:
        return inbox.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def ok(scope: Any, receive: Any, send: Any) -> None:
    ld.track_conversion(1.0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def lives(scope: Any, receive: Any, send: Any) -> None:
    assert ld.current_session() is None
    for _ in range(2):
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})


class Server:
    """An application that is served, with one request that hangs until the server stops."""

    def __init__(self, middleware: Any) -> None:
        self.app = middleware
        self.hanging = asyncio.Event()

    async def stop(self, told: list[str]) -> None:
        """Begin a request that hangs, and go through the server's life meanwhile."""
        request = asyncio.create_task(call(self.app, http("/hang")))
        await self.hanging.wait()
        for message in await call(self.app, {"type": "lifespan"}, STARTUP, SHUTDOWN):
            told.append(message["type"])
        request.cancel()
        await asyncio.wait([request])
