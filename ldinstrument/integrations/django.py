"""Django, sync and async: a session per request, for the user that Django knows.

```python
MIDDLEWARE = ["ldinstrument.integrations.django.SessionMiddleware", ...]     # first
LDINSTRUMENT = {"context": "shop.visitors.context_of", "ignore": ["/admin/*"]}  # optional
```

Under an ASGI server, wrap the application, for the server's orderly end:
`LifespanMiddleware(get_asgi_application())` of `integrations.asgi`. In an `asgi.SessionMiddleware`,
as one application among others, it is that one which opens and ends the session, with its own
`store=`, `ignore=` and `name=`; this one finds the user and the route.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from ..callables.streams import follow
from ..diagnostics import warn_once
from ..errors import missing_extra
from ..sessions.current import set_current
from .asgi_lifespan import OPEN_REQUESTS
from .options import OPTIONS, RequestOptions, check_options
from .request_metrics import request_context
from .request_session import (
    REQUEST,
    RequestSession,
    RequestSessionFactory,
    end_session,
)

try:
    from asgiref.sync import (
        async_to_sync,
        iscoroutinefunction,
        markcoroutinefunction,
        sync_to_async,
    )
    from django.conf import settings
    from django.utils.module_loading import import_string
except ImportError as error:
    raise missing_extra("django", "django") from error

__all__ = [
    "SessionMiddleware",
    "end_session",
    "logged_in",
    "logged_in_async",
    "request_context",
]

VISITOR = "_ld_visitor"


class SessionMiddleware:
    """Gives every request a session, to the end of its response body, streamed ones included.

    Put it first in `MIDDLEWARE`: what the others do, and their failures, then belong to the
    session, and the user is still found, because it asks when all of them have seen the request.

    `settings.LDINSTRUMENT` is a dict of options: those of `RequestOptions`, and `context`: a
    callable, async or not, or its dotted path, that is given the `HttpRequest` and answers with a
    Context, a key of kind `user`, or None. When left out, the primary key of the authenticated
    user. With a store, Django's session carries the visitor's id where the request has one, else a
    cookie that is signed with `SECRET_KEY`, unless `secret` is given.

    Raises:
        DefinitionError: at start-up, for an option that does not exist.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        context, options = _options()
        self.finds_users = context is None
        is_async = iscoroutinefunction(get_response)
        if not is_async and iscoroutinefunction(context):
            context = async_to_sync(context)
        self.sessions = RequestSessionFactory(context or logged_in, **options)
        if is_async:
            markcoroutinefunction(self)
            self.process_view: Callable[..., Any] = self._process_view_async
            self._serve: Callable[[Any], Any] = self._answer_async
        else:
            self.process_view = self._process_view
            self._serve = self._answer

    def __call__(self, request: Any) -> Any:
        """Serve one request, or return the coroutine that does."""
        return self._serve(request)

    def _answer(self, request: Any) -> Any:
        current = self._begin(request)
        with _current(current):
            response = self.get_response(request)
        if self.sessions.source.is_asked_again(current):
            current.identify(self.sessions.source.ask(request))
        if self._is_over(request, response, current):
            current.end()
        return response

    async def _answer_async(self, request: Any) -> Any:
        current = self._begin(request)
        with _current(current):
            response = await self.get_response(request)
        if self.sessions.source.is_asked_again(current):
            current.identify(await self._ask_async(request))
        if self._is_over(request, response, current):
            await current.aend()
        return response

    # -- who it is, and where ----------------------------------------------------------------------
    # Django calls `process_view` when every other middleware has seen the request, and the route is
    # known.
    def _process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        current = _with_route(request)
        if current.session is not None:
            self._read_visitor(request, current)
            current.identify(self.sessions.source.ask(request, last=False))

    async def _process_view_async(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        current = _with_route(request)
        if current.session is not None:
            if self.sessions.visitors is not None:
                await sync_to_async(self._read_visitor)(request, current)
            current.identify(await self._ask_async(request, last=False))

    async def _ask_async(self, request: Any, *, last: bool = True) -> Any:
        source = self.sessions.source
        if self.finds_users:
            return await logged_in_async(request)
        if inspect.iscoroutinefunction(source.given):
            return await source.ask_async(request, last=last)
        # The project's function may ask the database, which Django allows in a thread only.
        return await sync_to_async(source.ask)(request, last=last)

    # -- begin and end -----------------------------------------------------------------------------
    def _begin(self, request: Any) -> RequestSession:
        """Return what an ASGI or WSGI middleware around Django has opened, or open our own."""
        outer = _outer(request)
        if outer is not None:
            self._check_store(outer)
            request._ldinstrument = outer
            return outer
        current = request._ldinstrument = self._opened(request)
        getattr(request, "scope", {}).get(OPEN_REQUESTS, set()).add(current)
        request._ldinstrument_visitor = current.read_visitor
        return current

    def _opened(self, request: Any) -> RequestSession:
        method, headers = request.method or "", request.headers
        if not self.sessions.takes(
            path=request.path,
            method=method,
            agent=headers.get("User-Agent", ""),
            preflight=method == "OPTIONS" and "Access-Control-Request-Method" in headers,
        ):
            return RequestSession(None)
        visitors, find = self.sessions.visitors, request.META.get
        return self.sessions.open(
            method,
            baggage=find("HTTP_BAGGAGE"),
            cookies=find("HTTP_COOKIE", ""),
            header=find(visitors.environ_name) if visitors is not None else None,
            attributes=partial(_attributes, request),
        )

    def _check_store(self, outer: RequestSession) -> None:
        if outer.store is None and self.sessions.store is not None:
            warn_once(
                "store_unused",
                "django",
                "a middleware around Django opens the sessions, and the store in "
                "settings.LDINSTRUMENT is not used: give that one store=, or put "
                "asgi.LifespanMiddleware in its place",
            )

    def _read_visitor(self, request: Any, current: RequestSession) -> None:
        """Keep a new visitor's id in Django's session, where the request has one: then no cookie of
        ours is needed.
        """
        visitor = getattr(request, "_ldinstrument_visitor", None)
        if visitor is None or visitor.token is None or not hasattr(request, "session"):
            return
        if settings.SESSION_COOKIE_NAME in request.COOKIES:
            current.visitor = str(request.session.setdefault(VISITOR, visitor.id))
            request._ldinstrument_visitor = None

    def _is_over(self, request: Any, response: Any, current: RequestSession) -> bool:
        """Tell whether the request is over with *response*; a streamed one is when it is closed."""
        if _outer(request) is current:
            return False  # whoever opened it sees its end
        current.status = response.status_code
        self._add_visitor_headers(request, response)
        if not response.streaming:
            current.returned()
            return True
        is_file = getattr(response, "file_to_stream", None) is not None
        if not is_file:  # a file must stay one, so that the server may use `sendfile`
            follow(response, _StreamWatcher(current))
        response.close = _closing(response.close, current, complete=is_file or current.bodiless)
        return False

    def _add_visitor_headers(self, request: Any, response: Any) -> None:
        visitors = self.sessions.visitors
        visitor = getattr(request, "_ldinstrument_visitor", None)
        if visitors is None or visitor is None:
            return
        for name, value in visitors.response_headers(
            visitor,
            secure=request.is_secure(),
            cache_control=response.get("Cache-Control", ""),
        ):
            if name == "Set-Cookie":
                response.cookies.load(value)
            else:
                response[name] = value


def _options() -> tuple[Any, RequestOptions]:
    """Return the project's `context` and its other options."""
    given = dict(getattr(settings, "LDINSTRUMENT", None) or {})
    check_options("settings.LDINSTRUMENT", given, OPTIONS | {"context"})
    context = given.pop("context", None)
    given.setdefault("secret", [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])
    # A plain string would be one user for everybody: here it can only be a path.
    context = import_string(context) if isinstance(context, str) else context
    return context, cast("RequestOptions", given)


def _outer(request: Any) -> RequestSession | None:
    """Return what a middleware of ours around Django has opened for *request*."""
    found = request.META.get(REQUEST) or getattr(request, "scope", {}).get(REQUEST)
    return found if isinstance(found, RequestSession) else None


def _attributes(request: Any) -> dict[str, Any]:
    """Return the attributes of the request's own context."""
    version = getattr(request, "scope", {}).get("http_version")
    return {
        "method": request.method,
        "host": request.META.get("HTTP_HOST"),
        "path": request.path,
        "scheme": request.scheme,
        "proto": f"HTTP/{version}" if version else request.META.get("SERVER_PROTOCOL"),
        "userAgent": request.META.get("HTTP_USER_AGENT"),
    }


def _with_route(request: Any) -> RequestSession:
    """Return the session of *request*, told which route it has taken."""
    current: RequestSession = getattr(request, "_ldinstrument", None) or RequestSession(None)
    route = getattr(request.resolver_match, "route", None)
    current.route = f"/{route}" if isinstance(route, str) else None
    return current


@contextmanager
def _current(current: RequestSession) -> Iterator[None]:
    """Run the application with the session current, None included; what it raises ends it."""
    before = set_current(current.session)
    try:
        yield
    except BaseException as error:
        current.raised(error)
        current.end()
        raise
    finally:
        set_current(before)


def _closing(
    close: Callable[[], None], current: RequestSession, *, complete: bool
) -> Callable[[], None]:
    """Return the response's `close`, which every server calls, with the session's end in it.

    Args:
        close: Django's.
        current: of the request.
        complete: whether the response is complete by then; else an unread stream means that the
            client has left.
    """

    def closing() -> None:
        (current.returned if complete else current.disconnected)()
        current.resume()
        try:
            close()
        finally:
            current.pause()
            current.end()

    return closing


class _StreamWatcher:
    """Watches a streamed body. Django's ASGI handler does not close a response whose stream raised:
    the end is here.
    """

    delegates = False

    def __init__(self, current: RequestSession) -> None:
        self.resume, self.pause = current.resume, current.pause
        self.first, self.unstarted = current.first, current.unstarted
        self.returned = current.returned
        self._current = current

    def raised(self, error: BaseException) -> None:
        """End: the stream broke, or nobody reads it any more."""
        self._current.raised(error)
        self._current.end()


# -- the user --------------------------------------------------------------------------------------


def logged_in(request: Any) -> str | None:
    """Return the primary key of the authenticated user, or None.

    A request without a session cookie is not asked: Django would mark its response as varying by
    cookie, and caches would stop working.
    """
    if not _may_be_logged_in(request):
        return None
    user = request.user
    return str(user.pk) if user.is_authenticated else None


async def logged_in_async(request: Any) -> str | None:
    """Return the same, on an event loop."""
    if not hasattr(request, "auser"):  # before Django 5
        found: str | None = await sync_to_async(logged_in)(request)
        return found
    if not _may_be_logged_in(request):
        return None
    user = await request.auser()
    return str(user.pk) if user.is_authenticated else None


def _may_be_logged_in(request: Any) -> bool:
    if not hasattr(request, "user"):  # no AuthenticationMiddleware, or it has not run
        return False
    seen = "_cached_user" in vars(request) or "_acached_user" in vars(request)
    return seen or settings.SESSION_COOKIE_NAME in request.COOKIES
