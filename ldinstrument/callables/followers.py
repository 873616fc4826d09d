"""Watch what Python itself makes of a call, to its end: coroutines, generators, futures.

A watcher hears of each resume and pause, so that a session can be swapped in and out around the
user's code, and of the end. Only what is *fresh* is replaced: made by the call, with nobody else to
hold it. What somebody else holds too must stay the object that they know.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ..diagnostics import guard
from .compiler import follower_shaped, named, shaped
from .templates import ASYNC_GENERATOR, CALL, GENERATOR


class Watcher(Protocol):
    """Hears what becomes of a call. None of its methods may raise."""

    @property
    def delegates(self) -> bool:
        """Whether a generator, once it has begun, needs no resume and pause: `yield from` costs a
        quarter.
        """

    def resume(self) -> None:
        """Hear that the user's code is about to run."""

    def pause(self) -> None:
        """Hear that the user's code has yielded, or ended."""

    def first(self) -> None:
        """Hear that the first item of a stream is there."""

    def unstarted(self) -> None:
        """Hear the end: the stream was closed before anybody asked for an item."""

    def returned(self, result: Any) -> None:
        """Hear the end: it returned, or its items are exhausted."""

    def raised(self, error: BaseException) -> None:
        """Hear the end: *error* came out (`GeneratorExit`: its consumer had enough)."""


Follower = Callable[[Any, Watcher], Any]

# -- who holds it ----------------------------------------------------------------------------------


def holders(result: Any) -> int:
    """Return how many references to *result* there are, its caller's included; many where Python
    does not count them.
    """
    count = getattr(sys, "getrefcount", None)
    return count(result) if count is not None else sys.maxsize


@functools.lru_cache(maxsize=1)
def holders_when_fresh() -> int:
    """Return what `holders` says in `settled` of an object that nobody but the wrapper has.

    Measured with a wrapper of our own, for it depends on how the interpreter passes arguments.
    """
    seen: list[int] = []

    def settle(result: Any, watcher: Any) -> Any:
        seen.append(holders(result))

    def run() -> object:
        return object()

    shaped(CALL, run, {"_begin": _Unwatched, "_settle": settle})()
    return seen[0]


class _Unwatched:
    """A watcher that listens to nothing."""

    def resume(self) -> None:
        pass

    pause = resume


def is_owned(owner: Any, attribute: str) -> bool:
    """Tell whether nobody but *owner* holds the value of its *attribute*."""
    return holders(getattr(owner, attribute)) <= _held_by_attribute()


@functools.lru_cache(maxsize=1)
def _held_by_attribute() -> int:
    class Owner:
        pass

    owner: Any = Owner()
    owner.attribute = object()
    return holders(getattr(owner, "attribute"))  # noqa: B009 - as it is asked above


# -- generators ------------------------------------------------------------------------------------


@functools.cache
def compiled(template: str, *, awaitable: bool) -> Callable[[Any, Any], Any]:
    """Compile *template* when the first such thing is returned, or a client appears."""
    return follower_shaped(template, awaitable=awaitable)


def generator(inner: Any, watcher: Watcher) -> Any:
    """Return *inner*, watched, with the whole generator protocol; nothing is heard when it is never
    iterated.
    """
    flags = getattr(getattr(inner, "gi_code", None), "co_flags", 0)
    follower = compiled(GENERATOR, awaitable=bool(flags & inspect.CO_ITERABLE_COROUTINE))
    return named(follower(inner, watcher), inner)


def async_generator(inner: Any, watcher: Watcher) -> Any:
    """Return *inner*, watched, with the whole async generator protocol; nothing is heard when it is
    never iterated.
    """
    return named(compiled(ASYNC_GENERATOR, awaitable=False)(inner, watcher), inner)


# -- iterators of the standard library -------------------------------------------------------------


