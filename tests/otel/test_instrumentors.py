"""Beside OpenTelemetry's instrumentors of Flask, ASGI and Celery: no double counting, no lost
context, in either direction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import ldinstrument as ld
from ldinstrument.otel import install_observer, install_propagator
from ldinstrument.testing import RecordingClient

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = 0x0AF7651916CD43DD8448EB211C80319C
PARENT = 0xB7AD6B7169203331


@pytest.fixture
def exporter(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    """The real SDK's in-memory exporter, the observer and the propagator."""
    made = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(made))
    before = propagate.get_global_textmap()
    observer = install_observer()
    assert observer is not None
    install_propagator()
    yield made
    observer.uninstall()
    propagate.set_global_textmap(before)


def tree(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans by name, of which there is one each."""
    spans = exporter.get_finished_spans()
    found = {span.name: span for span in spans}
    assert len(found) == len(spans), sorted(span.name for span in spans)
    return found


def is_inside(inner: ReadableSpan, outer: ReadableSpan) -> bool:
    assert outer.context is not None
    return inner.parent is not None and inner.parent.span_id == outer.context.span_id


@ld.track_task("work")
def work() -> str:
    """A task with something inside it."""
    with trace.get_tracer("host").start_as_current_span("query"):
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier["baggage"]


@pytest.mark.parametrize("ours_first", [True, False])
def test_flask(
    ours_first: bool, exporter: InMemorySpanExporter, ld_events: RecordingClient
) -> None:
    """In either order: the server's span keeps its remote parent and kind, ours are inside it."""
    flask = pytest.importorskip("flask")
    instrumentor = pytest.importorskip("opentelemetry.instrumentation.flask").FlaskInstrumentor
    from ldinstrument.integrations.flask import instrument

    app = flask.Flask("shop")
    app.add_url_rule("/items/<item>", "item", lambda item: work())
    app.add_url_rule("/idle", "idle", lambda: "idle")
    for step in (1, 2):
        if (step == 1) is ours_first:
            instrument(app, context="ada")
        else:
            instrumentor().instrument_app(app)
    client = app.test_client()
    headers = {"traceparent": REMOTE, "baggage": "session.id=visit-7"}
    with client.get("/items/7", headers=headers, buffered=True) as answer:
        assert answer.text == "session.id=visit-7"
    found = tree(exporter)
    server = found["GET /items/<item>"]
    assert (server.kind, server.parent and server.parent.span_id) == (SpanKind.SERVER, PARENT)
    assert is_inside(found["request"], server)
    assert is_inside(found["work"], found["request"])
    assert is_inside(found["query"], found["work"])
    assert ld_events.values("work.success_rate") == [1]
    assert ld_events.only("request.duration").data["sessionId"] == "visit-7"

    exporter.clear()
    client.get("/idle", headers={"traceparent": REMOTE}, buffered=True).close()
    found = tree(exporter)
    assert is_inside(found["request"], found["GET /idle"])


@pytest.mark.parametrize("ours_outside", [True, False])
def test_asgi(
    ours_outside: bool, exporter: InMemorySpanExporter, ld_events: RecordingClient
) -> None:
    """The same around an ASGI application, streamed."""
    asgi = pytest.importorskip("opentelemetry.instrumentation.asgi")
    from ldinstrument.integrations.asgi import SessionMiddleware

    async def application(scope: Any, receive: Any, send: Any) -> None:
        work()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for more in (True, False):
            body = {"type": "http.response.body", "body": b"done", "more_body": more}
            await send(body)
            await asyncio.sleep(0)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/shop",
        "scheme": "http",
        "query_string": b"",
        "server": ("127.0.0.1", 80),
        "headers": [(b"traceparent", REMOTE.encode()), (b"baggage", b"session.id=visit-7")],
    }

    def theirs(app: Any) -> Any:
        return asgi.OpenTelemetryMiddleware(app, exclude_spans=["send", "receive"])

    def ours(app: Any) -> Any:
        return SessionMiddleware(app, context="ada")

    app = ours(theirs(application)) if ours_outside else theirs(ours(application))
    asyncio.run(app(scope, receive, send))
    found = tree(exporter)
    (server,) = [span for span in found.values() if span.kind is SpanKind.SERVER]
    assert server.parent is not None
    assert (server.parent.trace_id, server.parent.span_id) == (TRACE, PARENT)
    assert is_inside(found["request"], server)
    assert is_inside(found["work"], found["request"])
    assert is_inside(found["query"], found["work"])
    assert ld_events.values("work.success_rate") == [1]
    assert ld_events.only("request.duration").data["sessionId"] == "visit-7"


@pytest.mark.parametrize("ours_first", [True, False])
def test_celery(
    ours_first: bool, exporter: InMemorySpanExporter, ld_events: RecordingClient
) -> None:
    """A task that is sent from a session: one session there, under the same id, inside its run."""
    celery = pytest.importorskip("celery")
    found = pytest.importorskip("opentelemetry.instrumentation.celery")
    from celery import signals

    from ldinstrument.integrations.celery import instrument

    app = celery.Celery("eager", broker="memory://")
    app.conf.task_always_eager = True
    app.conf.task_store_eager_result = False
    instrumentor = found.CeleryInstrumentor()
    receivers = {name: list(getattr(signals, name).receivers) for name in SIGNALS}
    try:
        for step in (1, 2):
            if (step == 1) is ours_first:
                instrument(app)
            else:
                instrumentor.instrument()

        @app.task(name="jobs.work")  # type: ignore[untyped-decorator]
        def job() -> None:
            work()

        with ld.session("ada"):
            job.apply_async()
    finally:
        instrumentor.uninstrument()
        for name, before in receivers.items():
            getattr(signals, name).receivers[:] = before
    spans = tree(exporter)
    run = next(span for name, span in spans.items() if name.startswith("run/"))
    assert is_inside(spans["job"], run)
    assert is_inside(spans["work"], spans["job"])
    assert is_inside(spans["query"], spans["work"])
    assert ld_events.values("work.success_rate") == [1]
    assert ld_events.only("job.interactions").context.key == "ada"


SIGNALS = (
    "before_task_publish",
    "after_task_publish",
    "task_prerun",
    "task_postrun",
    "task_failure",
    "task_retry",
)
