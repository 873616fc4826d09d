"""What a call returned may still be running: a coroutine, a generator, a response with a streaming
body.

`follow` gives back the same kind of thing, watched to its end. The watcher hears of each resume and
pause, so that a session can be swapped in and out around the user's code, and of the end.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol

from ..diagnostics import log_internal_error
from .templates import ASYNC_GENERATOR, COROUTINE, GENERATOR, Unawaited, follower_shaped, named


class Watcher(Protocol):
    """Hears what becomes of a call. None of its methods may raise."""

    @property
    def delegates(self) -> bool:
        """Whether a generator, once it has begun, needs no resume and pause: `yield from` costs a
        quarter.
        """

    def resume(self) -> None:
        """The user's code is about to run."""

    def pause(self) -> None:
        """The user's code has yielded, or ended."""

    def first(self) -> None:
        """The first item of a stream is there."""

    def unstarted(self) -> None:
        """The end: the stream was closed before anybody asked for an item."""

    def returned(self, result: Any) -> None:
        """The end: it returned, or its items are exhausted."""

    def raised(self, error: BaseException) -> None:
        """The end: *error* came out (`GeneratorExit`: its consumer had enough)."""


Follower = Callable[[Any, Watcher], Any]

_PLAIN: tuple[type, ...] = (
    type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset,
)  # fmt: skip
_KNOWN_CAP = 4096

# Filled as types are seen; the hot path is one look-up. The second is for results of an `await`:
# another awaitable that comes out of it is a value like any other.
plain_types: set[type] = set(_PLAIN)
plain_awaited_types: set[type] = set(_PLAIN)
_followers: dict[type, Follower] = {}


def follow(result: Any, watcher: Watcher, *, awaited: bool = False) -> Any | None:
    """The watched stand-in for a *result* that is still running, or None when it is a plain
    value.
    """
    kind = type(result)
    if kind in (plain_awaited_types if awaited else plain_types):
        return None
    try:
        follower = _follower(kind, awaited)
        return None if follower is None else follower(result, watcher)
    except Exception as error:  # an odd object of the host's: it is handed on as it is
        log_internal_error("following a result", error)
        return None


def _follower(kind: type, awaited: bool) -> Follower | None:
    """How results of this type are followed; None for plain values."""
    known = plain_awaited_types if awaited else plain_types
    found = _followers.get(kind)
    if found is None:
        found = _classify(kind)
        if found is not None and len(_followers) < _KNOWN_CAP:
            _followers[kind] = found
    if found is None or (awaited and found in _AWAITABLES):
        if len(known) > _KNOWN_CAP:  # classes made at run time must not live for ever in here
            known.intersection_update(_PLAIN)
        known.add(kind)
        return None
    return found


def _classify(kind: type) -> Follower | None:
    if issubclass(kind, types.CoroutineType):
        return coroutine
    if issubclass(kind, types.GeneratorType):
        return generator
    if issubclass(kind, types.AsyncGeneratorType):
        return async_generator
    for module, name, follower in _RESPONSES:
        base = getattr(sys.modules.get(module), name, None)
        if isinstance(base, type) and issubclass(kind, base):
            return follower
    if not hasattr(kind, "__await__"):
        return None
    return _future if callable(getattr(kind, "add_done_callback", None)) else _awaitable


def notice_frameworks() -> None:
    """Look into tuples from now on, if Flask is there: its views may return `(generator, headers)`.

    Called when something is decorated, so that other programs do not pay for it at each tuple.
    """
    if "flask" in sys.modules:
        for known in (plain_types, plain_awaited_types):
            known.discard(tuple)
        _followers[tuple] = _flask_tuple


def settled(result: Any, watcher: Watcher) -> Any:
    """What to give the caller for the *result* of a call: watched when it is still running; else
    this was the end.
    """
    running = follow(result, watcher)
    if running is not None:
        return running
    watcher.returned(result)
    return result


