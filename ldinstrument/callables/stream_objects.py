"""Follow a stream of a model's SDK to its end, without putting anything in its place.

The streams of the SDKs are iterators, and no generators. A stream of a known package keeps its
identity: its class becomes a subclass of itself, made once per type, whose `__next__`, `close` and
the rest tell those who follow. A stream of an unknown type is left alone.

What was tried and fails: `__next__` on the instance (Python looks it up on the type), a proxy
(`.text_stream` and helpers read past it), the SDK's private iterator.
"""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from .followers import Watcher

# Packages whose streams may be followed; the instrumentations put proxies around other's streams.
STREAM_PACKAGES = frozenset(
    {
        "anthropic",
        "botocore",
        "cohere",
        "groq",
        "litellm",
        "mistralai",
        "openai",
        "opentelemetry",
        "together",
    }
)
# Plain assignment on a wrapt proxy reaches what it wraps.
_SWAP = object.__dict__["__class__"].__set__


class StreamFollower(Protocol):
    """Hears what becomes of a stream. None of its methods may raise."""

    def item(self, chunk: Any) -> None:
        """Hear that the consumer is about to be given *chunk*."""

    def exhausted(self) -> None:
        """Hear the end: there is nothing more."""

    def failed(self, error: BaseException) -> None:
        """Hear the end: *error* came out."""

    def closed(self, error: BaseException | None) -> None:
        """Hear the end: the consumer had enough; *error* is what it was handling."""

    def dropped(self) -> None:
        """Hear the end: nobody has the stream any more. Called by the garbage collector."""


class _Following:
    """One stream and those who follow it.

    The first end counts, and what an SDK calls inside itself is not the consumer's doing.
    """

    __slots__ = ("followers", "inside", "over")

    def __init__(self, *followers: StreamFollower) -> None:
        self.followers = followers
        self.inside = False
        self.over = False

    @property
    def listens(self) -> bool:
        return not (self.over or self.inside)

    def item(self, chunk: Any) -> None:
        for follower in self.followers:
            follower.item(chunk)

    def ended(self, how: str, *arguments: Any) -> None:
        """Tell each follower the end by its method *how*."""
        if not self.over:
            self.over = True
            for follower in self.followers:
                getattr(follower, how)(*arguments)


_followed: dict[int, _Following] = {}


def is_stream(thing: Any) -> bool:
    """Tell whether *thing* is a stream, or the manager of one, that can be followed."""
    kind: Any = type(thing)
    return is_stream_type(kind)


@functools.lru_cache(maxsize=1024)
def is_stream_type(kind: Any) -> bool:
    """Tell whether objects of the type *kind* are streams that can be followed."""
    # By name where there is no `__next__`: pydantic's models have an `__iter__`, too.
    module = getattr(kind, "__module__", None)
    package = module.partition(".")[0] if isinstance(module, str) else ""
    return package in STREAM_PACKAGES and (
        hasattr(kind, "__next__") or hasattr(kind, "__anext__") or "Stream" in kind.__name__
    )


def follow(stream: Any, *followers: StreamFollower, unknown: bool = False) -> bool:
    """Let *followers* hear of *stream* from now on; False when its type cannot be followed.

    Those who follow it already go on.

    Args:
        stream: an SDK's.
        followers: hear.
        unknown: follow a type of any package: the user has asked for it.
    """
    if not (is_stream(stream) or unknown):
        return False
    known = _followed.get(id(stream))
    if known is not None and not known.over:
        known.followers = (*known.followers, *followers)
        return True
    following = _Following(*followers)
    try:
        if known is None:
            kind: Any = type(stream)
            _SWAP(stream, _subclass(kind))
        finalizer = weakref.finalize(stream, _drop, id(stream), following)
    except TypeError:  # a type that refuses subclassing, or weak references
        return False
    finalizer.atexit = False
    _followed[id(stream)] = following
    return True


