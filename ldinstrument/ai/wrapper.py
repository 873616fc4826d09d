"""Wrap functions into calls of a model: which template, and what its closure variables stand for.

A call that nothing is read for costs little more than a run of a task: it is made only when
somebody asks for it (`current_call`), or when the function returns what may have been a model's.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..callables import streams
from ..callables.compiler import Unawaited, follower_shaped, named, shaped, stream_shaped
from ..callables.followers import holders, holders_when_fresh
from ..diagnostics import log_internal_error, warn_user_code
from ..sessions.clock import clock
from ..sessions.contexts import as_context, is_function
from ..sessions.current import current_session, current_variable
from ..sessions.outcomes import Outcome, current_task
from ..sessions.session import Session
from ..sessions.task_definition import TaskDefinition
from ..tasks.options import TaskOptions
from .call_slots import Slot, call_in, current_slot, leave, surround
from .call_templates import FOLLOWED, LATE, WATCHED
from .call_values import append_times, times_of
from .calls import Call
from .options import CallOptions

_SILENT_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
_TEXTS = frozenset({str, bytes, bytearray})


@dataclass(frozen=True, slots=True, eq=False)
class CallWrapper:
    """Wraps functions into calls of one key."""

    task: TaskDefinition
    run_options: TaskOptions
    options: CallOptions

    @property
    def what(self) -> str:
        """Return how the user calls it."""
        return "track_ai"

    def begin(self, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Call:
        """Return a call that starts now, in the current session or one of its own."""
        who = None
        if self.run_options.context is not None:
            who = functools.partial(self._who, args, kwargs or {})
        call = Call(self.task, self.run_options, self.options, current_session(), clock(), who)
        if self.options.config is not None:
            call.bind(self._config(args, kwargs or {}))
        return call

    def _config(self, args: Any, kwargs: Mapping[str, Any]) -> Any:
        config = self.options.config
        if not _is_function_of_arguments(config):
            return config
        try:
            return config(*args, **kwargs)
        except Exception as error:
            warn_user_code(f"config= of {self.task.key}", error, "its calls have no AI config")
            return None

    def _who(self, args: Any, kwargs: Mapping[str, Any]) -> Any:
        who = self.run_options.context
        if is_function(who):
            try:
                who = who(*args, **kwargs)
            except Exception as error:
                warn_user_code(f"context= of {self.task.key}", error, "its calls have no identity")
                return None
        return as_context(who)

    def _make(self, session: Session | None, started: float) -> Call:
        """Return the call that began without anybody asking for it."""
        return Call(self.task, self.run_options, self.options, session, started)

    def wrap(self, fn: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """Return a function that runs *fn* and measures it."""
        arguments = is_function(self.run_options.context) or _is_function_of_arguments(
            self.options.config
        )
        made: Callable[..., Any] = shaped(
            self._template(kind), fn, self._names(kind), arguments=arguments
        )
        return made

    def stream(self, kind: str) -> Callable[[Any], Any]:
        """Return a function that watches a coroutine or generator that nobody has started yet."""
        return stream_shaped(self._template(kind), self._names(kind))

    def is_late(self, kind: str) -> bool:
        """Tell whether nothing was asked for that takes a call from its start."""
        options = self.options
        late = self.run_options.plain and options.extract is None and options.config is None
        if kind in ("generator", "async_generator"):
            return (
                late and options.estimate is None and "time_to_first_item" not in self.task.metrics
            )
        return late

    def _template(self, kind: str) -> str:
        return (LATE if self.is_late(kind) else WATCHED)[kind]

    def _names(self, kind: str) -> dict[str, Any]:
        streams.notice_frameworks()
        return {
            "_begin": self.begin,
            "_current": current_variable.get,
            "_current_task": current_task,
            "_enter": current_slot.set,
            "_inside": current_slot.get,
            "_make": self._make,
            "_next": next,
            "_now": clock,
            "_open_session": current_session,
            "_raised": _raised,
            "_read": _read,
            "_returned": self.returned,
            "_settle": _SETTLE[self.is_late(kind), kind == "coroutine"],
            "_settle_watched": _SETTLE[False, kind == "coroutine"],
            "_silent_types": _SILENT_TYPES,
            "_stopped": _stopped,
            "_str": str,
            "_success": Outcome.SUCCESS,
            "_surround": surround,
            "_task": self.task,
            "_timed": "time_per_chunk" in self.options.metrics,
            "_texts": _TEXTS,
            "_told": self.options.named,
        }

    def returned(self, slot: Slot, result: Any, pieces: int, first: float, last: float) -> None:
        """End a stream that has nothing more, which wrote so many *pieces*. Never raises."""
        call, _, session, started, _ = slot
        if call is not None or session is None or type(result) not in _SILENT_TYPES:
            _finished(slot, result, pieces, first, last)
            return
        leave(slot)
        told = self.options.named
        session.append((self.task, Outcome.SUCCESS, started, clock(), told))
        if pieces:
            times = times_of(started, pieces, first, last)
            append_times(session, self.task.key, self.options.metrics, times, told)


def _is_function_of_arguments(config: Any) -> bool:
    return callable(config) and not hasattr(config, "create_tracker")


# -- how a call ends -------------------------------------------------------------------------------


def _raised(slot: Slot, error: BaseException) -> None:
    """End a call that was made late, or make it now: *error* came out. Never raises."""
    try:
        call_in(slot).raised(error)
    except Exception as failure:
        log_internal_error("a model call", failure)
    finally:
        leave(slot)


def _read(slot: Slot, item: Any) -> None:
    """Read an item of a stream that is no plain value. Never raises."""
    try:
        call_in(slot).item(item)
    except Exception as failure:
        log_internal_error("a model call", failure)


def _finished(slot: Slot, result: Any, pieces: int, first: float, last: float) -> None:
    """End a stream that has nothing more, whose call was made or has to be. Never raises."""
    try:
        call = call_in(slot)
        call.wrote(pieces, first, last)
        call.returned(result)
    except Exception as failure:
        log_internal_error("a model call", failure)
    finally:
        leave(slot)


def _slot_of(followed: Call | Slot) -> Slot:
    """Return the slot of a call, made or not."""
    return followed if isinstance(followed, list) else followed.slot


def _followed_to_its_end(slot: Slot, result: Any, pieces: int, first: float, last: float) -> None:
    """End a stream that a plain function returned. Never raises."""
    wrapper = getattr(slot[1], "__self__", None)
    end = _finished if wrapper is None else wrapper.returned
    end(slot, result, pieces, first, last)


def _stopped(
    slot: Slot,
    error: BaseException,
    pieces: int,
    first: float,
    last: float,
    consumer: Any = None,
) -> None:
    """End a stream out of which *error* came, or which *consumer* closed. Never raises."""
    try:
        call = call_in(slot)
        call.wrote(pieces, first, last)
        call.consumed_by(consumer)
    except Exception as failure:
        log_internal_error("a model call", failure)
    _raised(slot, error)


# Called by a compiled wrapper itself, each of these counts how many hold the result: what others
# hold must not be replaced.


def settled(result: Any, call: Call) -> Any:
    """Return what to give the caller for *result*: followed while it is running, else this was the
    end.
    """
    fresh = holders(result) <= holders_when_fresh()
    return _settled(result, call, awaited=False, fresh=fresh)


def settled_awaited(result: Any, call: Call) -> Any:
    """Return the same for the result of an `await`."""
    fresh = holders(result) <= holders_when_fresh()
    return _settled(result, call, awaited=True, fresh=fresh)


def settled_late(result: Any, slot: Slot) -> Any:
    """Return the same for a call that may have to be made now."""
    fresh = holders(result) <= holders_when_fresh()
    kind = _STREAMS.get(type(result)) if fresh and slot[0] is None else None
    if kind is not None and slot[1].__self__.is_late(kind) and not _is_awaitable(result):
        # The slot is over with the function; its stream goes on in one of its own.
        return named(_FOLLOWERS[kind](result, [None, *slot[1:4], None]), result)
    return _settled(result, _taken(slot), awaited=False, fresh=fresh)


def settled_late_awaited(result: Any, slot: Slot) -> Any:
    """Return the same for the result of an `await`."""
    fresh = holders(result) <= holders_when_fresh()
    return _settled(result, _taken(slot), awaited=True, fresh=fresh)


_SETTLE = {
    (False, False): settled,
    (False, True): settled_awaited,
    (True, False): settled_late,
    (True, True): settled_late_awaited,
}
"""By (late, awaited)."""


def _taken(slot: Slot) -> Call:
    call: Call = call_in(slot)
    leave(slot)
    return call


def _settled(result: Any, call: Call, *, awaited: bool, fresh: bool) -> Any:
    if type(result) not in _SILENT_TYPES:
        try:
            if call.follow_result(result):
                return result
            if fresh and (running := _read_running(result, call, awaited=awaited)) is not None:
                return running
        except Exception as error:  # an odd object of the host's: it is handed on as it is
            log_internal_error("following a result", error)
    return streams.settle(result, call, awaited=awaited, fresh=fresh)


def _read_running(result: Any, call: Call, *, awaited: bool) -> Any:
    """Return the stand-in for a generator or coroutine that is running still, each item read."""
    if isinstance(result, types.AsyncGeneratorType):
        return follow_events(result, call)
    if isinstance(result, types.GeneratorType):
        return (
            None if _is_awaitable(result) else named(_FOLLOWERS["generator"](result, call), result)
        )
    unstarted = (
        inspect.iscoroutine(result) and inspect.getcoroutinestate(result) == inspect.CORO_CREATED
    )
    if unstarted and not awaited:
        return named(_FOLLOWERS["coroutine"](Unawaited(result), call), result)
    return None


_STREAMS = {
    types.GeneratorType: "generator",
    types.AsyncGeneratorType: "async_generator",
}


def _is_awaitable(stream: Any) -> bool:
    """Tell whether a generator is a coroutine of old."""
    code = getattr(stream, "gi_code", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def follow_events(events: Any, call: Call) -> Any:
    """Return a stand-in for an async generator, each item of which is read for *call*."""
    return named(_FOLLOWERS["async_generator"](events, call), events)


_OF_STREAMS = {
    "_current_task": current_task,
    "_enter": current_slot.set,
    "_inside": current_slot.get,
    "_next": next,
    "_now": clock,
    "_read": _read,
    "_returned": _followed_to_its_end,
    "_silent_types": _SILENT_TYPES,
    "_slot_of": _slot_of,
    "_stopped": _stopped,
    "_str": str,
    "_surround": surround,
    "_texts": _TEXTS,
    "_timed": True,
}
_FOLLOWERS = {
    "generator": follower_shaped(FOLLOWED["generator"], _OF_STREAMS),
    "coroutine": follower_shaped(FOLLOWED["coroutine"], {"_settle": settled_awaited}),
    "async_generator": follower_shaped(FOLLOWED["async_generator"], _OF_STREAMS),
}
"""By kind. In a table, because `dill` with `recurse=True` goes from function to function by their
names, and would not come back from two that call each other.
"""