def settled_awaited(result: Any, watcher: Watcher) -> Any:
    """The same for the result of an `await`: a stream is watched; another awaitable is a value like
    any other.
    """
    running = follow(result, watcher, awaited=True)
    if running is not None:
        return running
    watcher.returned(result)
    return result


# -- the three that Python makes ------------------------------------------------------------------

_generator = follower_shaped(GENERATOR)
_awaitable_generator = follower_shaped(GENERATOR, awaitable=True)
_async_generator = follower_shaped(ASYNC_GENERATOR)
_coroutine = follower_shaped(COROUTINE, {"_settle": settled_awaited})


def coroutine(inner: Any, watcher: Watcher) -> Any:
    """*inner*, watched; nothing is heard when it is never awaited."""
    if (
        inspect.getcoroutinestate(inner) != inspect.CORO_CREATED
    ):  # whoever drives it has it in hand: it is a value
        return None
    return named(_coroutine(Unawaited(inner), watcher), inner)


def generator(inner: Any, watcher: Watcher) -> Any:
    """*inner*, watched, with the whole generator protocol; nothing is heard when it is never
    iterated.
    """
    awaitable = inner.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE
    return named((_awaitable_generator if awaitable else _generator)(inner, watcher), inner)


def async_generator(inner: Any, watcher: Watcher) -> Any:
    """*inner*, watched, with the whole async generator protocol; nothing is heard when it is never
    iterated.
    """
    return named(_async_generator(inner, watcher), inner)


# -- other awaitables ------------------------------------------------------------------------------


def _future(inner: Any, watcher: Watcher) -> Any:
    """A future or task stays the very object that the application knows; it says itself when it is
    done.
    """
    inner.add_done_callback(lambda done: _heard(done, watcher))
    return inner


def _heard(done: Any, watcher: Watcher) -> None:
    if done.cancelled():
        watcher.raised(_cancelled_error())
        return
    # Not `exception()`: it would mark the exception as retrieved, and asyncio's own complaint would
    # fall silent.
    error = done._exception if hasattr(done, "_exception") else done.exception()
    if error is None:
        watcher.returned(done.result())
    else:
        watcher.raised(error)


def _cancelled_error() -> BaseException:
    import asyncio

    return asyncio.CancelledError()


def _awaitable(inner: Any, watcher: Watcher) -> Any:
    """Any other awaitable: a transparent stand-in whose `await`, `async with` or `send` is
    watched.
    """
    kind: Any = type(inner)
    watched = _watched_type(kind)(inner)
    watched._self_watcher = watcher
    watched._self_driven = None
    return watched


_ASYNC_PROTOCOLS = ("__aenter__", "__aexit__", "__aiter__", "__anext__")


@functools.lru_cache(maxsize=256)
def _watched_type(kind: type) -> Any:
    import wrapt

    def awaiting(self: Any) -> Any:
        return _generator(self.__wrapped__.__await__(), self._self_watcher)

    def passed_on(name: str) -> Any:
        return lambda self, *args: getattr(self.__wrapped__, name)(*args)

    def entering(self: Any) -> Any:
        return _coroutine(self.__wrapped__.__aenter__(), self._self_watcher)

    def driven(self: Any) -> Any:
        if self._self_driven is None:
            self._self_driven = awaiting(self)
        return self._self_driven

    def closing(self: Any) -> Any:
        if self._self_driven is not None:
            self._self_driven.close()
        return self.__wrapped__.close()

    # wrapt 1.x knows no asynchronous protocol, and Python looks these up on the type.
    body: dict[str, Any] = {
        name: passed_on(name) for name in _ASYNC_PROTOCOLS if hasattr(kind, name)
    }
    if "__aenter__" in body:
        body["__aenter__"] = entering
    if issubclass(
        kind, Coroutine
    ):  # a task does not await it, but drives it itself: Cython's, aiohttp's
        body["send"] = lambda self, value: driven(self).send(value)
        body["throw"] = lambda self, *error: driven(self).throw(*error)
        body["close"] = closing
    return type(
        "Watched", (wrapt.ObjectProxy,), {**body, "__await__": awaiting, "__module__": __name__}
    )


