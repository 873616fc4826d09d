"""Flask: a session per request, for the user that Flask knows.

```python
app = Flask(__name__)
instrument(app, context=lambda request: request.headers.get("X-User"))
```
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from ..emission import Tracker
from ..errors import missing_extra
from .boundaries import REQUEST, Boundary, RequestSession
from .wsgi import SessionMiddleware

try:
    from flask import Flask, has_request_context, request
except ImportError as error:
    raise missing_extra("flask", "flask") from error

EXTENSION = "ldinstrument"
App = TypeVar("App", bound=Flask)


def instrument(
    app: App,
    context: Any = None,
    *,
    name: str = "request",
    client: Tracker | None = None,
    ignore: Iterable[str] = (),
) -> App:
    """Give every request of *app* a session, from its first `before_request` to the end of its response body.

    The data of the session's events names the route (`/items/<int:item>`), the method and the status. A login
    inside the request is found by asking *context* once more at its end; `current_session().identify(...)` is sooner.

    Args:
        app: the application; doing it twice is harmless.
        context: a Context, a key of kind `user`, or a callable that is given Flask's request and answers with one of
            these, or None. When left out, the user of Flask-Login, where it is in use.
        name: the prefix of the session's metrics: `<name>.duration`, `<name>.success_rate`, `<name>.interactions`.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        ignore: path patterns that make no session; the application's static files and health checks never make one.

    Returns:
        *app*.
    """
    if EXTENSION in app.extensions:
        return app
    boundary = Boundary(logged_in if context is None else context, name=name, client=client)
    middleware = SessionMiddleware(app.wsgi_app, name=name, client=client, ignore=[*_static(app), *_listed(ignore)])
    app.extensions[EXTENSION] = middleware
    app.wsgi_app = middleware  # type: ignore[method-assign]
    # First of all, so that the others, such as a check of rights, already have the session's user.
    app.before_request_funcs.setdefault(None, []).insert(0, lambda: _begin(boundary))
    app.after_request_funcs.setdefault(None, []).insert(0, lambda response: _answer(boundary, response))
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


def _answer(boundary: Boundary, response: Any) -> Any:
    mine = _mine()
    if mine is not None and boundary.asks_again(mine):
        mine.identify(boundary.who(request._get_current_object()))  # type: ignore[attr-defined]
    return response
