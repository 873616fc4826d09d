"""What is WSGI's own: late `start_response`, files, lengths, bodies that nobody closes, and whose
session it is not.
"""

from __future__ import annotations

import gc
import io
import logging
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

import ldinstrument as ld
from ldinstrument import stores, testing
from ldinstrument.errors import DefinitionError
from ldinstrument.integrations.request_session import REQUEST
from ldinstrument.integrations.wsgi import SessionMiddleware, end_session
from ldinstrument.sessions import emission, registry


@pytest.fixture
def events() -> Iterator[testing.RecordingClient]:
    with testing.recording() as recorder:
        yield recorder


def call(
    app: Any, *, read: bool = True, close: bool = True, **environ: Any
) -> tuple[Any, list[str]]:
    """Do what a server does."""
    statuses: list[str] = []
    setup_testing_defaults(environ)
    body = SessionMiddleware(app, context="ada")(
        environ, lambda status, headers, *rest: statuses.append(status)
    )
    try:
        if read:
            list(body)
    finally:
        if close:
            body.close()  # type: ignore[attr-defined]
    return body, statuses


def plain(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    ld.track_conversion(1.0)
    return [b"body"]


def test_nobodys_session_leaks_in_or_out(events: testing.RecordingClient) -> None:
    """A session that is current on the server's thread is neither used nor lost, for a health check
    neither.
    """
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(ld.current_session())
        return plain(environ, start_response)

    with ld.session("foreign") as foreign:
        call(app)
        call(app, PATH_INFO="/healthz")
        assert ld.current_session() is foreign

    assert foreign not in seen
    assert seen[1] is None
    assert ld.current_session() is None
    assert events.only("request.interactions").context.key == "ada"


def test_a_session_left_open_by_the_view_does_not_outlive_the_request(
    events: testing.RecordingClient,
) -> None:
    """A `with` block that was entered and never left is current in the body, and gone
    afterwards.
    """
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        forgotten = ld.session("ada", name="forgotten")
        forgotten.__enter__()
        yield b"1"
        found = ld.current_session()
        seen.append(found.name if found is not None else None)
        yield b"2"

    call(app)
    assert seen == ["forgotten"]
    assert ld.current_session() is None
    registry.end_open_sessions()


def test_an_application_may_start_its_response_late(events: testing.RecordingClient) -> None:
    """A generator runs at its first step only; the status is known then."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        ld.track_conversion(2.0)
        start_response("503 Service Unavailable", [])
        yield b"late"

    call(app)

    done = events.only("request.interactions")
    assert (done.data["status"], done.data["failures"]) == (503, 1)
    assert events.only("business.conversion").context.key == "ada"


def test_a_second_start_of_the_response_holds(events: testing.RecordingClient) -> None:
    """How error middlewares turn a begun 200 into a 500."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError as error:
            start_response("500 Internal Server Error", [], (ValueError, error, None))
        return [b""]

    call(app)
    data = events.only("request.interactions").data
    assert (data["status"], data["failures"]) == (500, 1)


def test_a_file_stays_a_file(events: testing.RecordingClient) -> None:
    """Servers send a file wrapper by `sendfile`, and look for the very class; the session ends with
    its `close`.
    """
    file = io.BytesIO(b"content")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file)

    body, _ = call(app, read=False, **{"wsgi.file_wrapper": FileWrapper})

    assert type(body) is FileWrapper
    assert file.closed
    assert events.only("request.interactions").data["successes"] == 1


@pytest.mark.parametrize("make", [list, tuple, lambda chunks: Chunks(chunks)])
def test_a_ready_body_may_be_iterated_more_than_once(
    events: testing.RecordingClient, make: Any
) -> None:
    """As eventlet's server does, which first adds up the lengths; the last time counts."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return make([b"ab", b"cde"])

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body: Any = SessionMiddleware(app, context="ada")(environ, lambda *arguments: None)
    assert sum(map(len, body)) == 5
    chunks = iter(body)
    assert next(chunks) == b"ab"
    assert ld.current_session() is None
    assert len(events) == 0
    body.close()  # the client has left before the last chunk

    assert events.only("request.interactions").data["abandoned"] == 1


class Chunks:
    """A sized body of a program's own."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            assert ld.current_session() is not None
            yield chunk


