"""The functions that `track_ai` compiles, one template per kind of callable.

As those of `callables/templates.py`, but a call is made late: when somebody asks for it, or when
the function gives something that may be a model's answer. Until then a slot holds what that takes
(`call_slots.py`). A function does not take its slot back from the `ContextVar`, which would cost as
much again: a slot that is over is passed over. What a generator yields is counted in its own loop
as long as it is texts and other plain values, and nothing of ours is called for it.
"""

from __future__ import annotations

from ..callables.compiler import reserve
from ..callables.templates import ASYNC_GENERATOR, CALL, COROUTINE, GENERATOR, with_watched

# -- watched: whatever was asked for, and where somebody observes the session ---------------------

_PAUSED = "        _watch.pause()\n        if _fresh:\n"
_READ = "        _watch.pause()\n        _watch.item(_item)\n        if _fresh:\n"
WATCHED = {
    "call": CALL,
    "coroutine": COROUTINE,
    "generator": GENERATOR.replace(_PAUSED, _READ),
    "async_generator": ASYNC_GENERATOR.replace(_PAUSED, _READ),
}

# -- late -----------------------------------------------------------------------------------------

_ENTERED = """
    _outer = _inside()
    while _outer is not None and _outer[1] is None:
        _outer = _outer[4]
    _started = _now()
    _slot = [None, _make, _session, _started, _outer]
    _enter(_slot)
"""
# Where a recursion runs away, none of ours can be called any more: whatever happens, it is over.
_ENDED = """
    if _slot[0] is not None or _session is None or _type(_result) not in _silent_types:
        try:
            return _settle(_result, _slot)
        finally:
            _slot[1] = None
    _slot[1] = _slot[2] = None
    _entries = _session.entries
    _entries.append((_task, _success, _started, _now(), _told))
    if _len(_entries) >= _session.fold_at:
        _session.fold_up()
    return _result
"""
_RESUMED = """
        _outer = _inside()
        if _outer is not _slot[4]:
            _surround(_slot, _outer)
        _enter(_slot)
"""


def _with_slot(template: str) -> str:
    return template.replace("\n<entered>\n", _ENTERED).replace("\n<ended>", _ENDED)


_OBSERVED = (("_begin({given})", "_make(_session, _now())"), ("_settle(", "_settle_watched("))
_CALL = _with_slot("""
def run({params}):
    _session = _current()
    if _session is not None and _session.open_entries is None:
        _session = _open_session()
        if _session is not None and _session.observer is not None:
            <watched>
<entered>
    try:
        _result = _fn({args})
    except _BaseException as _error:
        try:
            _raised(_slot, _error)
        finally:
            _slot[1] = None
        raise
<ended>""")
_COROUTINE = _with_slot("""
async def run({params}):
    _session = _current()
    if _session is not None and _session.open_entries is None:
        _session = _open_session()
        if _session is not None and _session.observer is not None:
            <watched>
    _coroutine = {inner}
<entered>
    try:
        _result = await _coroutine
    except _BaseException as _error:
        try:
            _raised(_slot, _error)
        finally:
            _slot[1] = None
        raise
<ended>""")

_BEGUN = """
    _session = _open_session()
    if _session is not None and _session.observer is not None:
        <watched>
    _inner = {inner}
    _slot = [None, _make, _session, _now(), None]
"""
# An item that is no plain value may be a model's, and is read; an empty text says nothing.
_COUNTED = """
        _kind = _type(_item)
        if _kind is not _str and _kind not in _silent_types:
            _read(_slot, _item)
        elif _item or _kind not in _texts:
            if not _pieces:
                _first = _last = _now()
            elif _timed:
                _last = _now()
            _pieces += 1
"""
_GENERATOR_LOOP = (
    """
    _step = _exit = None
    _pieces, _first, _last = 0, 0.0, 0.0
    while True:
<resumed>
        try:
            _item = _next(_inner) if _step is None else _step()
        except _StopIteration as _stop:
            _enter(_outer)
            _returned(_slot, _stop.value, _pieces, _first, _last)
            return _stop.value
        except _BaseException as _error:
            _step = None
            _enter(_outer)
            _stopped(_slot, _error, _pieces, _first, _last)
            raise
        _enter(_outer)
"""
    + _COUNTED
    + """
        try:
            _sent = yield _item
        except _GeneratorExit as _error:
            _exit = _bare(_error)
        except _BaseException as _error:
            _step = _partial(_throw_of(_inner), _bare(_error))
        else:
            _step = None if _sent is None else _partial(_inner.send, _sent)
        if _exit is not None:
            _outer = _inside()
            if _outer is not _slot[4]:
                _surround(_slot, _outer)
            _enter(_slot)
            try:
                _value = _close_of(_inner)()
            except _BaseException as _error:
                _exit = None
                _enter(_outer)
                _stopped(_slot, _error, _pieces, _first, _last)
                raise
            _enter(_outer)
            _stopped(_slot, _exit, _pieces, _first, _last)
            if _value is not None:
                return _value
            try:
                raise _exit
            finally:
                _exit = None
"""
).replace("\n<resumed>\n", _RESUMED)
_ASYNC_GENERATOR_LOOP = (
    """
    _step = _first_step(_inner)
    _consumer, _pieces, _first, _last = _current_task(), 0, 0.0, 0.0
    while True:
<resumed>
        try:
            _item = await _step
        except _StopAsyncIteration:
            _enter(_outer)
            _returned(_slot, None, _pieces, _first, _last)
            return
        except _BaseException as _error:
            _step = None
            _enter(_outer)
            _stopped(_slot, _error, _pieces, _first, _last, _consumer)
            raise
        _enter(_outer)
"""
    + _COUNTED
    + """
        _exit = None
        try:
            _sent = yield _item
        except _GeneratorExit as _error:
            _exit = _bare(_error)
        except _BaseException as _error:
            _step = _inner.athrow(_bare(_error))
        else:
            _step = _inner.__anext__() if _sent is None else _inner.asend(_sent)
        if _exit is not None:
            _outer = _inside()
            if _outer is not _slot[4]:
                _surround(_slot, _outer)
            _enter(_slot)
            try:
                await _inner.aclose()
            except _BaseException as _error:
                _exit = None
                _enter(_outer)
                _stopped(_slot, _error, _pieces, _first, _last, _consumer)
                raise
            _enter(_outer)
            _stopped(_slot, _exit, _pieces, _first, _last, _consumer)
            try:
                raise _exit
            finally:
                _exit = None
"""
).replace("\n<resumed>\n", _RESUMED)
LATE = {
    "call": with_watched(_CALL, CALL, *_OBSERVED),
    "coroutine": with_watched(_COROUTINE, COROUTINE, *_OBSERVED),
    "generator": with_watched(
        "\ndef run({params}):" + _BEGUN + _GENERATOR_LOOP, WATCHED["generator"], *_OBSERVED
    ),
    "async_generator": with_watched(
        "\nasync def run({params}):" + _BEGUN + _ASYNC_GENERATOR_LOOP,
        WATCHED["async_generator"],
        *_OBSERVED,
    ),
}

# -- what a plain function has returned and is running still: its call is made --------------------

_GIVEN = "\n    _inner, _slot = {inner}, _slot_of(_watch)\n"
FOLLOWED = {
    "coroutine": COROUTINE,
    "generator": "\ndef run({params}):" + _GIVEN + _GENERATOR_LOOP,
    "async_generator": "\nasync def run({params}):" + _GIVEN + _ASYNC_GENERATOR_LOOP,
}
reserve(*WATCHED.values(), *LATE.values(), *FOLLOWED.values())