def lazy_iterator(inner: Any, watcher: Watcher) -> Any:
    """Return an iterator of the same type, or of a subclass where Python's own cannot be made from
    items, which ends as *inner* ends.
    """
    steps = compiled(GENERATOR, awaitable=False)(_steps(inner), watcher)
    kind = _reads.get(type(inner), type(inner))
    remake = _REMAKE.get(kind)
    return _reading(kind, steps) if remake is None else remake(steps)


def is_lazy_iterator_type(kind: type) -> bool:
    """Tell whether objects of the type *kind* are iterators that work while they are read; `count`,
    `cycle`, `repeat` and `tee` are values.
    """
    return kind in _REMAKE or kind in _EMPTY or kind in _reads


def _steps(inner: Iterator[Any]) -> Iterator[Any]:
    yield from inner


def _same(item: Any) -> Any:
    return item


def _true(item: Any) -> bool:
    return True


def _latest(before: Any, item: Any) -> Any:
    return item


_REMAKE: dict[type, Callable[[Iterator[Any]], Any]] = {
    map: lambda steps: map(_same, steps),
    filter: lambda steps: filter(_true, steps),
    itertools.chain: itertools.chain,
    itertools.islice: lambda steps: itertools.islice(steps, None),
    itertools.takewhile: lambda steps: itertools.takewhile(_true, steps),
    itertools.accumulate: lambda steps: itertools.accumulate(steps, _latest),
    itertools.compress: lambda steps: itertools.compress(steps, itertools.repeat(True)),
}
# What makes an empty one: these make their items of several iterables, or of other items.
_EMPTY: dict[type, tuple[Any, ...]] = {
    zip: (),
    enumerate: ((),),
    itertools.dropwhile: (bool, ()),
    itertools.filterfalse: (bool, ()),
    itertools.starmap: (bool, ()),
    itertools.zip_longest: (),
    **{
        found: arguments
        for name, arguments in (("batched", ((), 1)), ("pairwise", ((),)))
        if (found := getattr(itertools, name, None))
    },
}
_reads: dict[type, type] = {}
"""The subclasses that were made, and what each is a subclass of."""


def _reading(kind: Any, steps: Iterator[Any]) -> Any:
    """Return an iterator of a subclass of *kind* that gives what *steps* gives."""
    made = _reading_type(kind)(*_EMPTY[kind])
    made._steps = steps
    return made


@functools.lru_cache(maxsize=16)
def _reading_type(kind: Any) -> Any:
    def __next__(self: Any) -> Any:  # noqa: N807
        return next(self._steps)

    def __reduce__(self: Any) -> Any:  # noqa: N807 - as any generator: its place cannot be kept
        raise TypeError(f"cannot pickle a {kind.__name__} that is followed to its end")

    body = {"__next__": __next__, "__reduce__": __reduce__, "__slots__": ("_steps",)}
    described = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    made = type(kind.__name__, (kind,), {**body, **described})
    _reads[made] = kind
    return made


# -- futures ---------------------------------------------------------------------------------------


def future(inner: Any, watcher: Watcher) -> Any:
    """Return *inner*, an asyncio future or task, which says itself when it is done."""
    heard = functools.partial(_heard, watcher)
    if inner.done():  # a callback would go to its event loop, perhaps of another thread
        heard(inner)
    else:
        inner.add_done_callback(heard)
    return inner


def _heard(watcher: Watcher, done: Any) -> None:
    with guard("a future's end", strict=False):
        if done.cancelled():
            watcher.raised(_cancelled_error())
            return
        # Not `exception()`: it would mark the exception as retrieved, and asyncio's own complaint
        # would fall silent.
        error: Any = getattr(done, "_exception", _UNKNOWN)
        if error is _UNKNOWN:
            error = done.exception()
        if error is None:
            watcher.returned(done.result())
        else:
            watcher.raised(error)


_UNKNOWN = object()


def _cancelled_error() -> BaseException:
    import asyncio

    return asyncio.CancelledError()


