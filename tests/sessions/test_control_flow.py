"""Exceptions of real frameworks that are control flow, and those of clients, which are not."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.errors import DefinitionError
from ldinstrument.sessions.outcomes import Outcome, outcome_of
from ldinstrument.testing import RecordingClient

SUCCESS, FAILURE, CANCELLED, SUSPENDED = (
    Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED, Outcome.SUSPENDED,
)  # fmt: skip
Make = Callable[[Any], Any]

REAL: list[tuple[str, Make, Outcome]] = [
    ("aiohttp.web", lambda m: m.HTTPFound("/home"), SUCCESS),
    ("aiohttp.web", lambda m: m.HTTPNotFound(), SUCCESS),
    ("aiohttp.web", lambda m: m.HTTPServiceUnavailable(), FAILURE),
    ("starlette.exceptions", lambda m: m.HTTPException(404), SUCCESS),
    ("starlette.exceptions", lambda m: m.HTTPException(500), FAILURE),
    ("fastapi", lambda m: m.HTTPException(403), SUCCESS),
    ("starlette.websockets", lambda m: m.WebSocketDisconnect(1000), SUCCESS),
    ("starlette.websockets", lambda m: m.WebSocketDisconnect(1001), SUCCESS),
    ("starlette.websockets", lambda m: m.WebSocketDisconnect(1006), CANCELLED),
    ("starlette.exceptions", lambda m: m.WebSocketException(1008), SUCCESS),
    ("starlette.exceptions", lambda m: m.WebSocketException(1011), FAILURE),
    ("starlette.requests", lambda m: m.ClientDisconnect(), CANCELLED),
    ("fastapi.exceptions", lambda m: m.RequestValidationError([]), SUCCESS),
    ("fastapi.exceptions", lambda m: m.WebSocketRequestValidationError([]), SUCCESS),
    ("fastapi.exceptions", lambda m: m.ResponseValidationError([]), FAILURE),
    ("werkzeug.exceptions", lambda m: m.NotFound(), SUCCESS),
    ("werkzeug.exceptions", lambda m: m.BadGateway(), FAILURE),
    ("werkzeug.exceptions", lambda m: m.ClientDisconnected(), CANCELLED),
    ("werkzeug.routing", lambda m: m.RequestRedirect("/there"), SUCCESS),
    ("django.http", lambda m: m.Http404(), SUCCESS),
    ("django.core.exceptions", lambda m: m.PermissionDenied(), SUCCESS),
    ("django.core.exceptions", lambda m: m.DisallowedHost(), SUCCESS),
    ("django.core.exceptions", lambda m: m.RequestAborted(), CANCELLED),
    ("django.core.exceptions", lambda m: m.ImproperlyConfigured(), FAILURE),
    ("litestar.exceptions", lambda m: m.NotAuthorizedException(), SUCCESS),
    ("litestar.exceptions", lambda m: m.InternalServerException(), FAILURE),
    ("litestar.exceptions", lambda m: m.WebSocketDisconnect(detail="", code=1001), SUCCESS),
    ("tornado.web", lambda m: m.HTTPError(404), SUCCESS),
    ("tornado.web", lambda m: m.Finish(), SUCCESS),
    ("tornado.httpclient", lambda m: m.HTTPClientError(404), FAILURE),
    ("click.exceptions", lambda m: m.Exit(0), SUCCESS),
    ("click.exceptions", lambda m: m.Exit(3), FAILURE),
    ("click.exceptions", lambda m: m.Abort(), CANCELLED),
    ("click.exceptions", lambda m: m.UsageError("no"), FAILURE),
    ("typer", lambda m: m.Exit(), SUCCESS),
    ("typer", lambda m: m.Exit(code=2), FAILURE),
    ("typer", lambda m: m.Abort(), CANCELLED),
    ("gevent", lambda m: m.GreenletExit(), CANCELLED),
    ("gevent", lambda m: m.Timeout(1), FAILURE),
    ("aiohttp.web", lambda m: m.GracefulExit(), CANCELLED),
    ("uvicorn.protocols.utils", lambda m: m.ClientDisconnected(), CANCELLED),
    ("tornado.websocket", lambda m: m.WebSocketClosedError(), CANCELLED),
    ("django.http", lambda m: m.UnreadablePostError(), CANCELLED),
    ("litestar.exceptions", lambda m: m.WebSocketException(detail="", code=1008), SUCCESS),
    ("litestar.exceptions", lambda m: m.WebSocketException(detail="", code=1011), FAILURE),
    ("mcp.shared.exceptions", lambda m: m.UrlElicitationRequiredError([]), SUSPENDED),
    ("rq.exceptions", lambda m: m.StopRequested(), CANCELLED),
    ("pydantic_ai.exceptions", lambda m: m.SkipToolExecution(1), SUCCESS),
    ("celery.exceptions", lambda m: m.Retry(), SUSPENDED),
    ("celery.exceptions", lambda m: m.Ignore(), SUSPENDED),
    ("celery.exceptions", lambda m: m.Reject(), SUSPENDED),
    ("celery.exceptions", lambda m: m.SoftTimeLimitExceeded(), FAILURE),
    ("langgraph.errors", lambda m: m.GraphInterrupt(), SUSPENDED),
    ("langgraph.errors", lambda m: m.GraphRecursionError(), FAILURE),
    ("websockets.exceptions", lambda m: m.ConnectionClosedOK(None, None), SUCCESS),
    ("websockets.exceptions", lambda m: m.ConnectionClosedError(None, None), FAILURE),
    ("simple_websocket", lambda m: m.ConnectionClosed(1000, "bye"), SUCCESS),
    ("simple_websocket", lambda m: m.ConnectionClosed(1006, "lost"), CANCELLED),
    # what another server answered is a failure of whoever asked
    ("requests", lambda m: m.HTTPError("404"), FAILURE),
    ("httpx", lambda m: m.HTTPStatusError("404", request=None, response=m.Response(404)), FAILURE),
    ("aiohttp", lambda m: m.ClientResponseError(None, (), status=404), FAILURE),
    ("urllib.error", lambda m: m.HTTPError("u", 404, "no", None, None), FAILURE),
]


@pytest.mark.parametrize(
    ("module", "make", "outcome"), REAL, ids=lambda value: value if isinstance(value, str) else ""
)
def test_real_exceptions(module: str, make: Make, outcome: Outcome) -> None:
    """By their own classes, as the packages raise them."""
    pytest.importorskip(module.partition(".")[0])
    assert outcome_of(make(importlib.import_module(module))) is outcome


def test_aborting_with_a_response() -> None:
    """`flask.abort(response)` has no code of its own, but its response has."""
    werkzeug = pytest.importorskip("werkzeug")
    for status, outcome in ((404, SUCCESS), (503, FAILURE)):
        with pytest.raises(Exception) as aborted:
            werkzeug.exceptions.abort(werkzeug.Response(status=status))
        assert outcome_of(aborted.value) is outcome


def _class(module: str, name: str, *bases: type, **members: Any) -> type:
    return type(name, bases or (Exception,), {"__module__": module, **members})


@pytest.mark.parametrize(
    ("module", "name", "members", "outcome"),
    [
        ("streamlit.runtime.scriptrunner_utils.exceptions", "RerunException", {}, SUSPENDED),
        ("streamlit.runtime.scriptrunner_utils.exceptions", "StopException", {}, SUSPENDED),
        ("dramatiq.errors", "Retry", {}, SUSPENDED),
        ("huey.exceptions", "RetryTask", {}, SUSPENDED),
        ("arq.worker", "Retry", {}, SUSPENDED),
        ("airflow.exceptions", "TaskDeferred", {}, SUSPENDED),
        ("pydantic_ai.exceptions", "CallDeferred", {}, SUSPENDED),
        ("channels.exceptions", "StopConsumer", {}, SUCCESS),
        ("cherrypy._cperror", "HTTPRedirect", {"status": 303}, SUCCESS),
        ("blacksheep.exceptions", "HTTPException", {"status": 404}, SUCCESS),
        ("blacksheep.exceptions", "HTTPException", {"status": 503}, FAILURE),
        (
            "aws_lambda_powertools.event_handler.exceptions",
            "ServiceError",
            {"status_code": 404},
            SUCCESS,
        ),
        ("microdot.microdot", "HTTPException", {"status_code": 500}, FAILURE),
        ("invoke.exceptions", "Exit", {"code": 0}, SUCCESS),
        ("invoke.exceptions", "Exit", {"code": 2}, FAILURE),
        ("faststream.exceptions", "NackMessage", {}, SUSPENDED),
        ("faststream.exceptions", "AckMessage", {}, SUCCESS),
        ("procrastinate.exceptions", "JobAborted", {}, CANCELLED),
        ("taskiq.exceptions", "NoResultError", {}, SUSPENDED),
        ("workflows.runtime.types.results", "WaitingForEvent", {}, SUSPENDED),
        ("scrapy.exceptions", "DropItem", {}, SUCCESS),
        ("socketio.exceptions", "ConnectionRefusedError", {}, SUCCESS),
        ("rest_framework.exceptions", "APIException", {"status_code": 404}, SUCCESS),
        ("rest_framework.exceptions", "APIException", {"status_code": 500}, FAILURE),
        ("falcon.errors", "HTTPError", {"status": "404 Not Found"}, SUCCESS),
        ("falcon.errors", "HTTPError", {"status": "503 Unavailable"}, FAILURE),
        ("falcon.errors", "WebSocketDisconnected", {"code": 1000}, SUCCESS),
        ("falcon.errors", "WebSocketDisconnected", {"code": 1006}, CANCELLED),
        ("ninja.errors", "ValidationError", {}, SUCCESS),
        ("sanic.exceptions", "SanicException", {"status_code": 405}, SUCCESS),
        ("bottle", "HTTPResponse", {"status_code": 303}, SUCCESS),
        ("pyramid.httpexceptions", "HTTPException", {"status_int": 302}, SUCCESS),
        ("pyramid.httpexceptions", "HTTPException", {"status_int": None}, FAILURE),
        ("myapp.errors", "Retry", {}, FAILURE),
        ("myapp.errors", "HTTPException", {"status_code": 404}, FAILURE),
    ],
)
def test_frameworks_that_are_not_installed_here(
    module: str, name: str, members: dict[str, Any], outcome: Outcome
) -> None:
    """By top-level module and name; one of the program's own is no control flow."""
    kind = _class(module, name, **members)
    assert outcome_of(kind()) is outcome
    assert outcome_of(_class("myapp", "Mine", kind)()) is outcome


