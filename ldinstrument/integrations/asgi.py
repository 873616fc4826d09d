"""ASGI, and so FastAPI, Starlette, Litestar: a session per request or websocket, and an orderly end
of the server.

```python
app = SessionMiddleware(app, context=lambda scope: scope["session"].get("user"))
app.add_middleware(SessionMiddleware, context=...)      # FastAPI and Starlette; add it last, so that it is outermost
```

Pure ASGI: a `BaseHTTPMiddleware` would miss streamed bodies and background tasks.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from ..errors import missing_extra
from ..sessions.current import open_session, set_current
from ..sessions.emission import Tracker
from ..sessions.session import Session
from .asgi_lifespan import Application, Lifespan, LifespanMiddleware, Message, Receive, Scope, Send
from .request_session import REQUEST, Boundary, RequestSession, end_session
from .visitors import Secret, visitors_of

__all__ = ["LifespanMiddleware", "SessionMiddleware", "end_session", "session_dependency"]

SERVER_ERRORS = (1011, 1012, 1013, 1014)
"""Close codes by which a websocket's server says that it failed."""


class SessionMiddleware:
    """Gives every request and websocket that goes through it a session.

    The session is current in the application, its streamed body and its background tasks; it ends
    when the application
    returns, and its duration counts to the last byte of the response. The request is an
    interaction: a success below 500, a failure from 500 or when the application raises. A client
    that leaves before the end makes it abandoned, which counts for neither. A websocket is one
    interaction, and its end by the client is no fault.

    When the server stops, open sessions end as abandoned and events are flushed: under uvicorn no
        `atexit` runs.

    Args:
        app: the ASGI application. A second middleware inside leaves the request to this one.
        context: a Context, a key of kind `user`, or a callable, async or not, that is given the
            ASGI scope. One that answers None, or fails because nobody has filled the scope yet, is
            asked again at the end of the request.
        name: the prefix of the session's metrics: `<name>.duration`, `<name>.success_rate`,
            `<name>.interactions`. None is `request`, or `session` with a store.
        websocket: the same for websockets, which last for minutes and would spoil the durations of
            requests; None makes no sessions for them. With a store they are part of the visit, and
            of this only None matters.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        ignore: path patterns that make no session, such as `/static/*`; health checks never make
            one.
        flush_timeout: seconds that the server's shutdown may wait for delivery.
        store: a store, or its address such as `sqlite:///sessions.db`: a session then is a visit of
            many requests, over all workers, and ends in the store (see `ldinstrument.stores`). It
            is closed when the server stops.
        cookie: with a store: the cookie that carries a signed, random visitor id, or its name;
            False sends none, and visits go by context.
        header: a request header that may carry the same, for clients without cookies; the response
            has it, too.
        secret: signs the id, the same in all workers; None takes `LDINSTRUMENT_SECRET`.

    Raises:
        DefinitionError: a store with a cookie and no secret.
    """

    def __init__(
        self,
        app: Application,
        *,
        context: Any = None,
        name: str | None = None,
        websocket: str | None = "websocket",
        client: Tracker | None = None,
        ignore: Iterable[str] = (),
        flush_timeout: float = 2.0,
        store: Any = None,
        cookie: bool | str = True,
        header: str | None = None,
        secret: Secret = None,
    ) -> None:
        self.app = app
        self.flush_timeout = flush_timeout
        self.visitors = visitors_of(store, cookie, header, secret)
        http = Boundary(context, name=name, client=client, ignore=ignore, store=store)
        self.boundaries = {"http": http}
        if websocket is not None:
            same = http if http.store is not None else None
            self.boundaries["websocket"] = same or Boundary(
                context, name=websocket, client=client, ignore=ignore
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await Lifespan(self.app, self.flush_timeout, self.boundaries["http"].store).run(
                scope, receive, send
            )
        elif REQUEST in scope or scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        else:
            await self._serve(self.boundaries.get(scope["type"]), scope, receive, send)

    async def _serve(
        self, boundary: Boundary | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = scope[REQUEST] = await _begin(boundary, scope)
        marking, finish = (
            self._marking(scope, request, send),
            partial(_finish, boundary, request, scope),
        )
        messages = (
            _WatchedWebSocket(request, receive, marking)
            if scope["type"] == "websocket"
            else _WatchedHTTP(request, receive, marking, finish)
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

    def _marking(self, scope: Scope, request: RequestSession, send: Send) -> Send:
        """Find the visitor, and let the response bring him what it has to."""
        if self.visitors is None or request.session is None:
            return send
        headers = _headers(scope)
        name = self.visitors.header
        visitor = self.visitors.arrived(
            headers.get("cookie", ""), headers.get(name.lower()) if name else None
        )
        request.visitor = visitor.id
        answer = partial(self.visitors.answer, visitor, scope.get("scheme") in ("https", "wss"))

        async def marking(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                given = list(message.get("headers") or ())
                cacheable = b",".join(
                    value for key, value in given if key.lower() == b"cache-control"
                )
                marks = [
                    (key.lower().encode(), value.encode())
                    for key, value in answer(cacheable.decode("latin-1"))
                ]
                message = {**message, "headers": given + marks}
            await send(message)

        return marking


def _headers(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; of repeated ones the last, of cookies all."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope.get("headers") or ():
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]}; {value}" if name == "cookie" and name in found else value
    return found


async def _begin(boundary: Boundary | None, scope: Scope) -> RequestSession:
    if boundary is None:
        return RequestSession(None)
    method = scope.get("method", "WEBSOCKET")
    headers = _headers(scope)
    request = boundary.begin(
        path=scope.get("path", ""),
        method=method,
        agent=headers.get("user-agent", ""),
        preflight=method == "OPTIONS" and "access-control-request-method" in headers,
    )
    if request.session is not None:
        request.identify(await boundary.who_async(scope, last=False))
    return request


async def _finish(boundary: Boundary | None, request: RequestSession, scope: Scope) -> None:
    if request.ended:
        return
    request.route = request.route or route_of(scope)
    try:
        if boundary is not None and boundary.asks_again(request):
            request.identify(await boundary.who_async(scope))
    finally:
        await request.aend()


def route_of(scope: Scope) -> str | None:
    """The template of the route that Starlette, FastAPI or Litestar found; never the path itself.

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
    """Newer FastAPIs leave a route as its router has it, and say beside it where `include_router`
    has put it.
    """
    told = scope.get("fastapi")
    found = told.get("effective_route_context") if isinstance(told, dict) else None
    return found if getattr(found, "original_route", None) is scope.get("route") else None


def _route_by_endpoint(scope: Scope) -> Any:
    """Older Starlettes name the endpoint only: its route is the one that has it, if it is the only
    one.
    """
    endpoint = scope.get("endpoint")
    routes = getattr(scope.get("router"), "routes", None) or ()
    found = [
        route
        for route in routes
        if endpoint is not None and getattr(route, "endpoint", None) is endpoint
    ]
    return found[0] if len(found) == 1 else None


# -- what is learnt from the messages --------------------------------------------------------------


class _WatchedHTTP:
    """The messages of one HTTP request."""

    def __init__(
        self,
        request: RequestSession,
        receive: Receive,
        send: Send,
        finish: Callable[[], Awaitable[None]],
    ) -> None:
        self.request = request
        self._receive = receive
        self._send = send
        self._finish = finish

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._left()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.request.status = int(message["status"])
        if self.request.leaving and _is_last(
            message
        ):  # whoever has read it, and asks for a page, begins the next visit
            self.request.returned()
            await self._finish()
        try:
            await self._send(message)
        except OSError:  # how a server says that nobody reads any more
            self._left()
            raise
        if _is_last(message):
            self.request.returned()

    def _left(self) -> None:
        """The client has left; after the last byte that is a matter of course, and changes
        nothing.
        """
        if (
            self.request.bodiless and self.request.status
        ):  # Hypercorn says so after the head, which was all
            self.request.returned()
        else:
            self.request.disconnected()

    def stopped(self) -> None:
        """The application has returned; without the end of a response that is a failure."""
        self.request.broke_off()


def _is_last(message: Message) -> bool:
    kind = message["type"]
    if kind in ("http.response.body", "http.response.zerocopysend"):
        return not message.get("more_body", False)
    return bool(kind == "http.response.pathsend")


class _WatchedWebSocket:
    """The messages of one websocket."""

    def __init__(self, request: RequestSession, receive: Receive, send: Send) -> None:
        self.request = request
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.request.returned()
        return message

    async def send(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:
            self.request.returned()
            raise
        self._sent(message)

    def _sent(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self.request.status = 101
        elif kind == "websocket.http.response.start":
            self.request.status = int(message["status"])
        elif kind == "websocket.close":
            self._closed(message)

    def _closed(self, message: Message) -> None:
        self.request.status = self.request.status or 403
        if message.get("code", 1000) in SERVER_ERRORS:
            self.request.broke_off()
        else:
            self.request.returned()

    def stopped(self) -> None:
        """The application has returned, which closes the socket."""
        self.request.returned()


# -- without the middleware ------------------------------------------------------------------------


def session_dependency(
    context: Any = None, *, name: str = "request", client: Tracker | None = None
) -> Callable[..., AsyncIterator[Session]]:
    """Make a FastAPI dependency that gives an endpoint its session:
    `Depends(session_dependency(...))`.

    Behind `SessionMiddleware` it is the request's session, and *context* says for whom. Without, it
    opens one around
    the endpoint, which knows no status: an endpoint that raises is a failure, except for an
        HTTPException below 500.

    It is async on purpose: FastAPI runs a *sync* dependency with `yield` in another thread, and
    what is set there, the current session too, is lost to the endpoint.

    Args:
        context: a Context, a key of kind `user`, or a callable, async or not, that is given
            Starlette's connection.
        name: the prefix of the session's metrics, where the dependency opens it.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.

    Raises:
        MissingExtra: there is no Starlette.
    """
    try:
        from starlette.requests import HTTPConnection
    except ImportError as error:
        raise missing_extra("dev", "starlette") from error
    boundary = Boundary(context, name=name, client=client)

    async def dependency(connection: Any) -> AsyncIterator[Session]:
        around = connection.scope.get(REQUEST)
        if around is not None and around.session is not None:
            around.identify(await boundary.who_async(connection))
            yield around.session
            return
        async with _opened(boundary, connection) as opened:
            yield opened

    parameter = inspect.Parameter(
        "connection", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection
    )
    dependency.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return dependency


@asynccontextmanager
async def _opened(boundary: Boundary, connection: Any) -> AsyncIterator[Session]:
    session = open_session(name=boundary.name, client=boundary.client)
    request = RequestSession(session, method=connection.scope.get("method", "WEBSOCKET"))
    request.identify(await boundary.who_async(connection))
    before = set_current(session)
    try:
        yield session
    except BaseException as error:
        request.status = getattr(error, "status_code", 0)
        if 0 < request.status < 500:
            request.returned()
        request.raised(error)
        raise
    finally:
        set_current(before)
        request.returned()
        request.route = route_of(connection.scope)
        request.end()
