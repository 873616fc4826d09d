"""Exceptions that are control flow, by name: no framework is imported to ask.

Frameworks end a request, retry a job or pause for a human by raising. The table maps a class, by
its top-level module and name, to how the run ended; a subclass counts as its base. A class of HTTP
exceptions maps to the attribute that holds its status: a view that raises 404 answered, as a
request with that status did (below 500 it is a success).

An HTTP *client's* exceptions (requests, httpx, aiohttp's `ClientResponseError`) are not here: what
another server answered is a failure of whoever asked.
"""

from __future__ import annotations

from typing import Any

from ..diagnostics import raise_if_interrupted

SUCCESS, FAILURE, CANCELLED, SUSPENDED = "success", "failure", "cancelled", "suspended"
ORDERLY_CLOSE = (1000, 1001, 1005)
"""WebSocket close codes of an orderly end: normal, going away, and a close frame without a code."""
SERVER_ERRORS = (1011, 1012, 1013, 1014)
"""Close codes by which a server says that it failed."""

OUTCOMES_BY_NAME: dict[tuple[str, str], str] = {
    # the work was stopped from outside, or its consumer has gone
    ("asyncio", "CancelledError"): CANCELLED,
    ("concurrent", "CancelledError"): CANCELLED,
    ("trio", "Cancelled"): CANCELLED,
    ("anyio", "CancelledError"): CANCELLED,
    ("curio", "CancelledError"): CANCELLED,
    ("twisted", "CancelledError"): CANCELLED,
    ("temporalio", "CancelledError"): CANCELLED,
    ("greenlet", "GreenletExit"): CANCELLED,
    ("click", "Abort"): CANCELLED,
    ("typer", "Abort"): CANCELLED,
    ("bdb", "BdbQuit"): CANCELLED,
    ("starlette", "ClientDisconnect"): CANCELLED,
    ("django", "RequestAborted"): CANCELLED,
    ("werkzeug", "ClientDisconnected"): CANCELLED,
    ("celery", "TaskRevokedError"): CANCELLED,
    ("dramatiq", "Shutdown"): CANCELLED,
    ("huey", "CancelExecution"): CANCELLED,
    ("procrastinate", "JobAborted"): CANCELLED,
    ("pydantic_ai", "RunCancelled"): CANCELLED,
    ("rq", "ShutDownImminentException"): CANCELLED,
    ("rq", "StopRequested"): CANCELLED,
    ("workflows", "WorkflowCancelledByUser"): CANCELLED,
    ("aiohttp", "GracefulExit"): CANCELLED,
    ("asyncclick", "Abort"): CANCELLED,
    ("blacksheep", "MessageAborted"): CANCELLED,
    ("channels", "RequestAborted"): CANCELLED,
    ("django", "UnreadablePostError"): CANCELLED,
    ("tornado", "WebSocketClosedError"): CANCELLED,
    ("uvicorn", "ClientDisconnected"): CANCELLED,
    # it was not over in time, or broke, though it is no `Exception`
    ("dramatiq", "TimeLimitExceeded"): FAILURE,
    ("eventlet", "Timeout"): FAILURE,
    ("gevent", "Timeout"): FAILURE,
    ("pyo3_runtime", "PanicException"): FAILURE,
    ("_pytest", "Failed"): FAILURE,
    # it goes on elsewhere, or later: a retry, a rerun, a human's answer
    ("celery", "Retry"): SUSPENDED,
    ("celery", "Ignore"): SUSPENDED,
    ("celery", "Reject"): SUSPENDED,
    ("dramatiq", "Retry"): SUSPENDED,
    ("huey", "RetryTask"): SUSPENDED,
    ("arq", "Retry"): SUSPENDED,
    ("arq", "RetryJob"): SUSPENDED,
    ("kopf", "TemporaryError"): SUSPENDED,
    ("tenacity", "TryAgain"): SUSPENDED,
    ("airflow", "AirflowRescheduleException"): SUSPENDED,
    ("airflow", "TaskDeferred"): SUSPENDED,
    ("dagster", "RetryRequested"): SUSPENDED,
    ("prefect", "Pause"): SUSPENDED,
    ("prefect", "PausedRun"): SUSPENDED,
    ("temporalio", "ContinueAsNewError"): SUSPENDED,
    ("temporalio", "_CompleteAsyncError"): SUSPENDED,
    ("temporalio", "_WorkflowBeingEvictedError"): SUSPENDED,
    ("cherrypy", "InternalRedirect"): SUSPENDED,
    ("faststream", "NackMessage"): SUSPENDED,
    ("faststream", "RejectMessage"): SUSPENDED,
    ("inngest", "NestedStepInterrupt"): SUSPENDED,
    ("inngest", "ResponseInterrupt"): SUSPENDED,
    ("inngest", "SkipInterrupt"): SUSPENDED,
    ("lilya", "ContinueRouting"): SUSPENDED,
    ("marimo", "MarimoRescheduleError"): SUSPENDED,
    ("marimo", "MarimoStopError"): SUSPENDED,
    ("mcp", "UrlElicitationRequiredError"): SUSPENDED,
    ("procrastinate", "JobRetry"): SUSPENDED,
    ("restate", "SuspendedException"): SUSPENDED,
    ("taskiq", "NoResultError"): SUSPENDED,
    ("taskiq", "TaskRejectedError"): SUSPENDED,
    ("workflows", "WaitingForEvent"): SUSPENDED,
    ("langgraph", "GraphBubbleUp"): SUSPENDED,
    ("langgraph", "GraphInterrupt"): SUSPENDED,
    ("langgraph", "NodeInterrupt"): SUSPENDED,
    ("pydantic_ai", "CallDeferred"): SUSPENDED,
    ("pydantic_ai", "ApprovalRequired"): SUSPENDED,
    ("streamlit", "RerunException"): SUSPENDED,
    ("streamlit", "StopException"): SUSPENDED,
    ("aiogram", "SkipHandler"): SUSPENDED,
    # an end in order
    ("channels", "StopConsumer"): SUCCESS,
    ("channels", "AcceptConnection"): SUCCESS,
    ("channels", "DenyConnection"): SUCCESS,
    ("tornado", "Finish"): SUCCESS,
    ("websockets", "ConnectionClosedOK"): SUCCESS,
    ("sanic", "WebsocketClosed"): SUCCESS,
    ("aiogram", "CancelHandler"): SUCCESS,
    ("airflow", "AirflowSkipException"): SUCCESS,
    ("telegram", "ApplicationHandlerStop"): SUCCESS,
    ("faststream", "AckMessage"): SUCCESS,
    ("faststream", "SkipMessage"): SUCCESS,
    ("faststream", "StopConsume"): SUCCESS,
    ("pydantic_ai", "SkipModelRequest"): SUCCESS,
    ("pydantic_ai", "SkipToolExecution"): SUCCESS,
    ("pydantic_ai", "SkipToolValidation"): SUCCESS,
    ("scrapy", "CloseSpider"): SUCCESS,
    ("scrapy", "DontCloseSpider"): SUCCESS,
    ("scrapy", "DropItem"): SUCCESS,
    ("scrapy", "IgnoreRequest"): SUCCESS,
    ("scrapy", "StopDownload"): SUCCESS,
    ("socketio", "ConnectionRefusedError"): SUCCESS,
    # an answer of 422, or a close of 1008
    ("fastapi", "RequestValidationError"): SUCCESS,
    ("fastapi", "WebSocketRequestValidationError"): SUCCESS,
    ("ninja", "ValidationError"): SUCCESS,
    # Django's own, which carry no status
    ("django", "Http404"): SUCCESS,
    ("django", "PermissionDenied"): SUCCESS,
    ("django", "SuspiciousOperation"): SUCCESS,
    ("django", "BadRequest"): SUCCESS,
    ("django", "MultiPartParserError"): SUCCESS,
}

