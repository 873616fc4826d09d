"""Responses of web frameworks: the task lasts until the body ends, in the frameworks' own hands."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from heard import Heard

import ldinstrument as ld
from ldinstrument.callables.responses import RESPONSES

PAUSE = 0.02
BOTH = pytest.mark.parametrize("kind", ["task", "session"])


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


# -- Starlette and FastAPI -------------------------------------------------------------------------


def _starlette_client(endpoint: Callable[..., Any]) -> Any:
    pytest.importorskip("httpx")
    applications = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")
    testclient = pytest.importorskip("starlette.testclient")
    app = applications.Starlette(routes=[routing.Route("/", endpoint)])
    return testclient.TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize("body", ["async", "sync"])
@pytest.mark.parametrize("endpoint", ["async", "sync"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_starlette_streaming_response(body: str, endpoint: str) -> None:
    """Timed to the last chunk, failed by a body that breaks, whatever makes the response."""
    responses = pytest.importorskip("starlette.responses")
    failing = [False]

    def chunks() -> Iterator[bytes]:
        for _ in range(2):
            time.sleep(PAUSE)
            yield b"x"
        if failing[0]:
            raise OSError("broken body")

    async def achunks() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    @ld.track_task("k")
    async def aview(request: Any) -> Any:
        return responses.StreamingResponse(achunks() if body == "async" else chunks())

    @ld.track_task("sync")
    def view(request: Any) -> Any:
        return responses.StreamingResponse(achunks() if body == "async" else chunks())

    key = "k" if endpoint == "async" else "sync"
    with ld.session("u") as s:
        client = _starlette_client(_in(s, aview if endpoint == "async" else view))
        assert client.get("/").content == b"xx"
        assert counts(s, key) == (1, 0, 0, 0)
        assert s.summary().tasks[key].duration_ms >= PAUSE * 2000 * 0.9
        failing[0] = True
        client.get("/")
        assert counts(s, key) == (1, 1, 0, 0)


def _in(session: ld.Session, view: Callable[..., Any]) -> Callable[..., Any]:
    """*view*, run inside *session* in whatever thread or task the test client runs it."""
    import inspect

    from ldinstrument.sessions.current import entered

    if inspect.iscoroutinefunction(view):

        async def endpoint(request: Any) -> Any:
            with entered(session):
                return await view(request)

        return endpoint

    def sync_endpoint(request: Any) -> Any:
        with entered(session):
            return view(request)

    return sync_endpoint


def test_a_response_of_another_library_with_a_body_iterator() -> None:
    """Server-sent events have a response class of their own, with Starlette's kind of body."""
    responses = pytest.importorskip("starlette.responses")

    class Events(responses.Response):
        def __init__(self, body: Any) -> None:
            self.body_iterator = body

    async def chunks() -> AsyncIterator[bytes]:
        yield b"data: 1"

    @ld.track_task("k")
    async def view() -> Any:
        return Events(chunks())

    @ld.track_task("plain")
    async def plain() -> Any:
        return responses.PlainTextResponse("x")

    async def main() -> None:
        with ld.session("u") as s:
            response = await view()
            assert counts(s) == (0, 0, 0, 0)
            assert [chunk async for chunk in response.body_iterator] == [b"data: 1"]
            assert (await plain()).body == b"x"
            assert (counts(s), counts(s, "plain")) == ((1, 0, 0, 0), (1, 0, 0, 0))

    asyncio.run(main())


def test_an_iterator_of_another_library_is_closed_early() -> None:
    """A body that is no generator of Python's has an `aclose` of its own: the client that left sets
    it free.
    """
    responses = pytest.importorskip("starlette.responses")

    class Rows:
        closed = False

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            return b"x"

        async def aclose(self) -> None:
            self.closed = True

    rows = Rows()

    @ld.track_task("k")
    def view() -> Any:
        return responses.StreamingResponse(rows)

    async def leaving() -> None:
        body = view().body_iterator
        assert await anext(body) == b"x"
        await body.aclose()

    with ld.session("u") as s:
        asyncio.run(leaving())
        assert (rows.closed, counts(s)) == (True, (0, 0, 0, 1))