def test_a_sized_body_that_breaks_is_a_failure(events: testing.RecordingClient) -> None:
    """It may be code of the program's own, and its exception is the server's."""

    class Broken(Chunks):
        def __iter__(self) -> Iterator[bytes]:
            yield b"1"
            raise ValueError("broken on purpose")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Broken([b"1", b"2"])

    with pytest.raises(ValueError, match="broken on purpose"):
        call(app)

    assert events.only("request.interactions").data["endReason"] == "error"


def upgrade(app: Any, **options: Any) -> None:
    """Do what a server does with a websocket's handshake."""
    environ: dict[str, Any] = {"HTTP_UPGRADE": "WebSocket", "HTTP_CONNECTION": "Upgrade"}
    setup_testing_defaults(environ)
    body: Any = SessionMiddleware(app, context="ada", **options)(environ, lambda *arguments: None)
    list(body)
    body.close()


def test_a_websocket_that_hands_over_its_socket_is_no_failed_request(
    events: testing.RecordingClient,
) -> None:
    """The application raises StopIteration for gunicorn, and has no response to give."""

    def app(environ: Any, start_response: Any) -> Any:
        ld.track_conversion(1.0)
        raise StopIteration

    with pytest.raises(StopIteration):
        upgrade(app)

    done = events.only("websocket.interactions").data
    assert (done["successes"], done["method"], done["endReason"]) == (1, "WEBSOCKET", "ended")
    assert events.only("business.conversion").context.key == "ada"
    assert events.of("request.duration") == []


def test_a_websocket_that_breaks_is_a_failure(events: testing.RecordingClient) -> None:
    """And an ordinary StopIteration out of an ordinary request is one, too."""

    def breaks(environ: Any, start_response: Any) -> Any:
        raise ValueError("broken on purpose")

    def stops(environ: Any, start_response: Any) -> Any:
        raise StopIteration

    with pytest.raises(ValueError, match="broken on purpose"):
        upgrade(breaks)
    with pytest.raises(StopIteration):
        call(stops)

    assert events.only("websocket.interactions").data["failures"] == 1
    assert events.only("request.interactions").data["failures"] == 1


def test_websockets_may_be_called_otherwise_or_left_alone(
    events: testing.RecordingClient,
) -> None:
    """`websocket=None` makes no session for them; another name prefixes their metrics."""
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(ld.current_session())
        return []

    upgrade(app, websocket=None)
    upgrade(app, websocket="chat")

    assert seen[0] is None
    assert events.only("chat.interactions").data["successes"] == 1
    assert events.keys() == ["chat.duration", "chat.interactions", "chat.success_rate"]


def test_an_option_that_does_not_exist_is_refused_where_it_is_written() -> None:
    """With those that do."""
    with pytest.raises(DefinitionError, match=r"unknown contxt, nmae; the options are .*ignore"):
        SessionMiddleware(plain, nmae="shop", contxt="ada")  # type: ignore[call-arg]


def test_a_ready_body_keeps_its_length(events: testing.RecordingClient) -> None:
    """Servers look at it for the Content-Length."""
    body, _ = call(plain)
    assert len(body) == 1


@pytest.mark.parametrize("environ", [{"REQUEST_METHOD": "HEAD"}, {"STATUS": "204 No Content"}])
def test_a_response_without_a_body_is_complete_unread(
    events: testing.RecordingClient, environ: Any
) -> None:
    """A server need not read what it does not send."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(environ.get("STATUS", "200 OK"), [])
        return [b"ignored"]

    call(app, read=False, **environ)
    assert events.only("request.interactions").data["successes"] == 1


def test_a_body_closed_early_is_abandoned(events: testing.RecordingClient) -> None:
    """Read to the middle, or not at all: the client has left."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield from (b"1", b"2")

    call(app, read=False)
    done = events.only("request.interactions")
    assert (done.data["abandoned"], done.data["endReason"]) == (1, "abandoned")


