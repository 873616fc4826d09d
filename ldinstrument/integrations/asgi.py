"""ASGI, and so FastAPI, Starlette, Litestar: a session per request or websocket, and an orderly end
of the server.

```python
app = SessionMiddleware(app, context=lambda scope: scope["session"].get("user"))
app.add_middleware(SessionMiddleware, context=...)  # FastAPI, Starlette: last, so it is outermost
```

Pure ASGI: a `BaseHTTPMiddleware` would miss streamed bodies and background tasks.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import missing_extra
from ..sessions.clients import Tracker
from ..sessions.current import add_finder, set_current
from ..sessions.scopes import open_session
from ..sessions.session import Session
from .asgi_lifespan import Application, Lifespan, LifespanMiddleware, Message, Receive, Scope, Send
from .asgi_messages import HTTPMessages, Marking, WebSocketMessages
from .request_metrics import request_context
from .request_session import (
    REQUEST,
    WEBSOCKET,
    ContextSource,
    RequestSession,
    RequestSessionFactory,
    end_session,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import RequestOptions
    from .visitors import Visitor, Visitors

__all__ = [
    "LifespanMiddleware",
    "SessionMiddleware",
    "end_session",
    "request_context",
    "session_dependency",
]


class SessionMiddleware:
    """Gives every request and websocket that goes through it a session.

    The session is current in the application, its streamed body and its background tasks; it ends
    when the application returns, and its duration counts to the last byte of the response. The
    request is an interaction: a success below 500, a failure from 500 or when the application
    raises. A client that leaves before the end makes it abandoned, which counts for neither. A
    websocket is one interaction, and its end by the client is no fault.

    When the server stops, the sessions of its requests end as abandoned, its store is closed, and
    events are flushed: under uvicorn no `atexit` runs.

    Args:
        app: the ASGI application. A second middleware inside leaves the request to this one.
        context: a Context, a key of kind `user`, or a callable, async or not, that is given the
            ASGI scope. One that answers None, or fails because nobody has filled the scope yet, is
            asked again at the end of the request.
        flush_timeout: seconds that the server's shutdown may wait for delivery.
        options: see `RequestOptions`.
    """

    def __init__(
        self,
        app: Application,
        *,
        context: Any = None,
        flush_timeout: float = 2.0,
        **options: Unpack[RequestOptions],
    ) -> None:
        self.app = app
        self.flush_timeout = flush_timeout
        self.sessions = RequestSessionFactory(context, **options)
        self.sessions.declare_websocket()
        self.sessions.remember_open()
        add_finder(session_of_mcp_request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the server's life."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan().run(scope, receive, send)
            return
        if REQUEST in scope or kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        request = scope[REQUEST] = await _begin(self.sessions, scope)
        finish = partial(_finish, self.sessions.source, request, scope)
        mark = self._marking(request, scope)
        messages = (
            HTTPMessages(request, receive, send, mark, finish)
            if kind == "http"
            else WebSocketMessages(request, receive, send, mark)
        )

        before = set_current(request.session)
        try:
            await self.app(scope, messages.receive, messages.send)
        except BaseException as error:
            request.raised(error)
            raise
        else:
            messages.stopped()
        finally:
            set_current(before)
            await finish()

    def _lifespan(self) -> Lifespan:
        store, end_open = self.sessions.store, self.sessions.end_open
        if store is None:
            return Lifespan(self.app, end_open, None, self.flush_timeout)
        return Lifespan(self.app, end_open, store.release, self.flush_timeout, store.hold)

    def _marking(self, request: RequestSession, scope: Scope) -> Marking | None:
        """Return what adds the visitor's id to the message that begins a response; None where it
        need not carry one.
        """
        visitors, visitor = self.sessions.visitors, request.read_visitor
        if visitors is None or visitor is None or visitor.token is None:
            return None
        return partial(_marked, visitors, visitor, scope.get("scheme") in ("https", "wss"))


def _marked(visitors: Visitors, visitor: Visitor, secure: bool, message: Message) -> Message:
    """Return *message*, which begins a response, with what it has to carry of the visitor's id."""
    given = list(message.get("headers") or ())
    cache_control = _cache_control(given)
    added = visitors.response_headers(visitor, secure=secure, cache_control=cache_control)
    given += [(name.lower().encode(), value.encode()) for name, value in added]
    return {**message, "headers": given}


def _headers(scope: Scope) -> dict[str, str]:
    """Return the request's headers by lower-case name; of repeated ones the last, all cookies."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope.get("headers") or ():
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]}; {value}" if name == "cookie" and name in found else value
    return found


def _cache_control(headers: list[tuple[bytes, bytes]]) -> str:
    values = [value for name, value in headers if name.lower() == b"cache-control"]
    return b",".join(values).decode("latin-1") if values else ""


async def _begin(sessions: RequestSessionFactory, scope: Scope) -> RequestSession:
    method = scope.get("method", WEBSOCKET)
    headers = _headers(scope)
    if not sessions.takes(
        path=scope.get("path", ""),
        method=method,
        agent=headers.get("user-agent", ""),
        preflight=method == "OPTIONS" and "access-control-request-method" in headers,
    ):
        return RequestSession(None)
    who = sessions.source.ask(scope, last=False)
    if who is not None and inspect.isawaitable(who):
        who = await sessions.source.answer(who, last=False)
    return sessions.open(
        method,
        who=who,
        baggage=headers.get("baggage"),
        cookies=headers.get("cookie", ""),
        header=headers.get(sessions.visitors.header_name) if sessions.visitors else None,
        attributes=partial(_attributes, scope, headers) if sessions.measures_requests else None,
    )


def _attributes(scope: Scope, headers: dict[str, str]) -> dict[str, Any]:
    """Return the attributes of the request's own context."""
    return {
        "method": scope.get("method"),
        "host": headers.get("host"),
        "path": scope.get("path"),
        "scheme": scope.get("scheme"),
        "proto": f"HTTP/{scope['http_version']}" if scope.get("http_version") else None,
        "userAgent": headers.get("user-agent"),
    }