# -- responses whose body streams ------------------------------------------------------------------


class WatchedIterator:
    """An iterator, watched to its end or its `close()`; what a WSGI body is wrapped in."""

    def __init__(self, inner: Iterable[Any], watcher: Watcher) -> None:
        self._inner = inner
        self._iterator: Iterator[Any] | None = None
        self._watcher = watcher
        self._first = True
        self._over = False

    def __iter__(self) -> WatchedIterator:
        return self

    def __next__(self) -> Any:
        self._watcher.resume()
        try:
            if self._iterator is None:
                self._iterator = iter(self._inner)
            item = next(self._iterator)
        except StopIteration:
            self._watcher.pause()
            self._end(None)
            raise
        except BaseException as error:
            self._watcher.pause()
            self._end(error)
            raise
        self._watcher.pause()
        if self._first:
            self._first = False
            self._watcher.first()
        return item

    def close(self) -> None:
        """Close what is wrapped; an end before the last item is an early one."""
        close = getattr(self._inner, "close", None)
        self._watcher.resume()
        try:
            if close is not None:
                close()
        except BaseException as error:
            self._watcher.pause()
            self._end(error)
            raise
        self._watcher.pause()
        self._end(GeneratorExit())

    def _end(self, error: BaseException | None) -> None:
        if self._over:
            return
        self._over = True
        if error is None:
            self._watcher.returned(None)
        elif self._iterator is None and isinstance(error, GeneratorExit):
            self._watcher.unstarted()
        else:
            self._watcher.raised(error)


def _starlette(response: Any, watcher: Watcher) -> Any:
    """Starlette (and FastAPI) `StreamingResponse`, and its like for server-sent events: the body is
    watched.
    """
    if not hasattr(response, "body_iterator"):
        return None
    response.body_iterator = _async_body(response.body_iterator, watcher)
    return response


def _async_body(body: Any, watcher: Watcher) -> Any:
    return async_generator(
        body if isinstance(body, types.AsyncGeneratorType) else _items(body), watcher
    )


async def _items(body: Any) -> AsyncGenerator[Any, Any]:
    try:
        async for item in body:
            yield item
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()


def _werkzeug(response: Any, watcher: Watcher) -> Any:
    """Werkzeug (and Flask) `Response`: a streamed body is watched, a ready one has ended already.

    So has a file: the server may recognise its wrapper and send it without Python, and Werkzeug
        then closes nothing.
    """
    if not response.is_streamed or response.direct_passthrough:
        return None
    response.response = WatchedIterator(response.response, watcher)
    return response


def _flask_tuple(result: tuple[Any, ...], watcher: Watcher) -> Any:
    """What a Flask view returned, `(body, status, headers)`, with its body watched when that
    streams.
    """
    flask = sys.modules.get("flask")
    if flask is None or not 2 <= len(result) <= 3 or not flask.has_request_context():
        return None
    body = follow(result[0], watcher, awaited=True)
    return None if body is None else (body, *result[1:])


def _django(response: Any, watcher: Watcher) -> Any:
    """Django `StreamingHttpResponse`, with a sync or an async body; a file is left to the
    server.
    """
    if hasattr(response, "file_to_stream"):
        return None
    if response.is_async:
        response.streaming_content = _async_body(response.streaming_content, watcher)
    else:
        response.streaming_content = WatchedIterator(response.streaming_content, watcher)
    return response


_AWAITABLES = (coroutine, _future, _awaitable)
_RESPONSES: tuple[tuple[str, str, Follower], ...] = (
    ("starlette.responses", "Response", _starlette),
    ("werkzeug.wrappers", "Response", _werkzeug),
    ("django.http", "StreamingHttpResponse", _django),
)