def test_a_starlette_endpoint_object_stays_async() -> None:
    """Starlette asks `__call__` whether it is a coroutine function; a decorated object must say
    so.
    """
    responses = pytest.importorskip("starlette.responses")

    class Endpoint:
        async def __call__(self, request: Any) -> Any:
            return responses.PlainTextResponse("hello")

    decorated = ld.track_task("k")(Endpoint())

    async def main() -> None:
        with ld.session("u") as s:
            response = await decorated(None)
            assert response.body == b"hello"
            assert counts(s) == (1, 0, 0, 0)

    asyncio.run(main())
    from starlette._utils import is_async_callable

    assert is_async_callable(decorated)


def test_fastapi_reads_annotations_through_the_decorator() -> None:
    """With `from __future__ import annotations` they are text, looked up in the globals of the
    decorated function.
    """
    fastapi = pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    app = fastapi.FastAPI()

    @app.get("/{number}")
    @ld.track_task("k")
    async def view(number: int, factor: int = 2) -> dict[str, int]:
        return {"result": number * factor}

    client = TestClient(app)
    assert client.get("/4?factor=3").json() == {"result": 12}
    assert client.get("/x").status_code == 422
    assert ld.stats().without_session == {"k": 1}


# -- Flask -----------------------------------------------------------------------------------------


@pytest.fixture(name="flask_app")
def _flask_app() -> Any:
    flask = pytest.importorskip("flask")
    return flask.Flask(__name__)


@pytest.mark.parametrize("wrapped", ["response", "generator", "tuple", "response tuple"])
def test_a_flask_streaming_body(flask_app: Any, wrapped: str) -> None:
    """A `Response` around a generator, or the bare generator: to the last chunk, and abandoned when
    the client goes.
    """
    import flask

    def chunks() -> Iterator[str]:
        for _ in range(2):
            time.sleep(PAUSE)
            yield "x"

    @flask_app.get("/")
    @ld.track_task("k")
    def view() -> Any:
        body = (
            flask.Response(flask.stream_with_context(chunks()))
            if "response" in wrapped
            else chunks()
        )
        return (body, 200, {"X-Kind": wrapped}) if "tuple" in wrapped else body

    with ld.session("u") as s:
        client = flask_app.test_client()
        assert client.get("/").data == b"xx"
        assert counts(s) == (1, 0, 0, 0)
        assert s.summary().tasks["k"].duration_ms >= PAUSE * 2000 * 0.9
        response = client.get("/", buffered=False)
        assert next(response.iter_encoded()) == b"x"
        response.close()
        assert counts(s) == (1, 0, 0, 1)


def test_other_tuples_are_values(flask_app: Any) -> None:
    """A ready body in a tuple, and a generator in a tuple outside a request, are what they are."""

    @flask_app.get("/")
    @ld.track_task("ready")
    def ready() -> Any:
        return "text", 201

    @ld.track_task("pair")
    def pair() -> tuple[Iterator[int], int]:
        return (number for number in range(2)), 3

    with ld.session("u") as s:
        response = flask_app.test_client().get("/")
        assert (response.data, response.status_code) == (b"text", 201)
        made = pair()
        assert (list(made[0]), made[1]) == ([0, 1], 3)
        assert (counts(s, "ready"), counts(s, "pair")) == ((1, 0, 0, 0), (1, 0, 0, 0))


def test_other_flask_responses_end_at_once(flask_app: Any, tmp_path: Path) -> None:
    """A ready response is a plain value; a file goes out as the server likes, and has ended,
    too.
    """
    import flask

    target = tmp_path / "file.txt"
    target.write_text("content")

    @flask_app.get("/ready")
    @ld.track_task("ready")
    def ready() -> Any:
        return flask.Response("text")

    @flask_app.get("/file")
    @ld.track_task("file")
    def send() -> Any:
        return flask.send_file(target)

    with ld.session("u") as s:
        client = flask_app.test_client()
        assert client.get("/ready").data == b"text"
        with client.get("/file") as response:
            assert response.data == b"content"
        assert (counts(s, "ready"), counts(s, "file")) == ((1, 0, 0, 0), (1, 0, 0, 0))


def test_a_body_nobody_reads_is_nothing(flask_app: Any) -> None:
    """HEAD closes the body without asking for a chunk: it never ran."""
    import flask

    @flask_app.get("/")
    @ld.track_task("k")
    def view() -> Any:
        return flask.Response(iter(["x"]))

    with ld.session("u") as s:
        flask_app.test_client().head("/").close()
        assert counts(s) == (0, 0, 0, 0)


# -- Django ----------------------------------------------------------------------------------------