@pytest.mark.parametrize(
    ("module", "name", "outcome"),
    [
        ("inngest._internal.step_lib.base", "ResponseInterrupt", SUSPENDED),
        ("temporalio.activity", "_CompleteAsyncError", SUSPENDED),
        ("marimo._runtime.control_flow", "MarimoStopError", SUSPENDED),
        ("dramatiq.middleware.time_limit", "TimeLimitExceeded", FAILURE),
        ("pyo3_runtime", "PanicException", FAILURE),
        ("dramatiq_abort.middleware", "Abort", CANCELLED),
        ("dbos._error", "DBOSWorkflowCancelledError", CANCELLED),
        ("myapp.signals", "StopNow", CANCELLED),
    ],
)
def test_what_is_no_exception_stops_a_run(module: str, name: str, outcome: Outcome) -> None:
    """A `BaseException` of its own passes `except Exception`, which is what it is for; it is no
    failure, unless the table says so.
    """
    assert outcome_of(_class(module, name, BaseException)()) is outcome


def test_a_status_that_raises_is_a_failure() -> None:
    """A property of the host's may raise anything; nothing comes out of us."""

    def broken(self: Any) -> int:
        raise RuntimeError("no status")

    kind = _class("starlette.exceptions", "HTTPException", status_code=property(broken))
    assert outcome_of(kind()) is FAILURE