HTTP_STATUS: dict[tuple[str, str], str] = {
    ("aiohttp", "HTTPException"): "status",
    ("apiflask", "HTTPError"): "status_code",
    ("aws_lambda_powertools", "ServiceError"): "status_code",
    ("blacksheep", "HTTPException"): "status",
    ("bottle", "HTTPResponse"): "status_code",
    ("chalice", "ChaliceViewError"): "STATUS_CODE",
    ("cherrypy", "HTTPError"): "status",
    ("cherrypy", "HTTPRedirect"): "status",
    ("falcon", "HTTPError"): "status",
    ("falcon", "HTTPStatus"): "status",
    ("lilya", "HTTPException"): "status_code",
    ("litestar", "HTTPException"): "status_code",
    ("microdot", "HTTPException"): "status_code",
    ("ninja", "HttpError"): "status_code",
    ("ninja_extra", "APIException"): "status_code",
    ("pyramid", "HTTPException"): "status_int",
    ("rest_framework", "APIException"): "status_code",
    ("robyn", "HTTPException"): "status_code",
    ("sanic", "SanicException"): "status_code",
    ("starlette", "HTTPException"): "status_code",
    ("tornado", "HTTPError"): "status_code",
    ("webob", "WSGIHTTPException"): "status_int",
    ("werkzeug", "HTTPException"): "code",
}