def rpc(inner: Any, watcher: Watcher) -> Any:
    """Return *inner*, a gRPC call, sync or async, which says itself when it is done."""
    inner.add_done_callback(functools.partial(_rpc_done, watcher))
    return inner


def _rpc_done(watcher: Watcher, call: Any) -> None:
    with guard("a call's end", strict=False):
        if call.cancelled():
            watcher.raised(_cancelled_error())
            return
        code = _status_code(call)
        if getattr(code, "name", None) == "OK":
            watcher.returned(None)
        else:
            watcher.raised(_rpc_error(code))


def _status_code(call: Any) -> Any:
    """Return the status of a call that is done; grpc.aio's `code()` is a coroutine that then ends
    at its first step.
    """
    code = call.code()
    if not inspect.iscoroutine(code):
        return code
    try:
        code.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        code.close()
    return None


class RpcFailed(Exception):  # noqa: N818 - stands for an error that only an `await` would make
    """A gRPC call ended with a status that is not OK."""


def _rpc_error(code: Any) -> BaseException:
    """Return grpc's own exception for *code*, so that `expected=` can name it."""
    kind = getattr(sys.modules.get("grpc.aio"), "AioRpcError", None)
    try:
        made = kind(code, (), ()) if kind is not None else None
    except TypeError:
        made = None
    return made if isinstance(made, BaseException) else RpcFailed(str(code))


# -- a body that is read step by step --------------------------------------------------------------


class _WatchedBody:
    """What is watched, who watches it, and how far it has come."""

    def __init__(self, inner: Any, watcher: Watcher) -> None:
        self._inner = inner
        self._iterator: Any = None
        self._watcher = watcher
        self._first = True
        self._over = False

    def _given(self, item: Any) -> Any:
        self._watcher.pause()
        if self._first:
            self._first = False
            self._watcher.first()
        return item

    def _exhausted(self) -> None:
        self._watcher.pause()
        self._end(None)

    def _failed(self, error: BaseException) -> None:
        self._watcher.pause()
        self._end(error)

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


class WatchedIterator(_WatchedBody):
    """An iterator, watched to its end or its `close()`; what a WSGI body is wrapped in."""

    def __init__(self, inner: Iterable[Any], watcher: Watcher) -> None:
        super().__init__(inner, watcher)

    def __iter__(self) -> WatchedIterator:
        return self

    def __next__(self) -> Any:
        self._watcher.resume()
        try:
            if self._iterator is None:
                self._iterator = iter(self._inner)
            item = next(self._iterator)
        except StopIteration:
            self._exhausted()
            raise
        except BaseException as error:
            self._failed(error)
            raise
        return self._given(item)

    def close(self) -> None:
        """Close what is wrapped; an end before the last item is an early one."""
        close = getattr(self._inner, "close", None)
        self._watcher.resume()
        try:
            if close is not None:
                close()
        except BaseException as error:
            self._failed(error)
            raise
        self._failed(GeneratorExit())


class WatchedAsyncIterator(_WatchedBody):
    """An async iterator, watched to its end, its `aclose()`, or to when nobody has it any more.

    Dropping it closes nothing: somebody else may hold what is inside.
    """

    def __aiter__(self) -> WatchedAsyncIterator:
        return self

    async def __anext__(self) -> Any:
        self._watcher.resume()
        try:
            if self._iterator is None:
                self._iterator = self._inner.__aiter__()
            item = await self._iterator.__anext__()
        except StopAsyncIteration:
            self._exhausted()
            raise
        except BaseException as error:
            self._failed(error)
            raise
        return self._given(item)

    async def aclose(self) -> None:
        """Close what is inside, where it can be closed; before the last item it is an early end."""
        close = getattr(self._inner, "aclose", None)
        self._watcher.resume()
        try:
            if close is not None:
                await close()
        except BaseException as error:
            self._failed(error)
            raise
        self._failed(GeneratorExit())

    def __del__(self) -> None:
        self._end(GeneratorExit())
