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
from ..sessions.current import current_variable
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
        request = environ[REQUEST] = self._opened(environ)

        # Our session is current in the application's code, and nowhere else.
        outside = current_variable.get()
        current_variable.set(request.inside)
        try:
            body = self.app(environ, partial(self._start, request, environ, start_response))
        except BaseException as error:
            current_variable.set(outside)
            _raised(request, error)
            request.end()
            raise
        request.inside = current_variable.get()
        current_variable.set(outside)
        if type(body) in (list, tuple):
            return SizedBody(body, request)
        return _watched_body(body, request, environ)

    def _opened(self, environ: Environ) -> RequestSession:
        """Open the session of a request: for whom, and of which visitor."""
        sessions, find = self.sessions, environ.get
        source, visitors = sessions.source, sessions.visitors
        method = find("REQUEST_METHOD", "GET")
        if find("HTTP_UPGRADE", "").lower() == "websocket":
            method = WEBSOCKET
        if not sessions.takes(
            path=find("SCRIPT_NAME", "") + find("PATH_INFO", ""),
            method=method,
            agent=find("HTTP_USER_AGENT", ""),
            preflight=method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ,
        ):
            return RequestSession(None)

        request = sessions.open(
            method,
            who=source.ask(environ, last=False),
            baggage=find("HTTP_BAGGAGE"),
            cookies=find("HTTP_COOKIE", ""),
            header=find(visitors.environ_name) if visitors is not None else None,
            attributes=partial(_attributes, environ) if sessions.measures_requests else None,
        )
        if source.may_answer_later and not request.identified:
            request.ask_context = partial(source.ask, environ)
        return request

    def _start(
        self,
        request: RequestSession,
        environ: Environ,
        start_response: Callable[..., Any],
        status: str,
        headers: list[tuple[str, str]],
        *exc_info: Any,
    ) -> Any:
        """Note the status, the last one when this is called again; add the visitor's id."""
        code = status[:3]
        request.status = int(code) if code.isdigit() else 0
        visitors, visitor = self.sessions.visitors, request.read_visitor
        # Flask may know another id, from its own session.
        if visitors is not None and visitor is not None and request.visitor == visitor.id:
            secure = environ.get("wsgi.url_scheme") == "https"
            cache_control = ",".join(
                [value for name, value in headers if name.lower() == "cache-control"]
            )
            headers = [
                *headers,
                *visitors.response_headers(visitor, secure=secure, cache_control=cache_control),
            ]
        return start_response(status, headers, *exc_info)


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


def _raised(request: RequestSession, error: BaseException) -> None:
    """Note that the application raised; gunicorn's way to hand over a socket is no error."""
    if request.method == WEBSOCKET and isinstance(error, StopIteration):
        request.returned()
    request.raised(error)


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
        if not self._closed:
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
        else:
            yield from self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        """Yield what the application makes, with the session current in each step."""
        request, chunks = self._request, None
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
        if self._is_read or request.bodiless:
            request.set_outcome()
        else:
            request.disconnected()
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
        if not self._closed:
            _close_later(self)


def _close_later(body: Body | SizedBody) -> None:
    """Close what a test client has forgotten to close.

    Later, because a finaliser is no place to emit (see `postponed.postpone`).
    """
    if postpone is not None:  # at exit, modules are emptied before what they hold
        postpone(body.close)