@pytest.fixture(name="django")
def _django() -> Any:
    found = pytest.importorskip("django")
    from django.conf import empty, settings

    bare = not settings.configured
    if bare:
        settings.configure()
    yield found
    if bare:  # others configure more, in whatever order the tests run
        from django.db import connections

        settings._wrapped = empty
        vars(connections).pop("settings", None)
        connections.__init__()


def test_a_django_streaming_response(django: Any) -> None:
    """Sync and async bodies, to the last chunk; a breaking one fails, a closed one is abandoned."""
    from django.http import FileResponse, HttpResponse, StreamingHttpResponse

    failing = [False]

    def chunks() -> Iterator[bytes]:
        time.sleep(PAUSE)
        yield b"x"
        if failing[0]:
            raise OSError("broken body")
        yield b"y"

    async def achunks() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    @ld.track_task("k")
    def view(body: Any) -> Any:
        return StreamingHttpResponse(body)

    @ld.track_task("other")
    def other(response: Any) -> Any:
        return response

    async def reading() -> bytes:
        return b"".join([part async for part in view(achunks())])

    with ld.session("u") as s:
        response = view(chunks())
        assert b"".join(response) == b"xy"
        response.close()
        assert counts(s) == (1, 0, 0, 0)
        assert s.summary().tasks["k"].duration_ms >= PAUSE * 1000 * 0.9
        assert asyncio.run(reading()) == b"xy"
        assert counts(s) == (2, 0, 0, 0)
        response = view(chunks())
        assert next(iter(response)) == b"x"
        response.close()
        assert counts(s) == (2, 0, 0, 1)
        failing[0] = True
        with pytest.raises(OSError, match="broken body"):
            b"".join(view(chunks()))
        assert counts(s) == (2, 1, 0, 1)
        with Path(__file__).open("rb") as file:
            assert b"".join(other(FileResponse(file))).startswith(b'"""')
        assert other(HttpResponse("x")).content == b"x"
        assert counts(s, "other") == (2, 0, 0, 0)


# -- a session around the stream -------------------------------------------------------------------


def test_a_session_lasts_as_long_as_its_stream(ld_events: Any, flask_app: Any) -> None:
    """`@session` above a view: the body still runs inside, and the session ends with it."""
    import flask

    @ld.track_task("k")
    def piece() -> str:
        return "x"

    def chunks() -> Iterator[str]:
        for _ in range(2):
            yield piece()

    @flask_app.get("/")
    @ld.session(context=lambda: flask.request.args["user"])
    def view() -> Any:
        assert ld.current_session() is not None
        return flask.Response(chunks())

    assert flask_app.test_client().get("/?user=u-7").data == b"xx"
    assert ld.current_session() is None
    assert {event.context.key for event in ld_events} == {"u-7"}
    assert len(ld_events.of("k.duration")) == 2
    assert ld_events.only("session.duration").data["endReason"] == "ended"
    flask_app.test_client().head("/?user=u-8").close()
    assert len(ld_events.of("session.duration")) == 2
    assert ld.current_session() is None


async def chunks() -> AsyncGenerator[bytes, None]:
    for _ in range(4):
        await asyncio.sleep(0.01)
        yield b"x"


def sync_chunks() -> Iterator[bytes]:
    yield from [b"x"] * 4


@pytest.mark.parametrize("body", ["async", "sync", "function", "events"])
def test_litestar_streams(body: str) -> None:
    """To the last chunk, through the framework's own server code."""
    litestar, httpx = pytest.importorskip("litestar"), pytest.importorskip("httpx")
    from litestar.response import ServerSentEvent, Stream

    make: dict[str, Callable[[], Any]] = {
        "async": lambda: Stream(chunks()),
        "sync": lambda: Stream(sync_chunks()),
        "function": lambda: Stream(chunks),
        "events": lambda: ServerSentEvent(chunks()),
    }

    @litestar.get("/")
    @ld.track_task("k")
    async def view() -> Any:
        return make[body]()

    async def main() -> tuple[str, tuple[int, ...]]:
        transport = httpx.ASGITransport(litestar.Litestar([view]))
        with ld.session("u") as s:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return (await client.get("/")).text, counts(s)

    text, counted = asyncio.run(main())
    assert text.count("x") == 4
    assert counted == (1, 0, 0, 0)