def test_work_in_close_belongs_to_the_session(events: testing.RecordingClient) -> None:
    """Frameworks hang clean-up and late work there."""

    class Closing(list[bytes]):
        def close(self) -> None:
            ld.track_conversion(5.0)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Closing([b"1"])

    call(app)
    assert events.only("business.conversion").context.key == "ada"


def streaming(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"body"


@pytest.mark.parametrize("app", [plain, streaming])
def test_a_body_that_nobody_closes_ends_when_it_is_dropped(
    events: testing.RecordingClient, app: Any
) -> None:
    """Test clients do that; what was read to its end is a success all the same."""
    call(app, close=False)
    gc.collect()
    emission.settle()

    assert events.only("request.interactions").data["successes"] == 1
    assert registry.open_sessions() == []


def test_a_stream_that_is_dropped_unread_is_abandoned(events: testing.RecordingClient) -> None:
    """As if the client had left."""
    call(streaming, read=False, close=False)
    gc.collect()
    emission.settle()

    assert events.only("request.interactions").data["abandoned"] == 1
    assert registry.open_sessions() == []


def test_the_inner_of_two_middlewares_leaves_the_request_alone(
    events: testing.RecordingClient,
) -> None:
    """One request, one session, however often it is wrapped."""
    call(SessionMiddleware(plain, context="other"))

    assert events.only("request.interactions").context.key == "ada"


def test_a_failing_context_function_costs_the_context_only(
    events: testing.RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked twice, and complained about once; the response is served."""
    asked: list[Any] = []

    def context(environ: Any) -> str:
        asked.append(environ)
        raise KeyError("user")

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        body = SessionMiddleware(plain, context=context)(environ, lambda *_: None)
        assert list(body) == [b"body"]
        body.close()  # type: ignore[attr-defined]

    assert len(asked) == 2
    assert "context= of a request" in caplog.text
    assert events.events == []


def test_a_context_that_is_known_only_afterwards_is_in_time(
    events: testing.RecordingClient,
) -> None:
    """The application fills the environ; the second question finds it."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["REMOTE_USER"] = "late"
        return plain(environ, start_response)

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body = SessionMiddleware(app, context=lambda environ: environ["REMOTE_USER"])(
        environ, lambda *_: None
    )
    list(body)
    body.close()  # type: ignore[attr-defined]

    assert events.only("business.conversion").context.key == "late"


@pytest.mark.parametrize("raises", [True, False])
def test_the_last_question_is_asked_at_the_very_end(
    events: testing.RecordingClient, raises: bool
) -> None:
    """Also of a generator that logs in at its first step, and of an application that raises."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ["REMOTE_USER"] = "late"
        if raises:
            raise ValueError
        return steps(environ, start_response)

    def steps(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        environ["REMOTE_USER"] = "later"
        yield b""

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    middleware = SessionMiddleware(app, context=lambda environ: environ["REMOTE_USER"])
    if raises:
        with pytest.raises(ValueError):
            middleware(environ, lambda *_: None)
    else:
        body = middleware(environ, lambda *_: None)
        list(body)
        body.close()  # type: ignore[attr-defined]

    assert ("late" if raises else "later") == events.only("request.interactions").context.key


def test_disabled_means_inert(
    events: testing.RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are served, and nothing else happens."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    assert call(plain)[1] == ["200 OK"]
    assert events.events == []


def test_the_duration_ends_with_the_last_byte(events: testing.RecordingClient) -> None:
    """What `close` does, and how long the server takes to call it, is not what the user waited
    for.
    """
    import time

    class Closing(list[bytes]):
        def close(self) -> None:
            time.sleep(0.2)
            ld.track_conversion(5.0)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Closing([b"1"])

    began = time.perf_counter()
    call(app)
    whole = (time.perf_counter() - began) * 1000
    duration = events.only("request.duration").value
    assert duration is not None
    assert duration <= whole - 200


@pytest.mark.parametrize("chunks", [[], [b"bye"], [b"see", b" ", b"you"]], ids=len)
def test_a_logout_is_in_the_store_before_its_last_byte_is_out(chunks: list[bytes]) -> None:
    """What the client asks for when it has read it belongs to the next visit, whoever is faster."""
    seen: list[tuple[bytes, int]] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        assert end_session()
        yield from chunks

    with stores.open_store("memory:", client=testing.RecordingClient(), sweep=False) as store:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        wrapped = SessionMiddleware(app, context="ada", store=store, cookie=False)
        body: Any = wrapped(environ, lambda *arguments: None)
        seen.extend((chunk, store.holdings().ended) for chunk in body)
        ended = store.holdings().ended
        body.close()

        assert [chunk for chunk, _ in seen] == chunks
        assert [count for _, count in seen] == [*[0] * (len(chunks) - 1), *[1] * bool(chunks)]
        assert (ended, store.holdings().ended, store.holdings().open) == (1, 1, 0)


@pytest.mark.parametrize(("scheme", "secure"), [("https", True), ("http", False)])
def test_over_tls_the_cookie_is_secure_and_a_shared_page_has_none(
    scheme: str, secure: bool
) -> None:
    """As the server says, which has asked its proxy."""
    answers: list[dict[str, str]] = []
    with stores.open_store("memory:", sweep=False) as store, testing.recording():
        for cacheable in ("private", "public, max-age=9"):

            def app(environ: Any, start_response: Any, told: str = cacheable) -> list[bytes]:
                start_response("200 OK", [("Cache-Control", told)])
                return [b""]

            environ: dict[str, Any] = {"wsgi.url_scheme": scheme}
            setup_testing_defaults(environ)
            wrapped = SessionMiddleware(
                app, context="ada", store=store, secret="s", header="X-Visitor"
            )
            body: Any = wrapped(
                environ, lambda status, headers, *rest: answers.append(dict(headers))
            )
            assert list(body) == [b""]
            body.close()

    private, public = answers
    assert ("; Secure" in private["Set-Cookie"]) is secure
    assert private["X-Visitor"]
    assert list(public) == ["Cache-Control"]


def test_a_body_that_outlives_its_program_goes_without_a_word() -> None:
    """Nobody closed the response, and the interpreter is taking itself apart."""
    program = """
import builtins
from ldinstrument.errors import DefinitionError
from ldinstrument.integrations.wsgi import SessionMiddleware, end_session
def app(environ, start):
    start("200 OK", [])
    return [b"ok"]
middleware = SessionMiddleware(app, context="ada")
builtins.kept = middleware({"REQUEST_METHOD": "GET"}, lambda *arguments: None)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("options", [{}, {"request_metrics": True}])
def test_nothing_of_a_request_outlives_it(
    options: Any, events: testing.RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its session, nor what is kept beside that for a visit and for request metrics: the
    last reference is the server's, and no garbage collector is needed.
    """
    monkeypatch.setenv("LDINSTRUMENT_SECRET", "only for tests")
    found: list[weakref.ref[Any]] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        session = ld.current_session()
        found.extend(weakref.ref(thing) for thing in (session, environ[REQUEST]))
        return plain(environ, start_response)

    with stores.open_store("memory:", client=events, sweep=False) as store:
        # Whose it is remains open to the end: the middleware has to ask again.
        app = SessionMiddleware(application, context=lambda environ: None, store=store, **options)
        gc.disable()
        try:
            environ: dict[str, Any] = {}
            setup_testing_defaults(environ)
            body: Any = app(environ, lambda *_: None)
            list(body)
            body.close()
            del environ, body
            left = [thing() for thing in found]
        finally:
            gc.enable()

    assert left == [None, None]
