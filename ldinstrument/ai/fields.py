"""Read the fields of what a model's SDK returned: dictionaries, pydantic models, dataclasses,
mocks.

Nothing is imported and nothing of the host runs: of a type that no known package made, only what is
stored is read, never a property. A mock answers every name with another mock, so numbers must be
exactly `int`, texts exactly `str`.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from typing import Any

from ..diagnostics import raise_if_interrupted

# Packages whose attributes are data: reading one of them runs no code of the host and no request.
KNOWN_PACKAGES = frozenset(
    {
        "agents",
        "anthropic",
        "botocore",
        "langchain",
        "langchain_core",
        "langgraph",
        "ldai",
        "litellm",
        "openai",
        "pydantic_ai",
    }
)
_TYPES_CAP = 4096
_known_types: dict[type, bool] = {}


def package_of(kind: type) -> str:
    """Return the top-level package that defines *kind*."""
    module = getattr(kind, "__module__", "")
    return module.partition(".")[0] if isinstance(module, str) else ""


def is_known(kind: type) -> bool:
    """Tell whether *kind* comes from one of the known packages."""
    found = _known_types.get(kind)
    if found is None:
        found = package_of(kind) in KNOWN_PACKAGES or kind.__module__.startswith("google.genai")
        if len(_known_types) < _TYPES_CAP:
            _known_types[kind] = found
    return found


def field(holder: Any, name: str) -> Any:
    """Return the value of *name* in *holder*, a mapping or an object; None when there is none."""
    kind = type(holder)
    if kind is dict:
        return holder.get(name)
    if is_known(kind):
        return _attribute(holder, name)
    return _stored(holder, name)


def is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Tell whether *value* is a *kind*, or says so as a proxy does; False where it refuses."""
    try:
        return isinstance(value, kind)
    except Exception as error:  # a lazy object that cannot be made
        raise_if_interrupted(error)
        return False


def _attribute(holder: Any, name: str) -> Any:
    if is_a(holder, dict):
        return holder.get(name)
    try:
        return getattr(holder, name, None)
    except Exception as error:  # a property that refuses, as of a stream before its end
        raise_if_interrupted(error)
        return None


def _stored(holder: Any, name: str) -> Any:
    """Return what the instance or its class holds under *name*, unless it would have to be called.

    `inspect.getattr_static` finds the same and takes ten times as long.
    """
    stored = _instance_fields(holder)
    if name in stored:
        return stored[name]
    for base in type(holder).__mro__:
        if name in base.__dict__:
            found = base.__dict__[name]
            if isinstance(found, types.MemberDescriptorType):
                return getattr(holder, name, None)
            return None if hasattr(type(found), "__get__") else found
    return _extra(holder).get(name)


def _instance_fields(holder: Any) -> Any:
    if is_a(holder, dict):
        return holder
    try:
        return object.__getattribute__(holder, "__dict__")
    except AttributeError:  # a class with slots alone
        return {}


def _extra(holder: Any) -> Any:
    """Return the fields that a pydantic model did not declare but kept."""
    if "__pydantic_fields__" not in type(holder).__dict__:
        return {}
    return getattr(holder, "__pydantic_extra__", None) or {}


def path(holder: Any, *names: str) -> Any:
    """Return the value at the end of a chain of fields; None when one of them is missing."""
    for name in names:
        if holder is None:
            return None
        holder = field(holder, name)
    return holder


def integer(holder: Any, *names: str) -> int | None:
    """Return the first of *names* that holds a whole number of zero or more; `True` and mocks are
    none.
    """
    if holder is None:
        return None
    for name in names:
        value = field(holder, name)
        if type(value) is int and value >= 0:
            return value
    return None


def text(holder: Any, *names: str) -> str | None:
    """Return the first of *names* that holds a text with something in it; an enum member counts as
    its value.
    """
    if holder is None:
        return None
    for name in names:
        value = field(holder, name)
        if isinstance(value, str) and type(value) is not str:
            value = getattr(value, "value", None)
        if type(value) is str and value:
            return value
    return None


def items(holder: Any, *names: str) -> Sequence[Any]:
    """Return the list or tuple at the end of a chain of fields, else an empty one."""
    found = path(holder, *names)
    return found if isinstance(found, (list, tuple)) else ()


def count(entries: Iterable[Any], *kinds: str) -> int:
    """Return how many *entries* have one of these `type`s."""
    return sum(1 for entry in entries if field(entry, "type") in kinds)
