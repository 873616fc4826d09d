"""Streams that go out through a web framework to a real HTTP client: to its end, and cut by it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import httpx
import pytest

import ldinstrument as ld
from ldinstrument.ai import current_call
from ldinstrument.testing import RecordingClient

PAUSE = 0.05


def texts(events: Any) -> Iterator[str]:
    """The words in Anthropic's events."""
    for event in events:
        if event.type == "content_block_delta":
            yield event.delta.text


@contextmanager
def flask_app(models: Any, sdks: ModuleType) -> Iterator[str]:
    """A Flask application on werkzeug's own server, in threads."""
    from flask import Flask, Response
    from werkzeug.serving import make_server

    from ldinstrument.integrations.flask import instrument

    app = Flask(__name__)
    instrument(app, context=lambda request: "u-1")

    @ld.track_ai("k", interaction=False)
    def answer() -> Iterator[str]:
        stream = current_call().follow(sdks.anthropic_stream(models.url))  # type: ignore[union-attr]
        with stream:
            yield from texts(stream)

    @app.get("/ask")
    def ask() -> Response:
        return Response(answer(), mimetype="text/plain")

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5)


@contextmanager
def fastapi_app(models: Any, sdks: ModuleType) -> Iterator[str]:
    """A FastAPI application on uvicorn."""
    import uvicorn
    from anthropic import AsyncAnthropic
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    from ldinstrument.integrations.asgi import SessionMiddleware

    app = FastAPI()
    app.add_middleware(SessionMiddleware, context=lambda scope: "u-1")

    @ld.track_ai("k", interaction=False)
    async def answer() -> AsyncIterator[str]:
        async with AsyncAnthropic(base_url=models.url, api_key="none") as client:
            stream = await client.messages.create(
                model=sdks.CLAUDE, max_tokens=9, messages=sdks.ASK, stream=True
            )
            async for event in current_call().follow(stream):  # type: ignore[union-attr]
                if event.type == "content_block_delta":
                    yield event.delta.text

    @app.get("/ask")
    async def ask() -> StreamingResponse:
        return StreamingResponse(answer(), media_type="text/plain")

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(5)


def until(true: Any, seconds: float = 60.0) -> None:
    """Wait until *true* says so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


APPS = {"flask": flask_app, "fastapi": fastapi_app}


@pytest.mark.parametrize("framework", APPS)
def test_read_to_the_end(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, framework: str
) -> None:
    """The client reads everything: whole duration, time to first token, all tokens."""
    models.behave(pause=PAUSE, goes_on=(has_begun := threading.Event()))
    with APPS[framework](models, sdks) as url:
        with httpx.stream("GET", f"{url}/ask", timeout=90) as response:
            read = []
            for text in response.iter_text():
                read.append(text)
                has_begun.set()
        assert "".join(read) == "Tents keep you dry."
        until(lambda: ld_events.of("k.unfinished"))
    assert ld_events.values("k.success_rate") == [1]
    assert ld_events.values("k.tokens.output") == [6]
    (duration,) = ld_events.values("k.duration")
    (first,) = ld_events.values("k.time_to_first_token")
    assert PAUSE * 5 * 1000 < duration  # type: ignore[operator]
    assert 0 < first < duration - PAUSE * 2 * 1000  # type: ignore[operator]
    assert ld_events.only("k.duration").data["usage"] == "known"


@pytest.mark.parametrize("framework", APPS)
def test_disconnected_halfway(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, framework: str
) -> None:
    """The client goes away after the first word: unfinished, and partial with what was told."""
    models.behave(pause=0.3, goes_on=(has_gone := threading.Event()), waits_at=3)  # the second word
    with APPS[framework](models, sdks) as url:
        with httpx.stream("GET", f"{url}/ask", timeout=90) as response:
            next(response.iter_text())
        has_gone.set()
        until(lambda: ld_events.of("k.unfinished"))
    assert ld_events.values("k.unfinished") == [1]
    assert ld_events.values("k.success_rate") == []
    assert ld_events.values("k.tokens.input") == [20]
    assert ld_events.values("k.tokens.output") == []
    assert ld_events.only("k.unfinished").data["usage"] == "partial"
    assert len(ld_events.values("k.time_to_first_token")) == 1