EXIT_CODE: dict[tuple[str, str], str] = {
    ("asyncclick", "Exit"): "exit_code",
    ("click", "Exit"): "exit_code",
    ("invoke", "Exit"): "code",
    ("typer", "Exit"): "exit_code",
}

CLOSE_CODE: dict[tuple[str, str], str] = {
    ("blacksheep", "WebSocketDisconnectError"): "code",
    ("falcon", "WebSocketDisconnected"): "code",
    ("starlette", "WebSocketDisconnect"): "code",
    ("litestar", "WebSocketDisconnect"): "code",
    ("simple_websocket", "ConnectionClosed"): "reason",
}

OUR_CLOSE_CODE: dict[tuple[str, str], str] = {
    ("lilya", "WebSocketException"): "code",
    ("litestar", "WebSocketException"): "code",
    ("starlette", "WebSocketException"): "code",
}
"""Exceptions by which a view closes a WebSocket, as it answers a request by an HTTP exception."""


def outcome_by_name(error: BaseException) -> str | None:
    """Return how a run ended that raised *error*, a value of `Outcome`; None when unknown."""
    for kind in type(error).__mro__:
        module = getattr(kind, "__module__", None)
        if not isinstance(module, str) or module == "builtins":
            continue
        name = module.partition(".")[0], kind.__name__
        if (found := OUTCOMES_BY_NAME.get(name)) is not None:
            return found
        for table, outcome in _BY_ATTRIBUTE:
            if (attribute := table.get(name)) is not None:
                return outcome(error, attribute)
    return None


def _by_status(error: BaseException, attribute: str) -> str:
    status = _status(error, attribute)
    return SUCCESS if status is not None and 0 < status < 500 else FAILURE


def _by_exit_code(error: BaseException, attribute: str) -> str:
    return SUCCESS if _attribute(error, attribute) in (None, 0) else FAILURE


def _by_their_close(error: BaseException, attribute: str) -> str:
    return SUCCESS if _attribute(error, attribute) in ORDERLY_CLOSE else CANCELLED


def _by_our_close(error: BaseException, attribute: str) -> str:
    return FAILURE if _attribute(error, attribute) in SERVER_ERRORS else SUCCESS


_BY_ATTRIBUTE = (
    (HTTP_STATUS, _by_status),
    (EXIT_CODE, _by_exit_code),
    (CLOSE_CODE, _by_their_close),
    (OUR_CLOSE_CODE, _by_our_close),
)


def _status(error: BaseException, attribute: str) -> int | None:
    """Return the HTTP status of *error*: a number, or the first three digits of "404 Not Found"."""
    status = _attribute(error, attribute)
    if status is None:  # werkzeug's abort(response)
        status = _attribute(_attribute(error, "response"), "status_code")
    if isinstance(status, str):
        status = int(status[:3]) if status[:3].isdigit() else None
    return status if isinstance(status, int) else None


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name, None)
    except Exception as failure:  # a property of the host's that raises
        raise_if_interrupted(failure)
        return None
