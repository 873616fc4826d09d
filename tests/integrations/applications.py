"""The same small application in every framework: the behaviour suite sends each the same requests.

Each has the same routes, takes the user from the header `X-User`, ignores `/quiet/*`, and has a
middleware of its own, inside ours, that raises for the header `X-Break`.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ldinstrument as ld
from ldinstrument.integrations import asgi, flask, wsgi
from ldinstrument.integrations.request_session import end_session

CHUNKS = 400
STEP = 0.01


class Meeting:
    """Two requests wait here for each other, so that they are open at the same moment."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def wait(self) -> None:
        self.barrier.wait(timeout=60)


meeting = Meeting()


def convert(value: float, **data: Any) -> None:
    ld.track_conversion(value, **data)


def seen() -> str:
    """The id of the current session, or none."""
    session = ld.current_session()
    return "none" if session is None else session.id


def login() -> None:
    session = ld.current_session()
    assert session is not None
    session.identify("late")


def stream() -> Iterator[bytes]:
    for number in range(3):
        convert(float(number))
        yield b"%d" % number


def broken_stream() -> Iterator[bytes]:
    yield b"0"
    raise RuntimeError("the stream broke")


def endless() -> Iterator[bytes]:
    try:
        for _ in range(CHUNKS):
            yield b"." * 20_000
            time.sleep(STEP)
    finally:
        convert(1.0)


async def stream_async() -> AsyncIterator[bytes]:
    for chunk in stream():
        await asyncio.sleep(0)
        yield chunk


async def broken_stream_async() -> AsyncIterator[bytes]:
    for chunk in broken_stream():
        yield chunk


async def endless_async() -> AsyncIterator[bytes]:
    try:
        for _ in range(CHUNKS):
            yield b"." * 20_000
            await asyncio.sleep(STEP)
    finally:
        convert(1.0)


class Broken(Exception):
    """What the applications raise on purpose."""


# -- plain WSGI ------------------------------------------------------------------------------------


def wsgi_app(**options: Any) -> Any:
    def inner(environ: dict[str, Any], start_response: Any) -> Any:
        path, user = environ["PATH_INFO"], environ.get("HTTP_X_USER")
        if environ.get("HTTP_X_BREAK"):
            raise Broken
        streams = {"/stream": stream, "/stream-boom": broken_stream, "/endless": endless}
        if path in streams:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return streams[path]()
        status, body = plain(path, user)
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return wsgi.SessionMiddleware(
        inner, context=lambda environ: environ.get("HTTP_X_USER"), ignore="/quiet/*", **options
    )


def plain(path: str, user: str | None) -> tuple[str, bytes]:
    if path == "/boom":
        raise Broken
    if path == "/teapot":
        return "418 I'm a teapot", b""
    if path == "/unavailable":
        return "503 Service Unavailable", b""
    if path == "/login":
        login()
    elif path == "/logout":
        end_session()
    elif path.startswith("/items/"):
        convert(3.0)
    elif path == "/meet":
        meeting.wait()
        convert(1.0, user=user)
    elif path not in ("/who", "/health", "/quiet/who"):
        return "404 Not Found", b""
    return "200 OK", seen().encode()


# -- Flask -----------------------------------------------------------------------------------------


def flask_app(**options: Any) -> Any:
    from flask import Flask, Response, abort, request, stream_with_context

    app = Flask("shop")
    app.secret_key = options.pop("secret", None)  # Flask's own session carries the visitor
    flask.instrument(
        app, context=lambda request: request.headers.get("X-User"), ignore="/quiet/*", **options
    )

    @app.before_request
    def broken_middleware() -> None:
        if request.headers.get("X-Break"):
            raise Broken

    def streamed(make: Any) -> Any:
        return lambda: Response(stream_with_context(make()), mimetype="text/plain")

    for path, make in {"stream": stream, "stream-boom": broken_stream, "endless": endless}.items():
        app.add_url_rule(f"/{path}", path, streamed(make))

    @app.get("/items/<int:item>")
    def item(item: int) -> str:
        convert(3.0)
        return seen()

    @app.get("/boom")
    def boom() -> str:
        raise Broken

    app.add_url_rule("/teapot", "teapot", lambda: abort(418))
    app.add_url_rule("/unavailable", "unavailable", lambda: abort(503))
    for path in ("/who", "/health", "/quiet/who"):
        app.add_url_rule(path, path, seen)

    @app.get("/login")
    def log_in() -> str:
        login()
        return seen()

    @app.get("/logout")
    def log_out() -> str:
        flask.end_session()
        return seen()

    @app.get("/meet")
    def meet() -> str:
        meeting.wait()
        convert(1.0, user=request.headers.get("X-User"))
        return seen()

    return app


# -- plain ASGI ------------------------------------------------------------------------------------