def test_users_add_theirs() -> None:
    """A class and its subclasses; the nearest one counts; tasks, sessions and groups see it."""

    class Pause(Exception): ...

    class Stop(Pause): ...

    class Other(Pause): ...

    ld.outcome_of_exception(Pause, ld.Outcome.SUSPENDED)
    ld.outcome_of_exception(Stop, ld.Outcome.SUCCESS)
    assert [outcome_of(kind()) for kind in (Pause, Other, Stop)] == [SUSPENDED, SUSPENDED, SUCCESS]
    assert outcome_of(Pause(), (Pause,)) is SUCCESS


@pytest.mark.parametrize(
    ("kind", "outcome"), [("Pause", Outcome.SUCCESS), (3, Outcome.SUCCESS), (KeyError, "no")]
)
def test_bad_additions_are_refused(kind: Any, outcome: Any) -> None:
    """Where they are written."""
    with pytest.raises(DefinitionError, match="outcome_of_exception: give an"):
        ld.outcome_of_exception(kind, outcome)


def test_a_suspended_run_is_in_no_metric(ld_events: RecordingClient) -> None:
    """It is counted in the ledger; the run that goes on is the one that counts."""

    class Pause(Exception): ...

    ld.outcome_of_exception(Pause, ld.Outcome.SUSPENDED)
    paused = [True]

    @ld.track_interaction("ask")
    def ask() -> str:
        if paused.pop() if paused else False:
            raise Pause
        return "yes"

    with ld.session("u") as s:
        with pytest.raises(Pause):
            ask()
        assert ask() == "yes"
        assert tuple(s.summary().tasks["ask"])[:4] == (1, 0, 0, 0)
    assert ld_events.values("ask.success_rate") == [1.0]
    assert ld_events.values("ask.unfinished") == [0.0]
    assert ld_events.only("session.interactions").value == 1
    with pytest.raises(Pause):
        paused.append(True)
        ask()
    assert dict(ld.stats().suspended) == {"ask": 2}


def test_a_session_that_is_left_by_a_pause(ld_events: RecordingClient) -> None:
    """It goes on elsewhere: no duration, no rate."""
    kind = _class("streamlit.runtime", "RerunException")
    with pytest.raises(kind, match="pause"), ld.session("u") as s:
        s.interaction(True)
        raise kind("pause")
    assert ld_events.of("session.duration") == []
    assert ld_events.of("session.success_rate") == []
    assert ld_events.only("session.interactions").data["endReason"] == "abandoned"