@pytest.mark.parametrize("shape", ["tuple", "response", "generator"])
def test_quart_streams(shape: str) -> None:
    """In a tuple with status and headers, in a `Response`, and bare."""
    quart = pytest.importorskip("quart")
    app = quart.Quart("streams")

    @app.route("/")
    @ld.track_task("k")
    async def view() -> Any:
        if shape == "tuple":
            return chunks(), 200, {"X-A": "1"}
        return quart.Response(chunks()) if shape == "response" else chunks()

    async def main() -> tuple[str, tuple[int, ...]]:
        with ld.session("u") as s:
            response = await app.test_client().get("/")
            return await response.get_data(as_text=True), counts(s)

    assert asyncio.run(main()) == ("xxxx", (1, 0, 0, 0))


def webob_application(body: Callable[[], Any]) -> Any:
    """A view of WebOb, whose response Pyramid's is a subclass of."""
    webob = pytest.importorskip("webob")
    return pytest.importorskip("webob.dec").wsgify(
        ld.track_task("k")(lambda request: webob.Response(app_iter=body()))
    )


def bottle_application(body: Callable[[], Any]) -> Any:
    """A view of Bottle that answers with a response of its own."""
    bottle = pytest.importorskip("bottle")
    app = bottle.Bottle()
    app.route("/", callback=ld.track_task("k")(lambda: bottle.HTTPResponse(body(), 201)))
    return app.wsgi


@pytest.mark.parametrize("application", [webob_application, bottle_application])
def test_wsgi_responses_with_a_generator(application: Callable[..., Any]) -> None:
    """To the last chunk; a body that is left is abandoned, and one that is ready has ended."""
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    with ld.session("u") as s:
        body = application(sync_chunks)(environ, lambda *answer: None)
        items = iter(body)
        assert next(items) == b"x"
        assert counts(s) == (0, 0, 0, 0)
        assert list(items) == [b"x"] * 3
        assert counts(s) == (1, 0, 0, 0)

        body = application(sync_chunks)(environ, lambda *answer: None)
        next(iter(body))
        body.close()
        assert counts(s) == (1, 0, 0, 1)

        application(lambda: [b"ready"])(environ, lambda *answer: None)
        assert counts(s) == (2, 0, 0, 1)


# -- each follower by itself: what it hears, and when ----------------------------------------------


def watched(response: Any) -> tuple[Any, Heard]:
    """What the follower of the response's framework makes of it, and its watcher."""
    heard = Heard()
    for module, name, follower in RESPONSES:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(response, kind):
            return follower(response, heard), heard
    raise AssertionError(type(response))


def drained(body: Any) -> list[Any]:
    if not hasattr(body, "__aiter__"):
        return list(body)

    async def main() -> list[Any]:
        return [part async for part in body]

    return asyncio.run(main())


def test_a_streamed_body_is_heard_while_it_is_read(django: Any) -> None:
    """Nothing before; the response stays the object that it is."""
    import flask
    from litestar.response import Stream
    from starlette.responses import StreamingResponse

    http = pytest.importorskip("django.http")
    for response, body in (
        (StreamingResponse(chunks()), "body_iterator"),
        (flask.Response(sync_chunks()), "response"),
        (http.StreamingHttpResponse(sync_chunks()), "streaming_content"),
        (http.StreamingHttpResponse(chunks()), "streaming_content"),
        (Stream(chunks()), "iterator"),
        (Stream(sync_chunks()), "iterator"),
    ):
        same, heard = watched(response)
        assert same is response
        assert heard.all == []
        assert drained(getattr(response, body)) == [b"x"] * 4
        assert heard.ends == ["first", "returned None"], type(response)


def test_a_function_that_makes_the_body_is_asked_when_it_is_read() -> None:
    """Litestar takes one; what it makes is watched."""
    from litestar.response import Stream

    for make in (chunks, sync_chunks):
        response, heard = watched(Stream(make))
        assert heard.all == []
        assert drained(response.iterator()) == [b"x"] * 4
        assert heard.ends == ["first", "returned None"]


def test_a_ready_response_or_a_file_is_left_alone(django: Any, tmp_path: Path) -> None:
    """It has ended: nothing is heard, and a server may still recognise its file."""
    import flask
    import quart
    from starlette.responses import PlainTextResponse

    http = pytest.importorskip("django.http")
    target = tmp_path / "file.txt"
    target.write_text("content")
    with flask.Flask("files").test_request_context():
        sent = flask.send_file(target)
    file = http.FileResponse(target.open("rb"))
    for response in (
        PlainTextResponse("x"),
        flask.Response("x"),
        sent,
        file,
        quart.Response("x"),
    ):
        body = getattr(response, "response", None)
        assert watched(response)[0] is None, type(response)
        assert getattr(response, "response", None) is body
    sent.close()
    file.close()
