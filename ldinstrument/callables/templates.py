"""The source of the functions that wrap each kind of callable; `compiler` makes functions of it.

A name that starts with `_` is a closure variable of the function that is made, or its own; nothing
is looked up in the user's module. `{params}` and `{args}` are the parameters of what is wrapped,
`{inner}` the call of it, `{given}` what `_begin` is given.
"""

from __future__ import annotations

# -- watched: the watcher hears of each resume, each pause and the end -----------------------------

CALL = """
def run({params}):
    _watch = _begin({given})
    _watch.resume()
    try:
        _result = _fn({args})
    except _BaseException as _error:
        _watch.pause()
        _watch.raised(_error)
        raise
    _watch.pause()
    return _settle(_result, _watch)
"""

COROUTINE = """
async def run({params}):
    _coroutine = {inner}
    _watch = _begin({given})
    _watch.resume()
    try:
        _result = await _coroutine
    except _BaseException as _error:
        _watch.pause()
        _watch.raised(_error)
        raise
    _watch.pause()
    return _settle(_result, _watch)
"""

GENERATOR = """
def run({params}):
    _inner = {inner}
    _watch = _begin({given})
    _step, _fresh = _inner.__next__, True
    while True:
        _watch.resume()
        try:
            _item = _step()
        except _StopIteration as _stop:
            _watch.pause()
            _watch.returned(_stop.value)
            return _stop.value
        except _BaseException as _error:
            _step = None
            _watch.pause()
            _watch.raised(_error)
            raise
        _watch.pause()
        if _fresh:
            _fresh = False
            _watch.first()
        _exit = None
        try:
            _sent = yield _item
        except _GeneratorExit as _error:
            _exit = _bare(_error)
        except _BaseException as _error:
            _step = _partial(_throw_of(_inner), _bare(_error))
        else:
            if _sent is None and _watch.delegates:
                try:
                    _result = yield from _inner
                except _BaseException as _error:
                    _watch.raised(_error)
                    raise
                _watch.returned(_result)
                return _result
            _step = _inner.__next__ if _sent is None else _partial(_inner.send, _sent)
        if _exit is not None:
            _watch.resume()
            try:
                _value = _close_of(_inner)()
            except _BaseException as _error:
                _exit = None
                _watch.pause()
                _watch.raised(_error)
                raise
            _watch.pause()
            _watch.raised(_exit)
            if _value is not None:
                return _value
            try:
                raise _exit
            finally:
                _exit = None
"""

ASYNC_GENERATOR = """
async def run({params}):
    _inner = {inner}
    _watch = _begin({given})
    _step, _fresh = _first_step(_inner), True
    while True:
        _watch.resume()
        try:
            _item = await _step
        except _StopAsyncIteration:
            _watch.pause()
            _watch.returned(None)
            return
        except _BaseException as _error:
            _step = None
            _watch.pause()
            _watch.raised(_error)
            raise
        _watch.pause()
        if _fresh:
            _fresh = False
            _watch.first()
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
            _watch.resume()
            try:
                await _inner.aclose()
            except _BaseException as _error:
                _exit = None
                _watch.pause()
                _watch.raised(_error)
                raise
            _watch.pause()
            _watch.raised(_exit)
            try:
                raise _exit
            finally:
                _exit = None
"""

# -- the same for a task that wants nothing but clock and outcome: this is what the host pays most
# often. Where somebody observes the session, it runs the watched one instead. Every variable that a
# function closes over costs each call of it, so what is seldom needed is asked of `_rare` -

_WATCHED = "<watched>"
_OBSERVED = (
    ("_begin({given})", "_rare.run(_task, _session, _now())"),
    ("_settle(", "_rare.settle("),
    ("_BaseException", "_rare.BaseException"),
)


def with_watched(template: str, watched: str, *names: tuple[str, str]) -> str:
    """Return *template* with the body of *watched* in its place, each of *names* replaced there."""
    body = watched.strip().partition("\n")[2].replace("    ", "", 1)
    for name, instead in names:
        body = body.replace(name, instead)
    margin = template.partition(_WATCHED)[0].rpartition("\n")[2]
    return template.replace(_WATCHED, body.replace("\n    ", f"\n{margin}"))


# How a call ends without a session, and with one: what follows `_result = ...` in a `try`.
_COUNTED = """\
except _rare.BaseException as _error:
    _rare.raised(_task, None, 0.0, _error)
    raise
if _type(_result) not in _rare.plain_types:
    return _rare.settle(_result, _rare.run(_task, None, 0.0))
try:
    _rare.take()
except _rare.IndexError:
    _rare.refill()
return _result
"""
_RECORDED = """\
except _rare.BaseException as _error:
    _rare.raised(_task, _session, _started, _error)
    raise
if _type(_result) is not _rare.usual_type:
    if _type(_result) not in _rare.plain_types:
        return _rare.settle(_result, _rare.run(_task, _session, _started))
    if _type(_result) is not _rare.tuple:
        _rare.usual_type = _type(_result)
_entries.append((_task, _success, _started, _now(), None))
if _len(_entries) >= _session.fold_at:
    _session.fold_up()
return _result
"""


def _with_ends(template: str) -> str:
    for name, lines, margin in (("counted", _COUNTED, 12), ("recorded", _RECORDED, 4)):
        indented = lines.rstrip().replace("\n", "\n" + " " * margin)
        template = template.replace(f"<{name}>", indented)
    return template


TASK_CALL = with_watched(
    _with_ends("""
def run({params}):
    _session = _current()
    if _session is None or (_entries := _session.open_entries) is None:
        if _session is not None:
            _session = _rare.open_session()
        if _session is None:
            try:
                _result = _fn({args})
            <counted>
        if _session.observer is not None:
            <watched>
        _entries = _session.entries
    _started = _now()
    try:
        _result = _fn({args})
    <recorded>
"""),
    CALL,
    *_OBSERVED,
)

TASK_COROUTINE = with_watched(
    _with_ends("""
async def run({params}):
    _session = _current()
    if _session is None or (_entries := _session.open_entries) is None:
        if _session is not None:
            _session = _rare.open_session()
        if _session is None:
            _coroutine = {inner}
            try:
                _result = await _coroutine
            <counted>
        if _session.observer is not None:
            <watched>
        _entries = _session.entries
    _coroutine = {inner}
    _started = _now()
    try:
        _result = await _coroutine
    <recorded>
"""),
    COROUTINE,
    *_OBSERVED,
)

TASK_GENERATOR = with_watched(
    """
def run({params}):
    _session = _rare.open_session()
    if _session is not None and _session.observer is not None:
        <watched>
    _inner = {inner}
    _started = _now()
    try:
        _result = yield from _inner
    except _rare.BaseException as _error:
        _rare.raised(_task, _session, _started, _error)
        raise
    _rare.returned(_task, _session, _started)
    return _result
""",
    GENERATOR,
    *_OBSERVED,
)

PASSING = """
def run({params}):
    _inner = _fn({args})
    return _named(_stream(_inner), _inner)
"""


# Which template wraps which kind of callable (see `decorating.kind_of`).
TEMPLATES = {
    "call": CALL,
    "coroutine": COROUTINE,
    "generator": GENERATOR,
    "async_generator": ASYNC_GENERATOR,
}
TASK_TEMPLATES = {"call": TASK_CALL, "coroutine": TASK_COROUTINE, "generator": TASK_GENERATOR}