def asgi_app(**options: Any) -> Any:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("no lifespan")
        if scope["type"] == "websocket":
            await asgi_websocket(receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if headers.get("x-break"):
            raise Broken
        streams = {
            "/stream": stream_async,
            "/stream-boom": broken_stream_async,
            "/endless": endless_async,
        }
        if scope["path"] in streams:
            await asgi_stream(streams[scope["path"]](), receive, send)
            return
        status, body = await asyncio.to_thread(plain, scope["path"], headers.get("x-user"))
        await answer(send, int(status[:3]), body)

    return asgi.SessionMiddleware(inner, context=header_of, ignore="/quiet/*", **options)


def header_of(scope: Any) -> str | None:
    found = dict(scope["headers"]).get(b"x-user")
    return None if found is None else found.decode()


async def answer(send: Any, status: int, body: bytes) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain")],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def asgi_stream(chunks: Any, receive: Any, send: Any) -> None:
    """Streams as a careful application does: it listens for the client's leave."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain")],
        }
    )
    leaving = asyncio.create_task(left(receive))
    try:
        async for chunk in chunks:
            if leaving.done():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        leaving.cancel()
        await chunks.aclose()


async def left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def asgi_websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "boom":
            raise Broken
        if message["text"] == "fail":
            await send({"type": "websocket.close", "code": 1011})
            return
        convert(2.0)
        await send({"type": "websocket.send", "text": seen()})


# -- Starlette and FastAPI -------------------------------------------------------------------------


class BrokenMiddleware:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"x-break", b"1") in scope["headers"]:
            raise Broken
        await self.app(scope, receive, send)


ANSWERED = threading.Event()
"""The client of `/background` has its answer."""


def background() -> None:
    ANSWERED.wait(100)
    time.sleep(0.05)
    convert(9.0)


async def chat(socket: Any) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        if text == "boom":
            raise Broken
        if text == "fail":
            await socket.close(1011)
            return
        convert(2.0)
        await socket.send_text(seen())


def starlette_app(**options: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    async def who(request: Any) -> Any:
        return PlainTextResponse(seen())

    async def item(request: Any) -> Any:
        convert(3.0)
        return PlainTextResponse(seen())

    async def boom(request: Any) -> Any:
        raise Broken

    async def meet(request: Any) -> Any:
        await asyncio.to_thread(meeting.wait)
        convert(1.0, user=request.headers.get("x-user"))
        return PlainTextResponse(seen())

    def log_in(
        request: Any,
    ) -> Any:  # a sync endpoint: Starlette runs it in a thread, with a copy of the context
        login()
        return PlainTextResponse(seen())

    def refuses(status: int) -> Any:
        async def endpoint(request: Any) -> Any:
            raise HTTPException(status)

        return endpoint

    def streams(make: Any) -> Any:
        async def endpoint(request: Any) -> Any:
            return StreamingResponse(make(), media_type="text/plain")

        return endpoint

    def log_out(request: Any) -> Any:
        end_session()
        return PlainTextResponse(seen())

    async def later(request: Any) -> Any:
        return PlainTextResponse(seen(), background=BackgroundTask(background))

    routes = [
        Route("/items/{item:int}", item),
        Route("/boom", boom),
        Route("/teapot", refuses(418)),
        Route("/unavailable", refuses(503)),
        Route("/stream", streams(stream_async)),
        Route("/stream-boom", streams(broken_stream_async)),
        Route("/endless", streams(endless_async)),
        Route("/login", log_in),
        Route("/logout", log_out),
        Route("/meet", meet),
        Route("/background", later),
        *(Route(path, who) for path in ("/who", "/health", "/quiet/who")),
        WebSocketRoute("/chat", chat),
    ]
    ours = Middleware(asgi.SessionMiddleware, context=header_of, ignore=["/quiet/*"], **options)
    return Starlette(routes=routes, middleware=[ours, Middleware(BrokenMiddleware)])


def fastapi_app(**options: Any) -> Any:
    import fastapi
    from fastapi.responses import PlainTextResponse, StreamingResponse
    from starlette.requests import Request
    from starlette.websockets import WebSocket

    app = fastapi.FastAPI(default_response_class=PlainTextResponse)
    app.add_middleware(BrokenMiddleware)
    app.add_middleware(asgi.SessionMiddleware, context=header_of, ignore=["/quiet/*"], **options)

    async def item(item: int) -> str:
        convert(3.0)
        return seen()

    async def boom() -> str:
        raise Broken

    async def teapot() -> str:
        raise fastapi.HTTPException(418)

    async def unavailable() -> str:
        raise fastapi.HTTPException(503)

    async def meet(request: Request) -> str:
        await asyncio.to_thread(meeting.wait)
        convert(1.0, user=request.headers.get("x-user"))
        return seen()

    def log_in() -> str:
        login()
        return seen()

    def log_out() -> str:
        end_session()
        return seen()

    async def later(tasks: fastapi.BackgroundTasks) -> str:
        tasks.add_task(background)
        return seen()

    async def talk(socket: WebSocket) -> None:
        await chat(socket)

    def streams(make: Any) -> Any:
        async def endpoint() -> Any:
            return StreamingResponse(make(), media_type="text/plain")

        return endpoint

    endpoints = {
        "/items/{item}": item,
        "/boom": boom,
        "/teapot": teapot,
        "/unavailable": unavailable,
        "/meet": meet,
        "/login": log_in,
        "/logout": log_out,
        "/background": later,
        "/who": seen,
        "/health": seen,
        "/quiet/who": seen,
        "/stream": streams(stream_async),
        "/stream-boom": streams(broken_stream_async),
        "/endless": streams(endless_async),
    }
    for path, endpoint in endpoints.items():
        # These functions' annotations name things of this function: FastAPI could not find them by
        # name.
        endpoint.__annotations__ = {
            name: {
                "Request": Request,
                "fastapi.BackgroundTasks": fastapi.BackgroundTasks,
                "int": int,
            }[given]
            for name, given in getattr(endpoint, "__annotations__", {}).items()
            if given in ("Request", "fastapi.BackgroundTasks", "int")
        }
        app.get(path, response_model=None)(endpoint)
    talk.__annotations__ = {"socket": WebSocket}
    app.websocket("/chat")(talk)
    return app


# -- Django ----------------------------------------------------------------------------------------


def django_settings() -> None:
    from django.conf import settings

    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["127.0.0.1", "testserver"],
        ROOT_URLCONF="ldinstrument_test_urls",
        MIDDLEWARE=[
            "ldinstrument.integrations.django.SessionMiddleware",
            "ldinstrument_test_urls.broken_middleware",
        ],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{tempfile.mkdtemp()}/shop.db",
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        USE_TZ=True,
        LOGGING_CONFIG=None,
        LDINSTRUMENT={"context": django_user, "ignore": ["/quiet/*"]},
    )
    import sys
    import types

    import django

    module = types.ModuleType("ldinstrument_test_urls")
    sys.modules[module.__name__] = module
    django.setup()
    module.urlpatterns = django_urls()  # type: ignore[attr-defined]
    module.broken_middleware = django_broken_middleware()  # type: ignore[attr-defined]


def django_user(request: Any) -> str | None:
    found: str | None = request.headers.get("X-User")
    return found


def django_broken_middleware() -> Any:
    from asgiref.sync import iscoroutinefunction
    from django.utils.decorators import sync_and_async_middleware

    @sync_and_async_middleware
    def middleware(get_response: Any) -> Any:
        def broken(request: Any) -> None:
            if request.headers.get("X-Break"):
                raise Broken

        if iscoroutinefunction(get_response):

            async def run_async(request: Any) -> Any:
                broken(request)
                return await get_response(request)

            return run_async

        def run(request: Any) -> Any:
            broken(request)
            return get_response(request)

        return run

    return middleware


def django_urls() -> list[Any]:
    from django.core.exceptions import BadRequest
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    def who(request: Any) -> Any:
        return HttpResponse(seen())

    async def who_async(request: Any) -> Any:
        return HttpResponse(seen())

    def item(request: Any, item: int) -> Any:
        convert(3.0)
        return HttpResponse(seen())

    def boom(request: Any) -> Any:
        raise Broken

    def refused(request: Any) -> Any:
        raise BadRequest

    def unavailable(request: Any) -> Any:
        return HttpResponse(status=503)

    def log_in(request: Any) -> Any:
        login()
        return HttpResponse(seen())

    def log_out(request: Any) -> Any:
        end_session()
        return HttpResponse(seen())

    def meet(request: Any) -> Any:
        meeting.wait()
        convert(1.0, user=request.headers.get("X-User"))
        return HttpResponse(seen())

    async def meet_async(request: Any) -> Any:
        await asyncio.to_thread(meeting.wait)
        convert(1.0, user=request.headers.get("X-User"))
        return HttpResponse(seen())

    def streams(make: Any) -> Any:
        return lambda request: StreamingHttpResponse(make(), content_type="text/plain")

    return [
        path("items/<int:item>", item),
        path("boom", boom),
        path("teapot", refused),
        path("unavailable", unavailable),
        path("login", log_in),
        path("logout", log_out),
        path("meet", meet),
        path("async/meet", meet_async),
        path("async/who", who_async),
        path("stream", streams(stream)),
        path("stream-boom", streams(broken_stream)),
        path("endless", streams(endless)),
        path("async/stream", streams(stream_async)),
        path("async/stream-boom", streams(broken_stream_async)),
        path("async/endless", streams(endless_async)),
        *(path(name, who) for name in ("who", "health", "quiet/who")),
    ]


def django_wsgi_app(**options: Any) -> Any:
    from django.core.handlers.wsgi import WSGIHandler

    return django_handler(WSGIHandler, options)


def django_asgi_app(**options: Any) -> Any:
    from django.core.handlers.asgi import ASGIHandler

    return django_handler(ASGIHandler, options)


def django_handler(kind: Any, options: dict[str, Any]) -> Any:
    """Django reads its settings when a handler is made."""
    django_settings()
    from django.conf import settings
    from django.test import override_settings

    with override_settings(LDINSTRUMENT={**settings.LDINSTRUMENT, **options}):
        return kind()


def django_wrapped_app(**options: Any) -> Any:
    return asgi.SessionMiddleware(django_asgi_app(), ignore=["/quiet/*"], **options)