def followed(stream: Any, follower: StreamFollower) -> Any:
    """Return *stream*, followed because the user asked for it; a generator, or what cannot be
    followed itself, inside a generator of ours.
    """
    if isinstance(stream, types.AsyncGeneratorType):
        return _aread(stream, follower)
    if isinstance(stream, types.GeneratorType):
        return _read(stream, follower)
    if follow(stream, follower, unknown=True):
        return stream
    if hasattr(stream, "__aiter__"):
        return _aread(stream, follower)
    return _read(stream, follower) if hasattr(stream, "__iter__") else stream


def _read(items: Any, follower: StreamFollower) -> Iterator[Any]:
    try:
        for item in items:
            follower.item(item)
            yield item
    except GeneratorExit:
        follower.closed(None)
        raise
    except BaseException as error:
        follower.failed(error)
        raise
    follower.exhausted()


async def _aread(items: Any, follower: StreamFollower) -> AsyncIterator[Any]:
    try:
        async for item in items:
            follower.item(item)
            yield item
    except GeneratorExit:
        follower.closed(None)
        raise
    except BaseException as error:
        follower.failed(error)
        raise
    follower.exhausted()


def _drop(number: int, following: _Following) -> None:
    if _followed.get(number) is following:
        del _followed[number]
    following.ended("dropped")


def forget() -> None:
    """Follow nothing any more (tests, and a forked child)."""
    _followed.clear()


# -- a stream that a tracked function returned -----------------------------------------------------


class _Watched:
    """Tells a watcher what becomes of a stream."""

    __slots__ = ("_started", "_watcher")

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._started = False

    def item(self, chunk: Any) -> None:
        if not self._started:
            self._started = True
            self._watcher.first()

    def exhausted(self) -> None:
        self._watcher.returned(None)

    def failed(self, error: BaseException) -> None:
        self._watcher.raised(error)

    def closed(self, error: BaseException | None) -> None:
        if not self._started and error is None:
            self._watcher.unstarted()
            return
        left = GeneratorExit()
        left.__context__ = error
        self._watcher.raised(left)

    def dropped(self) -> None:
        self.closed(None)


def stream_object(inner: Any, watcher: Watcher) -> Any:
    """Return *inner*, followed; None when its type cannot be."""
    return inner if follow(inner, _Watched(watcher)) else None


# -- the subclass ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _subclass(kind: Any) -> type:
    """Return *kind* with the methods that consumers call telling a follower."""
    body: dict[str, Any] = {
        name: override(kind, name)
        for name, override in _OVERRIDES.items()
        if callable(getattr(kind, name, None))
    }
    described = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), {**body, **described, "__slots__": ()})


def _next(kind: Any, name: str) -> Any:
    step = getattr(kind, name)

    @functools.wraps(step)
    def __next__(self: Any) -> Any:  # noqa: N807
        following = _followed.get(id(self))
        if following is None or not following.listens:
            return step(self)
        return _stepped(following, lambda: step(self))

    return __next__


def _stepped(following: _Following, step: Callable[[], Any]) -> Any:
    following.inside = True
    try:
        item = step()
    except StopIteration:
        following.ended("exhausted")
        raise
    except BaseException as error:
        following.ended("failed", error)
        raise
    finally:
        following.inside = False
    following.item(item)
    return item


def _anext(kind: Any, name: str) -> Any:
    step = getattr(kind, name)

    @functools.wraps(step)
    async def __anext__(self: Any) -> Any:  # noqa: N807
        following = _followed.get(id(self))
        if following is None or not following.listens:
            return await step(self)
        return await _astepped(following, step(self))

    return __anext__


async def _astepped(following: _Following, step: Any) -> Any:
    following.inside = True
    try:
        item = await step
    except StopAsyncIteration:
        following.ended("exhausted")
        raise
    except BaseException as error:
        following.ended("failed", error)
        raise
    finally:
        following.inside = False
    following.item(item)
    return item


def _iter(kind: Any, name: str) -> Any:
    begin = getattr(kind, name)

    @functools.wraps(begin)
    def __iter__(self: Any) -> Any:  # noqa: N807
        iterator, following = begin(self), _followed.get(id(self))
        if iterator is self or following is None or not following.listens:
            return iterator
        return _items(self, iterator, following)

    return __iter__


