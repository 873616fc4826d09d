"""Which function uses which task key: two functions of one key would be one metric."""

from __future__ import annotations

import functools
from typing import Any

from ..callables.compiler import closed_over, is_shaped
from ..diagnostics import warn_caller
from ..errors import DefinitionError

MAX_FUNCTIONS = 10_000
_MOST_WRAPPERS = 50
_DUMMIES = ("django.utils.decorators",)
"""Modules that decorate a function of their own, to see what a decorator does to it."""

_places: dict[str, str] = {}


def innermost(fn: Any) -> Any:
    """Return the function inside a descriptor."""
    if isinstance(fn, (classmethod, staticmethod)):
        return fn.__func__
    if isinstance(fn, property):
        return fn.fget
    if isinstance(
        fn, (functools.cached_property, functools.partialmethod, functools.singledispatchmethod)
    ):
        return fn.func
    return fn


def key_from_name(what: str, fn: Any) -> str:
    """Return the task key `task.<name>` of a decorated function.

    Raises:
        DefinitionError: it has no name of its own.
    """
    name = getattr(innermost(fn), "__name__", "")
    if not isinstance(name, str) or not name or name == "<lambda>":
        kind = "lambda" if name == "<lambda>" else type(fn).__name__
        raise DefinitionError(
            f"{what}: a {kind} has no name to make a key of; "
            f"give one: {what}('checkout.total')(...)"
        )
    return f"task.{name}"


def note_function(what: str, key: str, fn: Any) -> None:
    """Warn when two functions share *key*, or one is decorated twice with it.

    Args:
        what: the decorator, as the user calls it.
        key: the task's key.
        fn: what was decorated.
    """
    if _tracked_as(fn, key):
        warn_caller(
            f"{what} {key!r}: decorated twice with this key, so each call counts twice; remove one"
        )
        return
    place = _place_of(innermost(fn))
    if place.startswith(_DUMMIES):
        return
    known = (
        _places.setdefault(key, place) if len(_places) < MAX_FUNCTIONS else _places.get(key, place)
    )
    if known != place:
        warn_caller(
            f"{what} {key!r}: both {known} and {place} use this key, so their runs are one metric; "
            "give one of them a key of its own"
        )


def _place_of(inner: Any) -> str:
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    place = f"{getattr(inner, '__module__', '?')}.{name}"
    if place.endswith("<lambda>"):
        place += f" of line {inner.__code__.co_firstlineno}"
    return place


def _tracked_as(fn: Any, key: str) -> bool:
    """Tell whether *fn*, or a function that it wraps, is measured under *key* already."""
    inner = innermost(fn)
    for _ in range(_MOST_WRAPPERS):
        if _key_of_wrapper(inner) == key:
            return True
        inner = getattr(inner, "__wrapped__", None)
        if inner is None:
            return False
    return False


def _key_of_wrapper(inner: Any) -> str | None:
    """Return the task key that a wrapper of ours measures under; None when it is none."""
    if is_shaped(inner):
        task = closed_over(inner, "_task") or _first_argument(closed_over(inner, "_begin"))
    else:
        task = getattr(getattr(inner, "_self_wrapper", None), "task", None)
    return getattr(task, "key", None)


def _first_argument(begin: Any) -> Any:
    args = begin.args if isinstance(begin, functools.partial) else ()
    return args[0] if args else None


def forget_functions() -> None:
    """Forget which function uses which key (tests)."""
    _places.clear()