async def _finish(source: ContextSource, request: RequestSession, scope: Scope) -> None:
    if request.ended:
        return
    if request.tells_route:
        request.route = request.route or route_of(scope)
    try:
        if source.is_asked_again(request):
            request.identify(await source.ask_async(scope))
    finally:
        if request.waits_for_store:
            await request.aend()
        else:
            request.end()


def route_of(scope: Scope) -> str | None:
    """Return the template of the route that Starlette, FastAPI or Litestar found; never the path.

    Inside a mounted application it is the template that this one knows, without the mount's prefix.
    """
    route = _included(scope) or scope.get("route") or _route_by_endpoint(scope)
    found = (
        scope.get("path_template")
        or getattr(route, "path_format", None)
        or getattr(route, "path", None)
    )
    return found if isinstance(found, str) else None


def _included(scope: Scope) -> Any:
    """Return the route with the prefix that `include_router` gave it: newer FastAPIs leave the
    route as its router has it, and say the rest beside it.
    """
    told = scope.get("fastapi")
    found = told.get("effective_route_context") if isinstance(told, dict) else None
    return found if getattr(found, "original_route", None) is scope.get("route") else None


def _route_by_endpoint(scope: Scope) -> Any:
    """Return the only route of the scope's endpoint: older Starlettes name no more than that."""
    endpoint = scope.get("endpoint")
    routes = getattr(scope.get("router"), "routes", None) or ()
    found = [
        route
        for route in routes
        if endpoint is not None and getattr(route, "endpoint", None) is endpoint
    ]
    return found[0] if len(found) == 1 else None


def session_of_mcp_request() -> Session | None:
    """Return the session of the HTTP request that an MCP server is handling.

    A stateful server of MCP 1.x runs every tool in the task that the client's first request has
    started, whose session has long ended.
    """
    server = sys.modules.get("mcp.server.lowlevel.server")
    variable = getattr(server, "request_ctx", None)
    handled = variable.get(None) if isinstance(variable, ContextVar) else None
    scope = getattr(getattr(handled, "request", None), "scope", None)
    request = scope.get(REQUEST) if isinstance(scope, dict) else None
    found = request.session if isinstance(request, RequestSession) else None
    return None if found is None or found.ended else found


# -- without the middleware ------------------------------------------------------------------------


def session_dependency(
    context: Any = None, *, name: str = "request", client: Tracker | None = None
) -> Callable[..., AsyncIterator[Session]]:
    """Make a FastAPI dependency that gives an endpoint its session:
    `Depends(session_dependency(...))`.

    Behind `SessionMiddleware` it is the request's session, and *context* says for whom. Without, it
    opens one around the endpoint, which knows no status: an endpoint that raises is a failure,
    except for an HTTPException below 500.

    It is async on purpose: FastAPI runs a *sync* dependency with `yield` in another thread, and
    what is set there, the current session too, is lost to the endpoint.

    Args:
        context: a Context, a key of kind `user`, or a callable, async or not, that is given
            Starlette's connection.
        name: the prefix of the session's metrics, where the dependency opens it.
        client: takes the events; by default the client that `ldinstrument` finds when they leave.

    Raises:
        MissingExtra: there is no Starlette.
    """
    sessions = RequestSessionFactory(context, name=name, client=client)

    async def dependency(connection: Any) -> AsyncIterator[Session]:
        around = connection.scope.get(REQUEST)
        if around is not None and around.session is not None:
            around.identify(await sessions.source.ask_async(connection))
            yield around.session
            return
        async with _opened(sessions, connection) as opened:
            yield opened

    dependency.__signature__ = _connection_signature()  # type: ignore[attr-defined]
    return dependency


def _connection_signature() -> inspect.Signature:
    """Return the signature that makes FastAPI give a dependency its connection."""
    try:
        from starlette.requests import HTTPConnection
    except ImportError as error:
        raise missing_extra("dev", "starlette") from error
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameter = inspect.Parameter("connection", kind, annotation=HTTPConnection)
    return inspect.Signature([parameter])


@asynccontextmanager
async def _opened(sessions: RequestSessionFactory, connection: Any) -> AsyncIterator[Session]:
    session = open_session(name=sessions.name, client=sessions.client)
    request = RequestSession(session, method=connection.scope.get("method", WEBSOCKET))
    request.identify(await sessions.source.ask_async(connection))
    before = set_current(session)
    try:
        yield session
    except BaseException as error:
        request.status = getattr(error, "status_code", 0)
        request.raised(error)
        raise
    finally:
        set_current(before)
        request.returned()
        request.route = route_of(connection.scope)
        request.end()