def _items(stream: Any, iterator: Iterator[Any], following: _Following) -> Iterator[Any]:
    """Yield what *iterator* has; *stream* lives as long as somebody reads this.

    A consumer that leaves this loop may come back with another one: only the stream's own end is
    one.
    """
    while not following.over:
        try:
            item = _stepped(following, iterator.__next__)
        except StopIteration:
            return
        yield item
    yield from iterator


def _aiter(kind: Any, name: str) -> Any:
    begin = getattr(kind, name)

    @functools.wraps(begin)
    def __aiter__(self: Any) -> Any:  # noqa: N807
        iterator, following = begin(self), _followed.get(id(self))
        if iterator is self or following is None or not following.listens:
            return iterator
        return _aitems(self, iterator, following)

    return __aiter__


async def _aitems(stream: Any, iterator: Any, following: _Following) -> AsyncIterator[Any]:
    while not following.over:
        try:
            item = await _astepped(following, iterator.__anext__())
        except StopAsyncIteration:
            return
        yield item
    async for item in iterator:
        yield item


def _close(kind: Any, name: str) -> Any:
    close = getattr(kind, name)
    if inspect.iscoroutinefunction(close):

        @functools.wraps(close)
        async def aclosing(self: Any, *args: Any, **kwargs: Any) -> Any:
            following = _followed.get(id(self))
            _tell_closed(following, None)
            return await close(self, *args, **kwargs)

        return aclosing

    @functools.wraps(close)
    def closing(self: Any, *args: Any, **kwargs: Any) -> Any:
        _tell_closed(_followed.get(id(self)), None)
        return close(self, *args, **kwargs)

    return closing


def _tell_closed(following: _Following | None, error: BaseException | None) -> None:
    if following is not None and following.listens:
        following.ended("closed", error)


def _exit(kind: Any, name: str) -> Any:
    leave = getattr(kind, name)

    @functools.wraps(leave)
    def __exit__(self: Any, of: Any, error: Any, trace: Any) -> Any:  # noqa: N807
        _tell_closed(_followed.get(id(self)), error)
        return leave(self, of, error, trace)

    return __exit__


def _aexit(kind: Any, name: str) -> Any:
    leave = getattr(kind, name)

    @functools.wraps(leave)
    async def __aexit__(self: Any, of: Any, error: Any, trace: Any) -> Any:  # noqa: N807
        _tell_closed(_followed.get(id(self)), error)
        return await leave(self, of, error, trace)

    return __aexit__


def _enter(kind: Any, name: str) -> Any:
    enter = getattr(kind, name)

    @functools.wraps(enter)
    def __enter__(self: Any) -> Any:  # noqa: N807
        following = _followed.get(id(self))
        if following is None or not following.listens:
            return enter(self)
        following.inside = True
        try:
            entered = enter(self)
        except BaseException as error:
            following.ended("failed", error)
            raise
        finally:
            following.inside = False
        _pass_on(self, entered, following)
        return entered

    return __enter__


def _aenter(kind: Any, name: str) -> Any:
    enter = getattr(kind, name)

    @functools.wraps(enter)
    async def __aenter__(self: Any) -> Any:  # noqa: N807
        following = _followed.get(id(self))
        if following is None or not following.listens:
            return await enter(self)
        following.inside = True
        try:
            entered = await enter(self)
        except BaseException as error:
            following.ended("failed", error)
            raise
        finally:
            following.inside = False
        _pass_on(self, entered, following)
        return entered

    return __aenter__


def _pass_on(manager: Any, entered: Any, following: _Following) -> None:
    """Follow what a manager's `with` gives instead of the manager."""
    if entered is not manager and follow(entered, *following.followers):
        following.over = True


_OVERRIDES: dict[str, Callable[[Any, str], Any]] = {
    "__next__": _next,
    "__anext__": _anext,
    "__iter__": _iter,
    "__aiter__": _aiter,
    "__enter__": _enter,
    "__aenter__": _aenter,
    "__exit__": _exit,
    "__aexit__": _aexit,
    "close": _close,
    "aclose": _close,
}
