"""Flask: a session per request, for the user that Flask knows.

```python
app = Flask(__name__)
instrument(app, context=lambda request: request.headers.get("X-User"))
```
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from ..diagnostics import log_internal_error, warn_once
from ..errors import missing_extra
from ..sessions.emission import Tracker
from .request_session import REQUEST, Boundary, RequestSession, end_session
from .visitors import Secret, may_be_shared
from .wsgi import SessionMiddleware

try:
    from flask import Flask, globals, has_request_context, request, session
except ImportError as error:
    raise missing_extra("flask", "flask") from error

__all__ = ["end_session", "instrument", "logged_in"]

EXTENSION = "ldinstrument"
VISITOR = "_ld_visitor"
App = TypeVar("App", bound=Flask)


def instrument(
    app: App,
    context: Any = None,
    *,
    name: str | None = None,
    client: Tracker | None = None,
    ignore: Iterable[str] = (),
    store: Any = None,
    cookie: bool | str = True,
    header: str | None = None,
    secret: Secret = None,
) -> App:
    """Give every request of *app* a session, from its first `before_request` to the end of its
    response body.

    The data of the session's events names the route (`/items/<int:item>`), the method and the
    status. A login inside the request is found by asking *context* once more at its end;
    `current_session().identify(...)` is sooner.

    Args:
        app: the application; doing it twice is harmless.
        context: a Context, a key of kind `user`, or a callable that is given Flask's request and
            answers with one of these, or None. When left out, the user of Flask-Login, where it is
            in use.
        name: the prefix of the session's metrics: `<name>.duration`, `<name>.success_rate`,
            `<name>.interactions`. None is `request`, or `session` with a store.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        ignore: path patterns that make no session; the application's static files and health checks
            never make one.
        store: a store, or its address such as `sqlite:///sessions.db`: a session then is a visit of
            many requests, over all workers, and ends in the store (see `ldinstrument.stores`).
        cookie: with a store: Flask's own session carries a random visitor id. False marks nobody,
            and visits go by context.
        header: a request header that may carry a signed visitor id instead, for clients without
            cookies; the response to a new visitor has it, too. Signed with *secret*, or the
            application's secret key.
        secret: carry the id in a cookie of its own, called *cookie*, and sign it with this.

    Returns:
        *app*.
    """
    if EXTENSION in app.extensions:
        return app
    middleware = SessionMiddleware(
        app.wsgi_app, name=name, client=client, ignore=[*_static(app), *_listed(ignore)],
        store=store, cookie=cookie if secret is not None else False, header=header, secret=secret or app.secret_key,
    )  # fmt: skip
    # The middleware opens and ends; whose session it is, Flask knows: the same metrics, asked of
    # another request.
    boundary = Boundary(logged_in if context is None else context, name=middleware.boundary.name)
    app.extensions[EXTENSION] = middleware
    app.wsgi_app = middleware  # type: ignore[method-assign]
    # First of all, so that the others, such as a check of rights, already have the session's user.
    steps = app.before_request_funcs.setdefault(None, [])
    steps.insert(0, lambda: _begin(boundary))
    visits = Visits(app) if store is not None and cookie and secret is None else None
    if visits is not None:
        steps.insert(0, visits.recognise)
    app.after_request_funcs.setdefault(None, []).insert(
        0, lambda response: _answer(boundary, visits, response)
    )
    return app


def logged_in(request: Any) -> str | None:
    """The id of Flask-Login's user, or None: nobody is logged in, or there is no Flask-Login."""
    module = sys.modules.get("flask_login")
    if module is None or not has_request_context():
        return None
    user = module.current_user
    return str(user.get_id()) if user is not None and user.is_authenticated else None


def _listed(ignore: Iterable[str]) -> list[str]:
    return [ignore] if isinstance(ignore, str) else list(ignore)


def _static(app: Flask) -> list[str]:
    return [f"{app.static_url_path}/*"] if app.has_static_folder else []


def _mine() -> RequestSession | None:
    found = request.environ.get(REQUEST)
    return found if isinstance(found, RequestSession) else None


def _begin(boundary: Boundary) -> None:
    mine = _mine()
    if mine is None or mine.session is None:
        return
    mine.route = request.url_rule.rule if request.url_rule is not None else None
    mine.identify(boundary.who(request._get_current_object(), last=False))  # type: ignore[attr-defined]


def _answer(boundary: Boundary, visits: Visits | None, response: Any) -> Any:
    mine = _mine()
    if mine is None or mine.session is None:
        return response
    known = mine.identified
    if boundary.asks_again(mine):
        mine.identify(boundary.who(request._get_current_object()))  # type: ignore[attr-defined]
    if visits is not None:
        visits.remember(mine, response, logged_in=mine.identified and not known)
    return response


class Visits:
    """The visitor's id in Flask's own session. What an odd session does costs the visit, never the
    page.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app

    def recognise(self) -> None:
        """Find the id that the request has brought, or make a new one."""
        mine = _mine()
        if mine is None or mine.session is None:
            return
        if not self._app.secret_key:
            warn_once(
                "no_visitor",
                "flask",
                "Flask's session carries the visitor's id: set app.secret_key; visits go by "
                "context",
            )
            return
        if mine.visitor is not None and not mine.is_new:  # by the header
            return
        try:
            found = _peeked()
        except Exception as error:
            log_internal_error("reading Flask's session", error)
            return
        mine.is_new = found is None
        if found is not None:
            mine.visitor = str(found)
        elif mine.visitor is None:
            mine.visitor = secrets.token_urlsafe(16)

    def remember(self, mine: RequestSession, response: Any, *, logged_in: bool) -> None:
        """Keep the id of a new visitor, also over a login that begins with `session.clear()`.

        Not on a response that a shared cache may keep: it must carry nobody's id.
        """
        if mine.visitor is None or not (mine.is_new or logged_in):
            return
        try:
            if not may_be_shared(response.headers.get("Cache-Control", "")) and _peeked() is None:
                session[VISITOR] = mine.visitor
        except Exception as error:
            log_internal_error("writing Flask's session", error)


def _peeked() -> Any:
    """The id in Flask's session. No page depends on it, so reading it must not make the page vary
    by cookie.
    """
    held = getattr(globals.request_ctx, "_session", None)
    if held is None:  # before Flask 3.1.3 the proxy leaves no mark
        held = session._get_current_object()  # type: ignore[attr-defined]
    marked = getattr(held, "accessed", True)
    try:
        return held.get(VISITOR)
    finally:
        if not marked:
            held.accessed = False
