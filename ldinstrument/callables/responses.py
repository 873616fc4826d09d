"""Watch the streaming body of a web framework's response; the response stays the object it is.

The frameworks are found by name among the loaded modules; none is imported.
"""

from __future__ import annotations

import types
from typing import Any

from .followers import (
    Follower,
    WatchedAsyncIterator,
    WatchedIterator,
    Watcher,
    async_generator,
    is_owned,
)


def _async_body(owner: Any, attribute: str, watcher: Watcher) -> Any:
    """Return the async body that is *owner*'s *attribute*, watched. A generator that somebody else
    holds, too, is not closed when the response is dropped.
    """
    owned = is_owned(owner, attribute)
    body = getattr(owner, attribute)
    if owned and isinstance(body, types.AsyncGeneratorType):
        return async_generator(body, watcher)
    return WatchedAsyncIterator(body, watcher)


def _starlette(response: Any, watcher: Watcher) -> Any:
    """Starlette (and FastAPI) `StreamingResponse`, and its like for server-sent events."""
    if not hasattr(response, "body_iterator"):
        return None
    response.body_iterator = _async_body(response, "body_iterator", watcher)
    return response


def _werkzeug(response: Any, watcher: Watcher) -> Any:
    """Werkzeug (and Flask) `Response`: a streamed body is watched, a ready one has ended already.

    So has a file: the server may recognise its wrapper and send it without Python, and Werkzeug
    then closes nothing.
    """
    if not response.is_streamed or response.direct_passthrough:
        return None
    response.response = WatchedIterator(response.response, watcher)
    return response


def _django(response: Any, watcher: Watcher) -> Any:
    """Django `StreamingHttpResponse`, with a sync or an async body; a file is left to the
    server.
    """
    if hasattr(response, "file_to_stream"):
        return None
    if response.is_async:
        response.streaming_content = WatchedAsyncIterator(response.streaming_content, watcher)
    else:
        response.streaming_content = WatchedIterator(response.streaming_content, watcher)
    return response


def _litestar(response: Any, watcher: Watcher) -> Any:
    """Litestar `Stream` and `ServerSentEvent`: the iterator, or the function that makes it."""
    body = response.iterator
    if hasattr(body, "__aiter__"):
        response.iterator = _async_body(response, "iterator", watcher)
    elif hasattr(body, "__iter__"):
        response.iterator = WatchedIterator(body, watcher)
    elif callable(body):
        response.iterator = lambda: _litestar_body(body(), watcher)
    else:
        return None
    return response


def _litestar_body(body: Any, watcher: Watcher) -> Any:
    if hasattr(body, "__aiter__"):
        return WatchedAsyncIterator(body, watcher)
    return WatchedIterator(body, watcher)


def _quart(response: Any, watcher: Watcher) -> Any:
    """Quart `Response` whose body is an iterable; text and files have ended already."""
    body = response.response
    if not hasattr(body, "iter"):
        return None
    body.iter = _async_body(body, "iter", watcher)
    return response


def _webob(response: Any, watcher: Watcher) -> Any:
    """WebOb (and Pyramid) `Response` whose body is a generator; others have ended already."""
    return _generator_body(response, "app_iter", watcher)


def _bottle(response: Any, watcher: Watcher) -> Any:
    """Bottle `HTTPResponse` whose body is a generator; others have ended already."""
    return _generator_body(response, "body", watcher)


def _generator_body(response: Any, attribute: str, watcher: Watcher) -> Any:
    body = getattr(response, attribute)
    if not isinstance(body, types.GeneratorType):
        return None
    setattr(response, attribute, WatchedIterator(body, watcher))
    return response


RESPONSES: tuple[tuple[str, str, Follower], ...] = (
    ("starlette.responses", "Response", _starlette),
    ("werkzeug.wrappers", "Response", _werkzeug),
    ("django.http", "StreamingHttpResponse", _django),
    ("litestar.response", "Stream", _litestar),
    ("quart.wrappers", "Response", _quart),
    ("webob", "Response", _webob),
    ("bottle", "HTTPResponse", _bottle),
)
"""Module, class and follower of each framework's streaming response."""
