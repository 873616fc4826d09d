"""WSGI: a session per request, from the call of the application to the `close()` of its response
body.

```python
application = SessionMiddleware(application, context=lambda environ: environ.get("REMOTE_USER"))
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from typing import TYPE_CHECKING, Any

from ..callables.followers import WatchedIterator
from ..sessions.postponed import postpone
from .request_metrics import request_context
from .request_session import (
    REQUEST,
    WEBSOCKET,
    RequestSession,
    RequestSessionFactory,
    end_session,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import RequestOptions

__all__ = ["SessionMiddleware", "end_session", "request_context"]

Environ = dict[str, Any]
VisitorHeaders = Callable[[str], list[tuple[str, str]]]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class SessionMiddleware:
    """Gives every request that goes through it a session.

    The session is current in the application, in each step of a streamed body and in its `close()`.
    The request is an interaction: a success below 500, a failure from 500 or when the application
    or its stream raises. A client that leaves before the end makes it abandoned, which counts for
    neither. A websocket that the application serves itself is one interaction, too.

    Args:
        app: the WSGI application. A second middleware inside leaves the request to this one.
        context: a Context, a key of kind `user`, or a callable that is given the WSGI environ.
        options: see `RequestOptions`.
    """

    def __init__(
        self, app: Application, *, context: Any = None, **options: Unpack[RequestOptions]
    ) -> None:
        self.app = app
        self.sessions = RequestSessionFactory(context, **options)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        if REQUEST in environ:
            return self.app(environ, start_response)
        request = environ[REQUEST] = _begin(self.sessions, environ)
        headers = self._visitor_headers(environ, request)
        request.resume()
        try:
            body = self.app(environ, _watched_start(start_response, request, headers))
        except BaseException as error:
            request.pause()
            _raised(request, error)
            request.end()
            raise
        request.pause()
        return _watched_body(body, request, environ)

    def _visitor_headers(self, environ: Environ, request: RequestSession) -> VisitorHeaders | None:
        """Read the visitor's id, and return what makes the response's headers of it."""
        visitors = self.sessions.visitors
        if visitors is None or request.session is None:
            return None
        name = visitors.header
        header = environ.get(f"HTTP_{name.upper().replace('-', '_')}") if name else None
        visitor = visitors.read(environ.get("HTTP_COOKIE", ""), header)
        request.visitor, request.visitor_is_new = visitor.id, visitor.is_new
        secure = environ.get("wsgi.url_scheme") == "https"

        def headers(cache_control: str) -> list[tuple[str, str]]:
            if request.visitor != visitor.id:  # Flask knows another id, from its own session
                return []
            return visitors.response_headers(visitor, secure=secure, cache_control=cache_control)

        return headers


def _begin(sessions: RequestSessionFactory, environ: Environ) -> RequestSession:
    method = str(environ.get("REQUEST_METHOD", "GET"))
    preflight = method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    method = WEBSOCKET if _is_websocket(environ) else method
    if not sessions.takes(
        path=environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        method=method,
        agent=environ.get("HTTP_USER_AGENT", ""),
        preflight=preflight,
    ):
        return RequestSession(None)
    source = sessions.source
    who = source.ask(environ, last=False)
    attributes = partial(_attributes, environ) if sessions.measures_requests else None
    request = sessions.open(method, who=who, attributes=attributes)
    if source.is_asked_again(request):
        request.ask_context = partial(source.ask, environ)
    return request


def _attributes(environ: Environ) -> dict[str, Any]:
    """Return the attributes of the request's own context."""
    return {
        "method": environ.get("REQUEST_METHOD"),
        "host": environ.get("HTTP_HOST"),
        "path": environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        "scheme": environ.get("wsgi.url_scheme"),
        "proto": environ.get("SERVER_PROTOCOL"),
        "userAgent": environ.get("HTTP_USER_AGENT"),
    }


def _is_websocket(environ: Environ) -> bool:
    return str(environ.get("HTTP_UPGRADE", "")).lower() == "websocket"


def _raised(request: RequestSession, error: BaseException) -> None:
    """Note that the application raised; gunicorn's way to hand over a socket is no error."""
    if request.method == WEBSOCKET and isinstance(error, StopIteration):
        request.returned()
    request.raised(error)


def _watched_start(
    start_response: Callable[..., Any], request: RequestSession, headers_for: VisitorHeaders | None
) -> Callable[..., Any]:
    """Return a `start_response` that notes the status, the last one when it is called again."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        code = status[:3]
        request.status = int(code) if code.isdigit() else 0
        if headers_for is not None:
            headers = [*headers, *headers_for(_cache_control(headers))]
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
    return SizedBody(body, request) if isinstance(body, Sized) else Body(body, request)


def _watch_close(body: Any, request: RequestSession) -> bool:
    """Hang the end on the `close` of a file wrapper; tell whether that was possible.

    The wrapper must stay what it is: the server may use `sendfile`.
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
            if not self._request.ends_visit:
                return chunk
        except StopIteration:
            if self._request.ends_visit:
                self._request.end()
            raise
        try:
            self._ahead.append(super().__next__())
        except StopIteration:
            self._request.end()
        return chunk

    def close(self) -> None:
        """Close what is wrapped, and end the session.

        Before the last chunk it means that the client has left.
        """
        self._closed = True
        if self._request.bodiless:
            self._request.returned()
        try:
            super().close()
        finally:
            self._request.end()

    def __del__(self) -> None:
        _close_later(self)


class SizedBody:
    """A body that is there already, such as a list: servers look at its length.

    Like a list it may be iterated more than once: eventlet does so first to add up the lengths. The
    last iteration is the one that counts.
    """

    def __init__(self, inner: Iterable[bytes], request: RequestSession) -> None:
        self._inner: Any = inner
        self._request = request
        self._is_read = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[bytes]:
        request = self._request
        self._is_read = False
        if request.ends_visit:  # as before the last chunk of a `Body`
            request.returned()
            request.end()
        if type(self._inner) in (list, tuple):  # nobody's code runs in there
            yield from self._inner
            self._is_read = True
            return
        chunks = None
        while True:
            request.resume()
            try:
                chunks = iter(self._inner) if chunks is None else chunks
                chunk = next(chunks)
            except StopIteration:
                self._is_read = True
                return
            except BaseException as error:
                request.raised(error)
                raise
            finally:
                request.pause()
            yield chunk

    def close(self) -> None:
        """Close what is wrapped, and end the session; see `Body.close`."""
        if self._closed:
            return
        self._closed = True
        request = self._request
        (request.returned if self._is_read or request.bodiless else request.disconnected)()
        close = getattr(self._inner, "close", None)
        if close is None:
            request.end()
            return
        request.resume()
        try:
            close()
        finally:
            request.pause()
            request.end()

    def __del__(self) -> None:
        _close_later(self)


def _close_later(body: Body | SizedBody) -> None:
    """Close what a test client has forgotten to close.

    Later, because a finaliser is no place to emit (see `postponed.postpone`).
    """
    # At exit, modules are emptied before what they hold.
    if not body._closed and postpone is not None:
        postpone(body.close)
