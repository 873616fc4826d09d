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
from ..callables.compiler import Unawaited, follower_shaped, named, reserve, shaped, stream_shaped
from ..callables.followers import holders, holders_when_fresh
from ..callables.templates import ASYNC_GENERATOR, CALL, COROUTINE, GENERATOR, with_detour
from ..diagnostics import log_internal_error, warn_user_code
from ..sessions.clock import clock
from ..sessions.contexts import as_context, is_function
from ..sessions.current import current_session, current_variable
from ..sessions.outcomes import Outcome
from ..sessions.session import Session
from ..sessions.task_definition import TaskDefinition
from ..tasks.options import TaskOptions
from .calls import Call, Slot, call_in, current_slot, leave
from .readings import CallOptions

# -- templates -------------------------------------------------------------------------------------

_PAUSED = "        _watch.pause()\n        if _fresh:\n"
_READ = "        _watch.pause()\n        _watch.item(_item)\n        if _fresh:\n"
READ_GENERATOR = GENERATOR.replace(_PAUSED, _READ)
READ_ASYNC_GENERATOR = ASYNC_GENERATOR.replace(_PAUSED, _READ)

# As `CALL` and `COROUTINE`, but the call is made late: `current_call` finds what it needs for that
# in `_here`, by looking at the frames below it, or in `_slot`, which asyncio's tasks inherit.
_ENDED = """
    _entries = _session.entries
    _entries.append((_task, _success, _started, _now(), None))
    if _len(_entries) >= _session.fold_at:
        _session.fold_up()
    return _result
"""
_OBSERVED = (("_begin({given})", "_make(_session, _now())"), ("_settle(", "_settle_watched("))
LATE_CALL = with_detour(
    """
def run({params}):
    _session = _current()
    if _session is not None and _session.detour:
        _session = _open_session()
        if _session is not None and _session.observer is not None:
            <watched>
    _started = _now()
    _here = [None, _make, _session, _started, _inside()]
    try:
        _result = _fn({args})
    except _BaseException as _error:
        _raised(_here, _error)
        raise
    if _here[0] is not None or _session is None or _type(_result) not in _silent_types:
        return _settle(_result, _here)
"""
    + _ENDED,
    CALL,
    *_OBSERVED,
)
LATE_COROUTINE = with_detour(
    """
async def run({params}):
    _session = _current()
    if _session is not None and _session.detour:
        _session = _open_session()
        if _session is not None and _session.observer is not None:
            <watched>
    _coroutine = {inner}
    _outer = _inside()
    while _outer is not None and _outer[1] is None:
        _outer = _outer[4]
    _started = _now()
    _slot = [None, _make, _session, _started, _outer]
    _enter(_slot)
    try:
        _result = await _coroutine
    except _BaseException as _error:
        _raised(_slot, _error)
        raise
    if _slot[0] is not None or _session is None or _type(_result) not in _silent_types:
        return _settle(_result, _slot)
    _slot[1] = _slot[2] = None
"""
    + _ENDED,
    COROUTINE,
    *_OBSERVED,
)
_TEMPLATES = {
    "call": CALL,
    "coroutine": COROUTINE,
    "generator": READ_GENERATOR,
    "async_generator": READ_ASYNC_GENERATOR,
}
_LATE_TEMPLATES = {"call": LATE_CALL, "coroutine": LATE_COROUTINE}
reserve(*_TEMPLATES.values(), *_LATE_TEMPLATES.values())
_SILENT_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})


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

    def _template(self, kind: str) -> str:
        options = self.options
        late = self.run_options.plain and options.extract is None and options.config is None
        return _LATE_TEMPLATES.get(kind, _TEMPLATES[kind]) if late else _TEMPLATES[kind]

    def _names(self, kind: str) -> dict[str, Any]:
        streams.notice_frameworks()
        late = self._template(kind) in _LATE_TEMPLATES.values()
        return {
            "_begin": self.begin,
            "_current": current_variable.get,
            "_enter": current_slot.set,
            "_inside": current_slot.get,
            "_make": self._make,
            "_now": clock,
            "_open_session": current_session,
            "_raised": _raised,
            "_settle": _SETTLE[late, kind == "coroutine"],
            "_settle_watched": _SETTLE[False, kind == "coroutine"],
            "_silent_types": _SILENT_TYPES,
            "_success": Outcome.SUCCESS,
            "_task": self.task,
        }


def _is_function_of_arguments(config: Any) -> bool:
    return callable(config) and not hasattr(config, "create_tracker")


# -- how a call ends -------------------------------------------------------------------------------


def _raised(slot: Slot, error: BaseException) -> None:
    """End a call that was made late, or make it now: *error* came out. Never raises."""
    try:
        call_in(slot).raised(error)
    except Exception as failure:
        log_internal_error("a model call", failure)
    leave(slot)


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
    call = call_in(slot)
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
        awaitable = result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE
        return None if awaitable else named(_FOLLOWERS["generator"](result, call), result)
    unstarted = (
        inspect.iscoroutine(result) and inspect.getcoroutinestate(result) == inspect.CORO_CREATED
    )
    if unstarted and not awaited:
        return named(_FOLLOWERS["coroutine"](Unawaited(result), call), result)
    return None


def follow_events(events: Any, call: Call) -> Any:
    """Return a stand-in for an async generator, each item of which is read for *call*."""
    return named(_FOLLOWERS["async_generator"](events, call), events)


_FOLLOWERS = {
    "generator": follower_shaped(READ_GENERATOR),
    "coroutine": follower_shaped(COROUTINE, {"_settle": settled_awaited}),
    "async_generator": follower_shaped(READ_ASYNC_GENERATOR),
}
"""By kind. In a table, because `dill` with `recurse=True` goes from function to function by their
names, and would not come back from two that call each other.
"""
