"""Django, sync and async: a session per request, for the user that Django knows.

```python
MIDDLEWARE = ["ldinstrument.integrations.django.SessionMiddleware", ...]     # first
LDINSTRUMENT = {"context": "shop.visitors.context_of", "ignore": ["/admin/*"]}     # optional, see SessionMiddleware
```

Under an ASGI server, wrap the application, for the server's orderly end:
`LifespanMiddleware(get_asgi_application())` of `integrations.asgi`. In an `asgi.SessionMiddleware`,
as one application among others, it is that one which opens and ends the session, with its own
`store=`, `ignore=` and `name=`; this one finds the user and the route.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..callables.streams import follow
from ..diagnostics import warn_once
from ..errors import DefinitionError, missing_extra
from ..sessions.current import set_current
from .request_session import REQUEST, Boundary, RequestSession, end_session
from .visitors import visitors_of

if TYPE_CHECKING:
    from collections.abc import Iterator


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

__all__ = ["SessionMiddleware", "end_session", "logged_in", "logged_in_async"]

OPTIONS = frozenset({"context", "name", "client", "ignore", "store", "cookie", "header", "secret"})
VISITOR = "_ld_visitor"


MARKING: dict[str, Any] = {"cookie": True, "header": None, "secret": None}


class SessionMiddleware:
    """Gives every request a session, to the end of its response body, streamed ones included.

    Put it first in `MIDDLEWARE`: what the others do, and their failures, then belong to the
    session, and the user is still found, because it asks when all of them have seen the request.

    `settings.LDINSTRUMENT` is a dict of options:

    * `context`: a callable, async or not, or its dotted path, that is given the `HttpRequest` and
      answers with a Context, a key of kind `user`, or None. When left out, the primary key of the
      authenticated user.
    * `name`: the prefix of the session's metrics; `request`, or `session` with a store.
    * `client`: takes the events; the `ldclient` singleton at the moment of emission when left out.
    * `ignore`: path patterns that make no session; health checks never make one.
    * `store`: a store, or its address such as `sqlite:///sessions.db`: a session then is a visit of
      many requests, over all workers, and ends in the store (see `ldinstrument.stores`).
    * `cookie`: with a store: a random visitor id is kept in Django's session where the request has
      one, else in a signed cookie; `False` marks nobody, and visits go by context; a string is the
      cookie's name.
    * `header`: a request header that may carry the same, for clients without cookies; the response
      has it, too.
    * `secret`: signs the id; `SECRET_KEY` and its fallbacks when left out.

    Raises:
        DefinitionError: at start-up, for an option that there is not.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        options = _options()
        self.finds_users = options["context"] is None
        is_async = iscoroutinefunction(get_response)
        if not is_async and iscoroutinefunction(options["context"]):
            options["context"] = async_to_sync(options["context"])
        marking = [options.pop(name, default) for name, default in MARKING.items()]
        self.boundary = Boundary(**{**options, "context": options["context"] or logged_in})
        self.visitors = visitors_of(self.boundary.store, *marking)
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
        mine = self._begin(request)
        with _around(mine):
            response = self.get_response(request)
        if self.boundary.asks_again(mine):
            mine.identify(self.boundary.who(request))
        if self._is_over(request, response, mine):
            mine.end()
        return response

    async def _answer_async(self, request: Any) -> Any:
        mine = self._begin(request)
        with _around(mine):
            response = await self.get_response(request)
        if self.boundary.asks_again(mine):
            mine.identify(await self._who_async(request))
        if self._is_over(request, response, mine):
            await mine.aend()
        return response

    # -- who it is, and where --------------------------------------------------------------------
    # Django calls `process_view` when every other middleware has seen the request, and the route is
    # known.
    def _process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        mine = self._noted(request)
        if mine.session is not None:
            self._recognise(request, mine)
            mine.identify(self.boundary.who(request, last=False))

    async def _process_view_async(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        mine = self._noted(request)
        if mine.session is not None:
            if self.visitors is not None:
                await sync_to_async(self._recognise)(request, mine)
            mine.identify(await self._who_async(request, last=False))

    async def _who_async(self, request: Any, *, last: bool = True) -> Any:
        if self.finds_users:
            return await logged_in_async(request)
        if inspect.iscoroutinefunction(self.boundary.context):
            return await self.boundary.who_async(request, last=last)
        # The project's function may ask the database, which Django allows in a thread only.
        return await sync_to_async(self.boundary.who)(request, last=last)

    def _noted(self, request: Any) -> RequestSession:
        mine: RequestSession = getattr(request, "_ldinstrument", None) or RequestSession(None)
        route = getattr(request.resolver_match, "route", None)
        mine.route = f"/{route}" if isinstance(route, str) else None
        return mine

    # -- begin and end ---------------------------------------------------------------------------
    def _begin(self, request: Any) -> RequestSession:
        """The session that an ASGI or WSGI middleware around Django has opened, or one of our
        own.
        """
        outer = request.META.get(REQUEST) or getattr(request, "scope", {}).get(REQUEST)
        mine = outer or self.boundary.begin(
            path=request.path,
            method=request.method or "",
            agent=request.headers.get("User-Agent", ""),
            preflight=request.method == "OPTIONS"
            and "Access-Control-Request-Method" in request.headers,
        )
        request._ldinstrument = mine
        if outer is not None and outer.store is None and self.boundary.store is not None:
            warn_once(
                "store_unused",
                "django",
                "a middleware around Django opens the sessions, and the store in "
                "settings.LDINSTRUMENT is not used: "
                "give that one store=, or put asgi.LifespanMiddleware in its place",
            )
        if self.visitors is not None and outer is None and mine.session is not None:
            name = self.visitors.header
            header = request.headers.get(name) if name else None
            request._ldinstrument_visitor = self.visitors.arrived(
                request.META.get("HTTP_COOKIE", ""), header
            )
            mine.visitor = request._ldinstrument_visitor.id
        return mine

    def _recognise(self, request: Any, mine: RequestSession) -> None:
        """Keep a new visitor's id in Django's session, where the request has one: then no cookie of
        ours is needed.
        """
        arrived = getattr(request, "_ldinstrument_visitor", None)
        if arrived is None or arrived.token is None or not hasattr(request, "session"):
            return
        if settings.SESSION_COOKIE_NAME in request.COOKIES:
            mine.visitor = str(request.session.setdefault(VISITOR, arrived.id))
            request._ldinstrument_visitor = None

    def _is_over(self, request: Any, response: Any, mine: RequestSession) -> bool:
        """Whether the request is over with *response*; a streamed one is when it is closed."""
        if request.META.get(REQUEST) is mine or getattr(request, "scope", {}).get(REQUEST) is mine:
            return False  # whoever opened it sees its end
        mine.status = response.status_code
        self._mark(request, response)
        if not response.streaming:
            mine.returned()
            return True
        is_file = getattr(response, "file_to_stream", None) is not None
        if not is_file:  # a file must stay one, so that the server may use `sendfile`
            follow(response, _Stream(mine))
        response.close = _closing(response.close, mine, complete=is_file or mine.bodiless)
        return False

    def _mark(self, request: Any, response: Any) -> None:
        arrived = getattr(request, "_ldinstrument_visitor", None)
        if self.visitors is None or arrived is None:
            return
        for name, value in self.visitors.answer(
            arrived, request.is_secure(), response.get("Cache-Control", "")
        ):
            if name == "Set-Cookie":
                response.cookies.load(value)
            else:
                response[name] = value


def _options() -> dict[str, Any]:
    given = dict(getattr(settings, "LDINSTRUMENT", None) or {})
    if unknown := sorted(given.keys() - OPTIONS):
        raise DefinitionError(
            f"settings.LDINSTRUMENT: unknown {', '.join(unknown)}; there are {', '.join(sorted(OPTIONS))}"
        )
    context = given.get("context")
    # A plain string would be one user for everybody: here it can only be a path.
    given["context"] = import_string(context) if isinstance(context, str) else context
    given.setdefault("secret", [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])
    return given


@contextmanager
def _around(mine: RequestSession) -> Iterator[None]:
    """The application's turn, with the session current, None included; what it raises ends the
    session.
    """
    before = set_current(mine.session)
    try:
        yield
    except BaseException as error:
        mine.raised(error)
        mine.end()
        raise
    finally:
        set_current(before)


def _closing(
    close: Callable[[], None], mine: RequestSession, *, complete: bool
) -> Callable[[], None]:
    """The response's `close`, which every server calls: the end, early when the stream has not been
    read to its own.
    """

    def closing() -> None:
        (mine.returned if complete else mine.disconnected)()
        mine.resume()
        try:
            close()
        finally:
            mine.pause()
            mine.end()

    return closing


class _Stream:
    """Watches a streamed body. Django's ASGI handler does not close a response whose stream raised:
    the end is here.
    """

    delegates = False

    def __init__(self, mine: RequestSession) -> None:
        self.resume, self.pause, self.first, self.unstarted = (
            mine.resume,
            mine.pause,
            mine.first,
            mine.unstarted,
        )
        self.returned = mine.returned
        self._mine = mine

    def raised(self, error: BaseException) -> None:
        """The stream broke, or nobody reads it any more."""
        self._mine.raised(error)
        self._mine.end()


# -- the user --------------------------------------------------------------------------------------


def logged_in(request: Any) -> str | None:
    """The primary key of the authenticated user, or None.

    A request without a session cookie is not asked: Django would mark its response as varying by
    cookie, and caches would stop working.
    """
    if not _may_be_logged_in(request):
        return None
    user = request.user
    return str(user.pk) if user.is_authenticated else None


async def logged_in_async(request: Any) -> str | None:
    """The same, on an event loop."""
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
