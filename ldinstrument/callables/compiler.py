"""One function per kind of callable, with the signature of what it wraps.

A decorator written as `def run(*args, **kwargs)` raises a wrong call's `TypeError` late: for a
coroutine function at the `await`, for a generator function at the first `next`. So `run` is
compiled with the very parameters of the decorated function, as `dataclasses` compiles an
`__init__`: the interpreter itself checks the call, no tuple and no dictionary is built on the way
(0.04 us a call), the kind is native, so `inspect`, method calls and pickling by name work, and its
globals are those of the decorated function, where frameworks look up annotations.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import keyword
import linecache
import re
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from .templates import PASSING, TASK_TEMPLATES, TEMPLATES

FILENAME = "<ldinstrument {number}>"
_GENERIC = ("*_args, **_kwargs", "*_args, **_kwargs")


def shaped(
    template: str, fn: Callable[..., Any], names: dict[str, Any], *, arguments: bool = False
) -> Any:
    """Make a function from *template* that wraps *fn* and looks like it to everybody who asks.

    Args:
        template: the source.
        fn: what it calls; a plain function keeps its parameters, anything else is called with
            `*args, **kwargs`.
        names: what the template's closure variables stand for.
        arguments: `_begin` is given the call's arguments, exactly as the caller gave them.
    """
    generic = arguments or not isinstance(fn, types.FunctionType)
    params, args = _GENERIC if generic else _parameters(fn.__code__)
    source = template.format(
        params=params, args=args, inner=f"_fn({args})", given="_args, _kwargs" if arguments else ""
    )
    module = getattr(fn, "__globals__", None)
    cells = _class_cell(fn)
    if cells:
        source = source.replace("):\n", f"):\n    if False: {_CLASS}\n", 1)
    made = _made(source, {"_fn": fn, **names}, module if isinstance(module, dict) else None, cells)
    if not generic and isinstance(fn, types.FunctionType) and params != _GENERIC[0]:
        made.__defaults__, made.__kwdefaults__ = fn.__defaults__, fn.__kwdefaults__
    functools.update_wrapper(
        made, fn, updated=("__dict__",) if isinstance(fn, types.FunctionType) else ()
    )
    if isinstance(fn, types.FunctionType) and fn.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return types.coroutine(made)
    return made


def follower_shaped(
    template: str, names: dict[str, Any] | None = None, *, awaitable: bool = False
) -> Callable[[Any, Any], Any]:
    """Make a function of what runs already and its watcher from *template*."""
    source = template.replace("    _watch = _begin({given})\n", "").format(
        params="_given, _watch", inner="_given"
    )
    made: Callable[[Any, Any], Any] = _made(source, names or {}, None)
    return types.coroutine(made) if awaitable else made


def stream_shaped(template: str, names: dict[str, Any]) -> Callable[[Any], Any]:
    """Make a function of a generator (or async generator) that nobody has started yet from
    *template*.
    """
    made: Callable[[Any], Any] = _made(
        template.format(params="_given", inner="_given", given=""), names, None
    )
    return made


def _class_cell(fn: Any) -> dict[str, types.CellType]:
    """Return the cell by which a method's `super()` finds its class; none for other functions.

    What makes a class anew (`attrs` with slots) looks for this very cell in the closure of each
    method, to put the new class in. So it is in the closure of ours, too.
    """
    if not isinstance(fn, types.FunctionType) or _CLASS not in fn.__code__.co_freevars:
        return {}
    return {_CLASS: (fn.__closure__ or ())[fn.__code__.co_freevars.index(_CLASS)]}


_CLASS = "__class__"


def _made(
    source: str,
    names: dict[str, Any],
    module: dict[str, Any] | None,
    cells: dict[str, types.CellType] | None = None,
) -> Any:
    names, cells = {**_ALWAYS, **names}, cells or {}
    code = _compiled(source, tuple(sorted([*names, *cells])))
    closure = tuple(cells.get(name) or types.CellType(names[name]) for name in code.co_freevars)
    return types.FunctionType(code, globals() if module is None else module, "run", None, closure)


@functools.lru_cache(maxsize=1024)
def _compiled(source: str, names: tuple[str, ...]) -> types.CodeType:
    """Compile `run`; a function around it makes the names that it uses its free variables."""
    inner = source.strip().replace("\n", "\n    ")
    text = f"def around({', '.join(names)}):\n    {inner}\n    return run\n"
    filename = FILENAME.format(number=f"{next(_numbers)}")
    around = next(
        constant
        for constant in compile(text, filename, "exec").co_consts
        if isinstance(constant, types.CodeType)
    )
    # So that a traceback and a debugger show the lines.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    return next(constant for constant in around.co_consts if isinstance(constant, types.CodeType))


def _parameters(code: types.CodeType) -> tuple[str, str]:
    """Return the parameter list of *code* and how to pass each one on, as source."""
    wanted = code.co_argcount + code.co_kwonlyargcount
    varargs, varkeys = (
        bool(code.co_flags & inspect.CO_VARARGS),
        bool(code.co_flags & inspect.CO_VARKEYWORDS),
    )
    names = code.co_varnames[: wanted + varargs + varkeys]
    if not all(_usable(name) for name in names):
        return _GENERIC
    params, args = list(names[: code.co_argcount]), list(names[: code.co_argcount])
    if code.co_posonlyargcount:
        params.insert(code.co_posonlyargcount, "/")
    if varargs:
        params.append(f"*{names[wanted]}")
        args.append(f"*{names[wanted]}")
    elif code.co_kwonlyargcount:
        params.append("*")
    params += names[code.co_argcount : wanted]
    args += [f"{name}={name}" for name in names[code.co_argcount : wanted]]
    if varkeys:
        params.append(f"**{names[-1]}")
        args.append(f"**{names[-1]}")
    return ", ".join(params), ", ".join(args)


def _usable(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not _is_reserved(name)


def is_shaped(fn: Any) -> bool:
    """Tell whether *fn* was made here."""
    return isinstance(fn, types.FunctionType) and fn.__code__.co_filename.startswith(
        "<ldinstrument "
    )


def closed_over(fn: Any, name: str) -> Any:
    """Return what the closure variable *name* of a function made here stands for; None without
    it.
    """
    where = fn.__code__.co_freevars
    return fn.__closure__[where.index(name)].cell_contents if name in where else None


# -- what templates use ----------------------------------------------------------------------------


class Unawaited:
    """Holds a coroutine until somebody awaits its stand-in: dropped before, only one of the two
    complains.
    """

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner
        self._started = False

    def __await__(self) -> Generator[Any, Any, Any]:
        self._started = True
        return self._inner.__await__()

    def __del__(self) -> None:
        if not self._started:
            self._inner.close()


def named(outer: Any, inner: Any) -> Any:
    """Return *outer* under the name of the coroutine or generator *inner*."""
    outer.__name__, outer.__qualname__ = inner.__name__, inner.__qualname__
    return outer


def _bare(error: BaseException) -> BaseException:
    """Return *error* without the traceback entry of the `yield` it was thrown in at: it is on its
    way to another frame.
    """
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next
    return error


def _throw_of(inner: Any) -> Any:
    """Return what throws into *inner*; the iterator of an `__await__` need not know how, and then
    what is thrown comes out.
    """
    return getattr(inner, "throw", _raised)


def _close_of(inner: Any) -> Any:
    """Return what closes *inner*, where it can be closed."""
    return getattr(inner, "close", _nothing)


def _raised(error: BaseException) -> Any:
    raise error


def _nothing() -> None:
    pass


def _first_step(inner: Any) -> Any:
    """Return the first step of an async generator that no event loop shall know of.

    A loop closes the async generators it knows when it shuts down, all at once: ours and the one
    inside would be closed at the same time, and one of them would complain. Ours closes the inner
    one.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return inner.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


_numbers = itertools.count(1)
_ALWAYS: dict[str, Any] = {
    "_BaseException": BaseException,
    "_GeneratorExit": GeneratorExit,
    "_IndexError": IndexError,
    "_StopAsyncIteration": StopAsyncIteration,
    "_StopIteration": StopIteration,
    "_bare": _bare,
    "_close_of": _close_of,
    "_first_step": _first_step,
    "_len": len,
    "_named": named,
    "_partial": functools.partial,
    "_throw_of": _throw_of,
    "_type": type,
}
_reserving = {*TEMPLATES.values(), *TASK_TEMPLATES.values(), PASSING, "_args, _kwargs"}


def reserve(*templates: str) -> None:
    """Refuse the names that *templates* use as parameters of what they wrap: a function with such
    a parameter is called with `*args, **kwargs`.
    """
    _reserving.update(templates)


def _is_reserved(name: str) -> bool:
    return name.startswith("_") and any(
        re.search(rf"\b{name}\b", template) for template in _reserving
    )
