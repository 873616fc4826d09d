"""Flask: a session per request, for the user that Flask knows.

```python
app = Flask(__name__)
instrument(app, context=lambda request: request.headers.get("X-User"))
```
"""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from ..diagnostics import guard, warn_once
from ..errors import missing_extra
from .options import ignored_paths
from .request_metrics import request_context
from .request_session import (
    REQUEST,
    ContextSource,
    RequestSession,
    end_session,
)
from .visitors import may_be_shared
from .wsgi import SessionMiddleware

try:
    from flask import Flask, current_app, has_request_context, request, request_started, session
except ImportError as error:
    raise missing_extra("flask", "flask") from error

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import RequestOptions

__all__ = ["end_session", "instrument", "logged_in", "request_context"]

EXTENSION = "ldinstrument"
VISITOR = "_ld_visitor"
App = TypeVar("App", bound=Flask)


def instrument(app: App, context: Any = None, **options: Unpack[RequestOptions]) -> App:
    """Give every request of *app* a session, from its first `before_request` to the end of its
    response body.

    The data of the session's events names the route (`/items/<int:item>`), the method and the
    status. A login inside the request is found by asking *context* once more at its end;
    `ldinstrument.identify(...)` is sooner.

    Args:
        app: the application; doing it twice is harmless.
        context: a Context, a key of kind `user`, or a callable that is given Flask's request and
            answers with one of these, or None. When left out, the user of Flask-Login, where it is
            in use.
        options: see `RequestOptions`. The application's static files never make a session. With a
            store, Flask's own session carries the visitor's id, unless `secret` is given or
            `cookie` is False; a `header` is signed with `secret`, or the application's secret key.

    Returns:
        *app*.
    """
    if EXTENSION in app.extensions:
        return app
    middleware = SessionMiddleware(app.wsgi_app, **_wsgi_options(app, options))
    app.extensions[EXTENSION] = middleware
    app.wsgi_app = middleware  # type: ignore[method-assign]
    # The middleware opens and ends; whose session it is, Flask knows.
    visitors = _flask_visitors(options)
    if visitors is not None:
        request_started.connect(visitors.read, app, weak=False)
    steps = _RequestSteps(logged_in if context is None else context, visitors)
    # First of all, so that the others, such as a check of rights, already have the session's user.
    app.before_request_funcs.setdefault(None, []).insert(0, steps.before_request)
    app.after_request_funcs.setdefault(None, []).insert(0, steps.after_request)
    return app


def _wsgi_options(app: Flask, options: RequestOptions) -> RequestOptions:
    """Return the options of the WSGI middleware: what Flask's own session carries, it need not."""
    static = [f"{app.static_url_path}/*"] if app.has_static_folder else []
    changed: RequestOptions = {**options, "ignore": [*static, *ignored_paths(options)]}
    if options.get("secret") is None:
        changed["cookie"] = False
        changed["secret"] = app.secret_key
    return changed


def _flask_visitors(options: RequestOptions) -> FlaskVisitors | None:
    in_flask = options.get("cookie", True) and options.get("secret") is None
    return FlaskVisitors() if options.get("store") is not None and in_flask else None


def logged_in(request: Any) -> str | None:
    """Return the id of Flask-Login's user; None when nobody is logged in, or without
    Flask-Login.
    """
    module = sys.modules.get("flask_login")
    if module is None or not has_request_context():
        return None
    user = module.current_user
    return str(user.get_id()) if user is not None and user.is_authenticated else None


def _current_request() -> RequestSession | None:
    """Return what the middleware has opened for Flask's request; None for one without a session."""
    found = request.environ.get(REQUEST)
    return found if isinstance(found, RequestSession) and found.session is not None else None


def _flask_request() -> Any:
    """Return Flask's request itself: a user's function may keep it for longer than the proxy."""
    return request._get_current_object()  # type: ignore[attr-defined]


class _RequestSteps:
    """What happens to a request inside Flask: its user and its route are found.

    Args:
        context: as of `instrument`.
        visitors: keep visitors' ids in Flask's session; None where they are not kept there.
    """

    def __init__(self, context: Any, visitors: FlaskVisitors | None) -> None:
        self._source = ContextSource(context)
        self._visitors = visitors

    def before_request(self) -> None:
        """Find the route and the user."""
        current = _current_request()
        if current is None:
            return
        current.route = request.url_rule.rule if request.url_rule is not None else None
        current.identify(self._source.ask(_flask_request(), last=False))

    def after_request(self, response: Any) -> Any:
        """Find a user who has logged in meanwhile, and keep a new visitor's id."""
        current = _current_request()
        if current is None:
            return response
        known = current.identified
        current.note_trace()
        if self._source.is_asked_again(current):
            current.identify(self._source.ask(_flask_request()))
        if self._visitors is not None:
            logged_in = current.identified and not known
            self._visitors.write(current, response, logged_in=logged_in)
        return response


class FlaskVisitors:
    """Reads and writes the visitor's id in Flask's own session.

    An odd session costs the visit, never the page.
    """

    def read(self, sender: Any = None, **_: Any) -> None:
        """Find the id that the request has brought, or make a new one: before anybody else has
        looked into the session.
        """
        current = _current_request()
        if current is None:
            return
        if not current_app.secret_key:
            warn_once(
                "no_visitor",
                "flask",
                "Flask's session carries the visitor's id: set app.secret_key; visits go by "
                "context",
            )
            return
        if current.visitor is not None and not current.visitor_is_new:  # by the header
            return
        with guard("reading Flask's session"):
            found = _unmarked_visitor()
            current.visitor_is_new = found is None
            if found is not None:
                current.visitor = str(found)
            elif current.visitor is None:
                current.visitor = secrets.token_urlsafe(16)

    def write(self, current: RequestSession, response: Any, *, logged_in: bool) -> None:
        """Keep the id of a new visitor, also over a login that begins with `session.clear()`.

        Not on a response that a shared cache may keep: it must carry nobody's id.
        """
        if current.visitor is None or not (current.visitor_is_new or logged_in):
            return
        with guard("writing Flask's session"):
            cache_control = response.headers.get("Cache-Control", "")
            if not may_be_shared(cache_control) and VISITOR not in session:
                session[VISITOR] = current.visitor


def _unmarked_visitor() -> Any:
    """Return the id in Flask's session as if nobody had looked.

    No page depends on the id, so that looking for it must not make pages vary by cookie.
    """
    held = session._get_current_object()  # type: ignore[attr-defined]
    try:
        return held.get(VISITOR)
    finally:
        # A session that says by its class that nobody has used it yet keeps saying so. (Others
        # count as used from the start.)
        if not getattr(type(held), "accessed", True):
            held.accessed = False
