"""What a call returned may still be running: a coroutine, a generator, a response with a streaming
body.

`follow` gives back the same kind of thing, watched to its end. Three rules keep the host unharmed:

* What only the wrapper holds (a coroutine, generator or `map` that the call has made) is replaced
  by a native one of the same kind.
* Futures and calls that announce their end get a callback; a response gets another body; a stream
  of a known SDK gets a subclass of its own class. The object stays the one that others know.
* Everything else is a value, however much it can be awaited or iterated.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from ..diagnostics import log_internal_error
from .compiler import Unawaited, follower_shaped, named
from .followers import (
    Follower,
    Watcher,
    async_generator,
    compiled,
    future,
    generator,
    holders,
    holders_when_fresh,
    is_lazy_iterator_type,
    lazy_iterator,
    rpc,
)
from .responses import RESPONSES
from .stream_objects import is_stream_type, stream_object
from .templates import ASYNC_GENERATOR, COROUTINE, GENERATOR

_PLAIN: tuple[type, ...] = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    list,
    tuple,
    dict,
    set,
    frozenset,
)
_KNOWN_CAP = 4096


# Types whose objects are plain values: the hot path is one look-up. Filled as types are seen. The
# second is for results of an `await`: another awaitable that comes out of it is a value like any
# other.
plain_types: set[type] = set(_PLAIN)
plain_awaited_types: set[type] = set(_PLAIN)
_followers: dict[type, Follower] = {}


def follow(
    result: Any, watcher: Watcher, *, awaited: bool = False, fresh: bool = False
) -> Any | None:
    """Return the watched stand-in for a *result* that is still running; None for a plain value.

    Args:
        result: what a call, or an `await`, returned.
        watcher: hears of the end.
        awaited: it came out of an `await`.
        fresh: nobody but the caller holds it, so that it may be replaced.
    """
    kind = type(result)
    if kind in (plain_awaited_types if awaited else plain_types):
        return None
    try:
        follower = _follower(kind, awaited)
        if follower is None or (follower in _REPLACING and not fresh):
            return None
        return follower(result, watcher)
    except Exception as error:  # an odd object of the host's: it is handed on as it is
        log_internal_error("following a result", error)
        return None


def _follower(kind: type, awaited: bool) -> Follower | None:
    """Return how results of this type are followed; None for plain values."""
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
    for base, follower in _NATIVE:
        if issubclass(kind, base):
            return follower
    if _module_of(kind).startswith("_cython_"):  # Cython's own three, which nobody can subclass
        return _CYTHON.get(kind.__name__)
    if is_lazy_iterator_type(kind):
        return lazy_iterator
    for module, name, follower in RESPONSES:
        response = getattr(sys.modules.get(module), name, None)
        if isinstance(response, type) and issubclass(kind, response):
            return follower
    if hasattr(kind, "_asyncio_future_blocking"):  # how asyncio itself knows a future
        return future
    if _is_rpc(kind):
        return rpc
    return stream_object if is_stream_type(kind) else None


def _is_rpc(kind: type) -> bool:
    return callable(getattr(kind, "add_done_callback", None)) and any(
        _module_of(base) in _GRPC and base.__name__ in _RPC for base in kind.__mro__
    )


def _module_of(kind: type) -> str:
    module = getattr(kind, "__module__", None)
    return module if isinstance(module, str) else ""


def settled(result: Any, watcher: Watcher) -> Any:
    """Return what to give the caller for the *result* of a call: watched when it is still running;
    else this was the end.

    Called by a compiled wrapper itself: how many hold the result is counted here.
    """
    if type(result) in plain_types:
        watcher.returned(result)
        return result
    fresh = holders(result) <= holders_when_fresh()
    return settle(result, watcher, awaited=False, fresh=fresh)


def settled_awaited(result: Any, watcher: Watcher) -> Any:
    """Do the same for the result of an `await`: another awaitable is a value like any other."""
    if type(result) in plain_awaited_types:
        watcher.returned(result)
        return result
    fresh = holders(result) <= holders_when_fresh()
    return settle(result, watcher, awaited=True, fresh=fresh)


def settle(result: Any, watcher: Watcher, *, awaited: bool, fresh: bool) -> Any:
    """Return *result*, watched to its end, or as it is when this was the end (see `follow`)."""
    running = follow(result, watcher, awaited=awaited, fresh=fresh)
    if running is not None:
        return running
    watcher.returned(result)
    return result


# -- coroutines ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _compiled() -> Callable[[Any, Any], Any]:
    """Compile the follower when the first coroutine is returned, or a client appears."""
    return follower_shaped(COROUTINE, {"_settle": settled_awaited})


def compile_followers() -> None:
    """Compile what follows coroutines and generators now, so that no call has to wait for it."""
    holders_when_fresh()
    _compiled()
    for template, awaitable in ((GENERATOR, False), (GENERATOR, True), (ASYNC_GENERATOR, False)):
        compiled(template, awaitable=awaitable)


def coroutine(inner: Any, watcher: Watcher) -> Any:
    """Return *inner*, watched; nothing is heard when it is never awaited."""
    started = (
        isinstance(inner, types.CoroutineType)
        and inspect.getcoroutinestate(inner) != inspect.CORO_CREATED
    )
    if started:  # whoever drives it has it in hand: it is a value
        return None
    return named(_compiled()(Unawaited(inner), watcher), inner)


# -- tuples of Flask and Quart ---------------------------------------------------------------------

_TUPLE_FRAMEWORKS = ("flask", "quart")


def notice_frameworks() -> None:
    """Look into tuples from now on, if Flask or Quart is there: their views may return
    `(generator, headers)`.

    Called when something is decorated, so that other programs do not pay for it at each tuple.
    """
    if any(framework in sys.modules for framework in _TUPLE_FRAMEWORKS):
        for known in (plain_types, plain_awaited_types):
            known.discard(tuple)
        _followers[tuple] = _view_tuple


def _view_tuple(result: tuple[Any, ...], watcher: Watcher) -> Any:
    """Return what a view returned, `(body, status, headers)`, with its body watched when that
    streams.
    """
    if not 2 <= len(result) <= 3 or not _in_request():
        return None
    # The tuple holds it, and the argument of `holders`.
    fresh = holders(result[0]) <= _HELD_BY_TUPLE
    body = follow(result[0], watcher, awaited=True, fresh=fresh)
    return None if body is None else (body, *result[1:])


_HELD_BY_TUPLE = holders((object(),)[0]) + 1


def _in_request() -> bool:
    return any(
        sys.modules[framework].has_request_context()
        for framework in _TUPLE_FRAMEWORKS
        if framework in sys.modules
    )


_NATIVE: tuple[tuple[type, Follower], ...] = (
    (types.CoroutineType, coroutine),
    (types.GeneratorType, generator),
    (types.AsyncGeneratorType, async_generator),
)
_CYTHON = {"coroutine": coroutine, "generator": generator, "async_generator": async_generator}
_REPLACING = (coroutine, generator, async_generator, lazy_iterator, _view_tuple)
_AWAITABLES = (coroutine, future)
_GRPC = ("grpc", "grpc.aio._base_call")
_RPC = ("Call", "Future")
