"""WSGI: a session per request, from the call of the application to the `close()` of its response
body.

```python
application = SessionMiddleware(application, context=lambda environ: environ.get("REMOTE_USER"))
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..callables.streams import WatchedIterator
from ..sessions.emission import Tracker, postpone
from .request_session import REQUEST, Boundary, RequestSession, end_session
from .visitors import Secret, visitors_of

__all__ = ["SessionMiddleware", "end_session"]

Environ = dict[str, Any]
Marks = Callable[[str], list[tuple[str, str]]]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class SessionMiddleware:
    """Gives every request that goes through it a session; see `Boundary` for the arguments.

    The session is current in the application, in each step of a streamed body and in its `close()`.
    The request is an
    interaction: a success below 500, a failure from 500 or when the application or its stream
    raises. A client that leaves before the end makes it abandoned, which counts for neither.

    Args:
        app: the WSGI application. A second middleware inside leaves the request to this one.
        context: a Context, a key of kind `user`, or a callable that is given the WSGI environ.
        name: the prefix of the session's metrics: `<name>.duration`, `<name>.success_rate`,
            `<name>.interactions`. None is `request`, or `session` with a store.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        ignore: path patterns that make no session, such as `/static/*`; health checks never make
            one.
        store: a store, or its address such as `sqlite:///sessions.db`: a session then is a visit of
            many requests, over all workers, and ends in the store (see `ldinstrument.stores`).
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
        client: Tracker | None = None,
        ignore: Iterable[str] = (),
        store: Any = None,
        cookie: bool | str = True,
        header: str | None = None,
        secret: Secret = None,
    ) -> None:
        self.app = app
        self.boundary = Boundary(context, name=name, client=client, ignore=ignore, store=store)
        self.visitors = visitors_of(store, cookie, header, secret)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        if REQUEST in environ:
            return self.app(environ, start_response)
        request = environ[REQUEST] = _begin(self.boundary, environ)
        marks = self._recognise(environ, request)
        request.resume()
        try:
            body = self.app(environ, _watched_start(start_response, request, marks))
        except BaseException as error:
            request.pause()
            request.raised(error)
            request.end()
            raise
        request.pause()
        return _watched_body(body, request, environ)

    def _recognise(self, environ: Environ, request: RequestSession) -> Marks | None:
        """Find the visitor, and what the response has to bring him."""
        if self.visitors is None or request.session is None:
            return None
        name = self.visitors.header
        header = environ.get(f"HTTP_{name.upper().replace('-', '_')}") if name else None
        visitor = self.visitors.arrived(environ.get("HTTP_COOKIE", ""), header)
        request.visitor, request.is_new = visitor.id, visitor.is_new
        secure, visitors = environ.get("wsgi.url_scheme") == "https", self.visitors

        def marks(cacheable: str) -> list[tuple[str, str]]:
            # Flask may know the visitor by another id, from its own session.
            return (
                visitors.answer(visitor, secure, cacheable) if request.visitor == visitor.id else []
            )

        return marks


def _begin(boundary: Boundary, environ: Environ) -> RequestSession:
    method = str(environ.get("REQUEST_METHOD", "GET"))
    request = boundary.begin(
        path=environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        method=method,
        agent=environ.get("HTTP_USER_AGENT", ""),
        preflight=method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ,
    )
    if request.session is not None:
        request.identify(boundary.who(environ, last=False))
        if boundary.asks_again(request):
            request.ask = partial(boundary.who, environ)
    return request


def _watched_start(
    start_response: Callable[..., Any], request: RequestSession, marks: Marks | None
) -> Callable[..., Any]:
    """Hears the status; an application may call it again with `exc_info`, then the second one
    holds.
    """

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        code = status[:3]
        request.status = int(code) if code.isdigit() else 0
        if marks is not None:
            headers = [*headers, *marks(_cache_control(headers))]
        return start_response(status, headers, *exc_info)

    return start


def _cache_control(headers: list[tuple[str, str]]) -> str:
    return ",".join(value for name, value in headers if name.lower() == "cache-control")


def _watched_body(
    body: Iterable[bytes], request: RequestSession, environ: Environ
) -> Iterable[bytes]:
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper) and _watch_close(body, request):
        return body
    return (SizedBody if hasattr(body, "__len__") else Body)(body, request)


def _watch_close(body: Any, request: RequestSession) -> bool:
    """Hang the end on the `close` of a file wrapper, which must stay what it is: the server may use
    `sendfile`.
    """
    close = getattr(body, "close", None)

    def closing() -> None:
        try:
            if close is not None:
                close()
        finally:
            request.returned()
            request.end()

    try:
        body.close = closing
    except AttributeError:
        return False
    return True


class Body(WatchedIterator):
    """A response body: the session is current in each step, and ends with `close()`, which every
    server calls.

    The last chunk of a logout waits for the store: whoever has read it, and asks for a page, begins
        the next visit.
    """

    def __init__(self, inner: Iterable[bytes], request: RequestSession) -> None:
        super().__init__(inner, request)
        self._request = request
        self._ahead: list[bytes] = []
        self._closed = False

    def __next__(self) -> bytes:
        try:
            chunk: bytes = self._ahead.pop() if self._ahead else super().__next__()
            if not self._request.leaving:
                return chunk
        except StopIteration:
            if self._request.leaving:
                self._request.end()
            raise
        try:
            self._ahead.append(super().__next__())
        except StopIteration:
            self._request.end()
        return chunk

    def close(self) -> None:
        """Close what is wrapped, and end the session. Before the last chunk it means that the
        client has left.
        """
        self._closed = True
        if self._request.bodiless:
            self._request.returned()
        try:
            super().close()
        finally:
            self._request.end()

    def __del__(self) -> None:
        # A test client that never closes its response; a finaliser is no place to emit (see
        # emission.postpone).
        if (
            not self._closed and postpone is not None
        ):  # at exit, modules are emptied before what they hold
            postpone(self.close)


class SizedBody(Body):
    """A body that is there already, such as a list: servers look at its length."""

    _inner: Any

    def __len__(self) -> int:
        return len(self._inner)
