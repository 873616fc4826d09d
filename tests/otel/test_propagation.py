"""The session's id leaves with outgoing calls and is adopted at each boundary."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate

import ldinstrument as ld
from ldinstrument.integrations.asgi import SessionMiddleware as AsgiSessions
from ldinstrument.integrations.aws_lambda import lambda_handler
from ldinstrument.integrations.wsgi import SessionMiddleware
from ldinstrument.otel import install_propagator
from ldinstrument.testing import RecordingClient

HEADER = "session.id=visit-7"


@pytest.fixture
def propagator() -> Iterator[None]:
    """The global propagator with ours in it, for this test alone."""
    before = propagate.get_global_textmap()
    install_propagator()
    yield
    propagate.set_global_textmap(before)


def sent() -> dict[str, str]:
    """The headers of an outgoing call."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


# -- leaving ---------------------------------------------------------------------------------------


def test_the_sessions_id_leaves(propagator: None) -> None:
    """Once, beside the baggage of the host; without a session nothing of ours does."""
    assert install_propagator() is install_propagator()
    token = context.attach(baggage.set_baggage("tenant", "a"))
    try:
        with ld.session("u-1", id="visit-7"):
            assert sorted(sent()["baggage"].split(",")) == ["session.id=visit-7", "tenant=a"]
        assert sent()["baggage"] == "tenant=a"
    finally:
        context.detach(token)
    assert "baggage" not in sent()


def test_without_the_propagator_nothing_leaves() -> None:
    """It is asked for: an id goes to whoever is called."""
    with ld.session("u-1", id="visit-7"):
        assert "baggage" not in sent()


# -- arriving --------------------------------------------------------------------------------------


def wsgi(environ: dict[str, Any], **options: Any) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"done"]

    app = SessionMiddleware(application, context="u-1", **options)
    body: Any = app({"REQUEST_METHOD": "GET", "PATH_INFO": "/shop", **environ}, lambda *args: None)
    list(body)
    body.close()


def test_wsgi(ld_events: RecordingClient) -> None:
    """The request's session goes on under the id that arrived; unless that is unwanted."""
    wsgi({"HTTP_BAGGAGE": HEADER})
    wsgi({"HTTP_BAGGAGE": HEADER}, baggage=False)
    wsgi({"HTTP_BAGGAGE": "session.id=" + "x" * 500})
    ids = [event.data["sessionId"] for event in ld_events.of("request.duration")]
    assert ids[0] == "visit-7"
    assert not {"visit-7", "x" * 500} & set(ids[1:])


def test_a_stored_visit_is_never_joined_by_baggage(ld_events: RecordingClient) -> None:
    """Whose visit a request belongs to, what anybody may send does not decide."""
    store = ld.open_store("memory://", client=ld_events)
    ids = set()
    for user in ("ada", "bob"):
        with ld.session(user, store=store, client=ld_events) as session:
            session.adopt_id("visit-7")
            session.conversion(1.0)
        ids.add(session.id)
    store.close()
    assert len(ids) == 2
    assert "visit-7" not in ids


def test_asgi(ld_events: RecordingClient) -> None:
    """The same over ASGI."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/shop",
        "headers": [(b"baggage", HEADER.encode())],
    }
    asyncio.run(AsgiSessions(application, context="u-1")(scope, receive, send))
    assert ld_events.only("request.duration").data["sessionId"] == "visit-7"


def test_flask(ld_events: RecordingClient) -> None:
    """The same in a Flask application; what is no id is none."""
    flask = pytest.importorskip("flask")
    from ldinstrument.integrations.flask import instrument

    app = flask.Flask("shop")
    instrument(app, context=lambda request: "u-1")
    app.get("/shop")(lambda: "done")
    for header in (HEADER, "session.id=%0d%0a<script>", "nothing"):
        app.test_client().get("/shop", headers={"baggage": header}, buffered=True)
    ids = [event.data["sessionId"] for event in ld_events.of("request.duration")]
    assert ids[0] == "visit-7"
    assert all(re.fullmatch("[0-9a-f-]+", id) for id in ids[1:])


DJANGO = """
import asyncio, sys, django
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

streamed, header = sys.argv[1] == "streamed", sys.argv[2]
OURS = "ldinstrument.integrations.django.SessionMiddleware"
settings.configure(
    ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"], MIDDLEWARE=[OURS],
    LDINSTRUMENT={"context": lambda request: "u-1"},
)
django.setup()
urlpatterns = [
    path("shop", lambda request: StreamingHttpResponse(["done"]) if streamed else HttpResponse("done"))
]

from django.test import AsyncClient, Client
from ldinstrument.testing import recording

async def page():
    response = await AsyncClient().get("/shop", headers={"baggage": header})
    return [part async for part in response] if streamed else response.content

with recording() as events:
    response = Client().get("/shop", headers={"baggage": header})
    b"".join(response)
    response.close()
    asyncio.run(page())
print(sorted(event.data["sessionId"] for event in events.of("request.duration")))
"""


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_django(way: str) -> None:
    """The same under Django's middleware, sync and async, a whole response and a streamed one."""
    pytest.importorskip("django")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DJANGO, way, HEADER],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "['visit-7', 'visit-7']"


def test_lambda(ld_events: RecordingClient) -> None:
    """The same in AWS Lambda, where a handler in a handler is still one invocation."""

    @lambda_handler(context="u-1", client=ld_events)
    def handler(event: Any, lambda_context: Any) -> str:
        return inner(event, lambda_context)

    @lambda_handler(context="u-1", client=ld_events)
    def inner(event: Any, lambda_context: Any) -> str:
        return "done"

    assert handler({"headers": {"Baggage": HEADER}}, None) == "done"
    assert ld_events.only("invocation.duration").data["sessionId"] == "visit-7"


def test_celery(ld_events: RecordingClient) -> None:
    """The same in a Celery task, with the header that OpenTelemetry's instrumentor sends."""
    celery = pytest.importorskip("celery")
    from ldinstrument.integrations.celery import instrument

    app = celery.Celery("eager", broker="memory://")
    app.conf.task_always_eager = True
    instrument(app, context="u-1")

    @app.task  # type: ignore[untyped-decorator]
    def work() -> None:
        pass

    work.apply_async(headers={"baggage": HEADER})
    assert ld_events.only("job.duration").data["sessionId"] == "visit-7"
