"""What the real servers of `test_servers.py` serve: WSGI and ASGI, with the client made at import,
before any fork.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import fastapi
import flask
import ldclient
from fastapi.responses import StreamingResponse

import ldinstrument as ld
from ldinstrument.integrations.asgi import SessionMiddleware, end_session
from ldinstrument.integrations.flask import instrument
from ldinstrument.stores import open_store

# Nothing leaves by itself: whatever arrives was sent at the end.
ldclient.set_config(ld.launchdarkly_config("sdk-local", flush_interval=300))
ldclient.get()


def user(scope: Any) -> str:
    return dict(scope["headers"])[b"x-user"].decode()


# With a store, sessions are visits of many requests.
VISITS: dict[str, Any] = {}
if "SHOP_STORE" in os.environ:
    VISITS = {"store": open_store(os.environ["SHOP_STORE"], idle=2), "secret": "only for tests"}

application = flask.Flask("served_shop")
instrument(application, context=lambda request: request.headers["X-User"], **VISITS)
application.config["PROPAGATE_EXCEPTIONS"] = False


@application.get("/buy")
def buy() -> str:
    ld.track_conversion(3.0)
    return str(os.getpid())


@application.get("/leave")
def leave() -> str:
    return str(end_session())


@application.get("/stream")
def stream() -> flask.Response:
    def chunks() -> Iterator[str]:
        for _ in range(3):
            ld.track_conversion(1.0)
            yield "."

    return flask.Response(chunks())


@application.get("/slow")
def slow() -> str:
    time.sleep(1.0)
    return "."


@application.get("/endless")
def endless() -> flask.Response:
    def chunks() -> Iterator[str]:
        for _ in range(400):
            yield "." * 20_000
            time.sleep(0.01)

    return flask.Response(chunks())


@application.get("/boom")
def boom() -> str:
    raise ValueError("broken on purpose")


api = fastapi.FastAPI()


@api.get("/buy")
async def buy_async() -> int:
    ld.track_conversion(3.0)
    return os.getpid()


@api.get("/leave")
async def leave_async() -> bool:
    return end_session()


@api.get("/stream")
async def stream_async() -> StreamingResponse:
    async def chunks() -> AsyncIterator[str]:
        for _ in range(3):
            ld.track_conversion(1.0)
            yield "."

    return StreamingResponse(chunks())


@api.get("/slow")
async def slow_async() -> str:
    await asyncio.sleep(1.0)
    return "."


@api.get("/endless")
async def endless_async() -> StreamingResponse:
    async def chunks() -> AsyncIterator[str]:
        for _ in range(400):
            yield "." * 20_000
            await asyncio.sleep(0.01)

    return StreamingResponse(chunks())


@api.get("/boom")
async def boom_async() -> None:
    raise ValueError("broken on purpose")


asgi = SessionMiddleware(api, context=user, **VISITS)
