"""What a request costs through a middleware, by one kind of application; in a process of its own.

A request is given to the application without a server, and costs the CPU of the whole process. Ours
gives each request a session, whose events are delivered and confirmed. OpenTelemetry's gives it a
span: `spans dropped` records it and keeps it nowhere; `spans delivered` exports it in batches over
OTLP/HTTP to the same server, as its documentation sets it up. Its metrics stay off, and every span
is sampled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .candidates import client_of, confirm, contexts

REQUESTS = 3000
WARM = 300
ENVIRON = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/x",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.url_scheme": "http",
}
SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/x",
    "headers": [],
    "query_string": b"",
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
    "scheme": "http",
    "http_version": "1.1",
}
NAMES = (
    "bare wsgi",
    "bare asgi",
    "ours wsgi",
    "ours asgi",
    "ours wsgi memory",
    "ours asgi memory",
)
OPENTELEMETRY = ("opentelemetry wsgi spans dropped", "opentelemetry wsgi spans delivered")


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    """Answer."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def web(url: str, what: str) -> float:
    """Return the CPU microseconds of a request through *what*, one of `NAMES` or `OPENTELEMETRY`."""
    application, deliver = made(url, what)
    return (
        through_wsgi(application, deliver) if "wsgi" in what else through_asgi(application, deliver)
    )


def made(url: str, what: str) -> tuple[Any, Callable[[], None]]:
    """Return the application that *what* names, and what waits for the delivery of all it made."""
    bare = wsgi_app if "wsgi" in what else asgi_app
    if what.startswith("opentelemetry"):
        return traced(url, delivered=what.endswith("delivered"))
    if what.startswith("ours"):
        return with_sessions(url, what)
    return bare, lambda: None


def with_sessions(url: str, what: str) -> tuple[Any, Callable[[], None]]:
    """Return the application inside our middleware."""
    from ldinstrument.integrations import asgi, wsgi

    client = client_of(url, flush_interval=3600)
    people = iter(contexts(REQUESTS + WARM + 10))
    options: dict[str, Any] = {"client": client, "context": lambda _: next(people)}
    if what.endswith("memory"):
        options |= {"store": "memory:", "secret": "not a real secret"}
    if "wsgi" in what:
        return wsgi.SessionMiddleware(wsgi_app, **options), lambda: confirm(client)
    return asgi.SessionMiddleware(asgi_app, **options), lambda: confirm(client)


def traced(url: str, *, delivered: bool) -> tuple[Any, Callable[[], None]]:
    """Return the application inside OpenTelemetry's middleware."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exported = 0

    class Counting(OTLPSpanExporter):
        def export(self, spans: Any) -> Any:
            nonlocal exported
            exported += len(spans)
            return super().export(spans)

    provider = TracerProvider()
    if delivered:
        exporter = Counting(endpoint=f"{url}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=2 * REQUESTS))
    trace.set_tracer_provider(provider)

    def deliver() -> None:
        assert provider.force_flush()
        assert not delivered or exported in (WARM, WARM + REQUESTS), exported

    return OpenTelemetryMiddleware(wsgi_app), deliver


def through_wsgi(application: Any, deliver: Callable[[], None]) -> float:
    """Return the CPU microseconds of a request through a WSGI *application*."""

    def requests(count: int) -> None:
        for _ in range(count):
            body = application(dict(ENVIRON), lambda *arguments: None)
            for _ in body:
                pass
            if hasattr(body, "close"):
                body.close()
        deliver()

    requests(WARM)
    began = time.process_time()
    requests(REQUESTS)
    return (time.process_time() - began) / REQUESTS * 1e6


def through_asgi(application: Any, deliver: Callable[[], None]) -> float:
    """Return the CPU microseconds of a request through an ASGI *application*."""

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        return

    async def requests(count: int) -> None:
        for _ in range(count):
            await application(dict(SCOPE), receive, send)
        deliver()

    async def both() -> float:
        await requests(WARM)
        began = time.process_time()
        await requests(REQUESTS)
        return (time.process_time() - began) / REQUESTS * 1e6

    return asyncio.run(both())
