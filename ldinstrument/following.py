"""What a call returned may still be running: a coroutine, a generator, a response with a streaming body.

`follow` gives back the same kind of thing, watched to its end. The watcher hears of each resume and pause, so that a
session can be swapped in and out around the user's code, and of the end.
"""

from __future__ import annotations

import sys
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator
from typing import Any, Protocol


class Watcher(Protocol):
    """Hears what becomes of a call. None of its methods may raise."""

    def resume(self) -> None:
        """The user's code is about to run."""

    def pause(self) -> None:
        """The user's code has yielded, or ended."""

    def first(self) -> None:
        """The first item of a stream is there."""

    def returned(self, result: Any) -> None:
        """The end: it returned, or its items are exhausted."""

    def raised(self, error: BaseException) -> None:
        """The end: *error* came out (`GeneratorExit`: its consumer had enough)."""


Follower = Callable[[Any, Watcher], Any]

_PLAIN: tuple[type, ...] = (
    type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset,
)  # fmt: skip
_KNOWN_CAP = 4096

# Filled as types are seen; the hot path is one dictionary look-up.
followers: dict[type, Follower | None] = dict.fromkeys(_PLAIN)


def follow(result: Any, watcher: Watcher) -> Any | None:
    """The watched stand-in for a *result* that is still running, or None when it is a plain value."""
    follower = follower_of(type(result))
    return None if follower is None else follower(result, watcher)


def follower_of(kind: type) -> Follower | None:
    """How results of this type are followed; None for plain values."""
    try:
        return followers[kind]
    except KeyError:
        if len(followers) > _KNOWN_CAP:  # classes made at run time must not live for ever in here
            for known in list(followers):
                if known not in _PLAIN:
                    del followers[known]
        found = followers[kind] = _classify(kind)
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
    if callable(getattr(kind, "add_done_callback", None)) and hasattr(kind, "__await__"):
        return _future
    return _awaitable if hasattr(kind, "__await__") else None


# -- the three that Python makes ------------------------------------------------------------------


def coroutine(inner: Coroutine[Any, Any, Any], watcher: Watcher) -> Coroutine[Any, Any, Any]:
    """*inner*, watched; nothing is heard when it is never awaited."""
    outer = _coroutine(inner, watcher)
    outer.__name__, outer.__qualname__ = inner.__name__, inner.__qualname__
    return outer


async def _coroutine(inner: Coroutine[Any, Any, Any], watcher: Watcher) -> Any:
    watcher.resume()
    try:
        result = await inner
    except BaseException as error:
        watcher.pause()
        watcher.raised(error)
        raise
    watcher.pause()
    watcher.returned(result)
    return result


def generator(inner: Generator[Any, Any, Any], watcher: Watcher) -> Generator[Any, Any, Any]:
    """*inner*, watched, with the whole generator protocol; nothing is heard when it is never iterated."""
    outer = _generator(inner, watcher)
    outer.__name__, outer.__qualname__ = inner.__name__, inner.__qualname__
    return outer


def _generator(inner: Generator[Any, Any, Any], watcher: Watcher) -> Generator[Any, Any, Any]:
    step: Callable[[], Any] = inner.__next__
    started = False
    while True:
        watcher.resume()
        try:
            item = step()
        except StopIteration as stop:
            watcher.pause()
            watcher.returned(stop.value)
            return stop.value
        except BaseException as error:
            watcher.pause()
            watcher.raised(error)
            raise
        watcher.pause()
        if not started:
            started = True
            watcher.first()
        try:
            sent = yield item
        except GeneratorExit as exit:
            _close(inner, watcher, exit)
            raise
        except BaseException as error:
            step = _thrower(inner.throw, error)
        else:
            step = inner.__next__ if sent is None else _sender(inner.send, sent)


def _close(inner: Generator[Any, Any, Any], watcher: Watcher, exit: GeneratorExit) -> None:
    watcher.resume()
    try:
        inner.close()
    except BaseException as error:
        watcher.pause()
        watcher.raised(error)
        raise
    watcher.pause()
    watcher.raised(exit)


def async_generator(inner: AsyncGenerator[Any, Any], watcher: Watcher) -> AsyncGenerator[Any, Any]:
    """*inner*, watched, with the whole async generator protocol; nothing is heard when it is never iterated."""
    outer = _async_generator(inner, watcher)
    outer.__name__, outer.__qualname__ = _names(inner)  # type: ignore[attr-defined]
    return outer


def _names(inner: Any) -> tuple[str, str]:
    return inner.__name__, inner.__qualname__


async def _async_generator(inner: AsyncGenerator[Any, Any], watcher: Watcher) -> AsyncGenerator[Any, Any]:
    step: Callable[[], Any] = inner.__anext__
    started = False
    while True:
        watcher.resume()
        try:
            item = await step()
        except StopAsyncIteration:
            watcher.pause()
            watcher.returned(None)
            return
        except BaseException as error:
            watcher.pause()
            watcher.raised(error)
            raise
        watcher.pause()
        if not started:
            started = True
            watcher.first()
        try:
            sent = yield item
        except GeneratorExit as exit:
            await _aclose(inner, watcher, exit)
            raise
        except BaseException as error:
            step = _thrower(inner.athrow, error)
        else:
            step = inner.__anext__ if sent is None else _sender(inner.asend, sent)


async def _aclose(inner: AsyncGenerator[Any, Any], watcher: Watcher, exit: GeneratorExit) -> None:
    watcher.resume()
    try:
        await inner.aclose()
    except BaseException as error:
        watcher.pause()
        watcher.raised(error)
        raise
    watcher.pause()
    watcher.raised(exit)


def _thrower(throw: Callable[[BaseException], Any], error: BaseException) -> Callable[[], Any]:
    return lambda: throw(error)


def _sender(send: Callable[[Any], Any], value: Any) -> Callable[[], Any]:
    return lambda: send(value)


# -- other awaitables ------------------------------------------------------------------------------


def _future(inner: Any, watcher: Watcher) -> Any:
    """A future or task stays the very object that the application knows; it says itself when it is done."""
    inner.add_done_callback(lambda done: _heard(done, watcher))
    return inner


def _heard(done: Any, watcher: Watcher) -> None:
    if done.cancelled():
        watcher.raised(_cancelled_error())
        return
    error = done.exception()
    if error is None:
        watcher.returned(done.result())
    else:
        watcher.raised(error)


def _cancelled_error() -> BaseException:
    import asyncio

    return asyncio.CancelledError()


def _awaitable(inner: Any, watcher: Watcher) -> Any:
    """Any other awaitable: a transparent stand-in whose `__await__` is watched."""
    import wrapt

    class Watched(wrapt.ObjectProxy):  # type: ignore[misc]
        def __await__(self) -> Generator[Any, Any, Any]:
            return _generator(_awaiting(self.__wrapped__), watcher)

    return Watched(inner)


def _awaiting(inner: Any) -> Generator[Any, Any, Any]:
    return (yield from inner.__await__())


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
        else:
            self._watcher.raised(error)


def _starlette(response: Any, watcher: Watcher) -> Any:
    """Starlette (and FastAPI) `StreamingResponse`: its body iterator is watched."""
    response.body_iterator = async_generator(_items(response.body_iterator), watcher)
    return response


async def _items(body: Any) -> AsyncGenerator[Any, Any]:
    try:
        async for item in body:
            yield item
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()


def _werkzeug(response: Any, watcher: Watcher) -> Any:
    """Werkzeug (and Flask) `Response`: a streamed body is watched, a ready one has ended already."""
    if not response.is_streamed:
        watcher.returned(response)
        return response
    response.response = WatchedIterator(response.response, watcher)
    return response


def _django(response: Any, watcher: Watcher) -> Any:
    """Django `StreamingHttpResponse`, with a sync or an async body."""
    if response.is_async:
        response.streaming_content = async_generator(_items(response.streaming_content), watcher)
    else:
        response.streaming_content = WatchedIterator(response.streaming_content, watcher)
    return response


_RESPONSES: tuple[tuple[str, str, Follower], ...] = (
    ("starlette.responses", "StreamingResponse", _starlette),
    ("werkzeug.wrappers", "Response", _werkzeug),
    ("django.http", "StreamingHttpResponse", _django),
)
