"""The event filters of a metric: check them, and tell which events pass.

A filter is a condition on a context attribute or on a top-level value of the event's `data`, or a
group of conditions. LaunchDarkly compares strings, numbers and booleans only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..responses import invalid

MAX_DEPTH = 10
TYPES = ("contextAttribute", "eventProperty", "group")
Filter = Mapping[str, Any]
Predicate = Callable[[Mapping[str, Any]], bool]


def checked_filter(node: Any, depth: int = 0) -> dict[str, Any]:
    """Return a filter node and those below it, `negate` filled in.

    Raises:
        RefusedRequest: 400, a node without its fields, or nested deeper than ten groups.
    """
    if not isinstance(node, dict) or node.get("type") not in TYPES or depth > MAX_DEPTH:
        raise invalid(f"filters.type must be one of {', '.join(TYPES)}")
    if not isinstance(node.get("op"), str) or not isinstance(node.get("values"), list):
        raise invalid("filters need op and values")
    if not isinstance(node.get("negate", False), bool):
        raise invalid("filters.negate must be true or false")
    if node["type"] == "group":
        children = [checked_filter(child, depth + 1) for child in node["values"]]
        return {"negate": False, **node, "values": children}
    if not isinstance(node.get("attribute"), str):
        raise invalid("filters.attribute is required")
    return {"negate": False, **node}


def predicate(node: Filter | None) -> Predicate | None:
    """Return the function that tells whether an event passes; None when there is no filter."""
    return _compiled(node) if node else None


def _compiled(node: Filter) -> Predicate:
    found = _group(node) if node["type"] == "group" else _condition(node)
    return (lambda event: not found(event)) if node.get("negate") else found


def _group(node: Filter) -> Predicate:
    parts = [_compiled(child) for child in node["values"]]
    together = any if node["op"].lower() in ("or", "any") else all
    return lambda event: together(part(event) for part in parts)


def _condition(node: Filter) -> Predicate:
    compare = OPERATORS.get(node["op"].lower())
    read = _property if node["type"] == "eventProperty" else _attribute
    attribute, kind, values = node["attribute"], node.get("contextKind"), node["values"]

    def passes(event: Mapping[str, Any]) -> bool:
        value = read(event, attribute, kind)
        return compare is not None and _is_scalar(value) and compare(value, values)

    return passes


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))


def _property(event: Mapping[str, Any], name: str, kind: str | None) -> Any:
    data = event.get("data")
    return data.get(name.removeprefix("/")) if isinstance(data, dict) else None


def _attribute(event: Mapping[str, Any], name: str, kind: str | None) -> Any:
    """Return the attribute of the context of this kind, the first kind's where none is named."""
    context = event.get("context")
    if not isinstance(context, dict):
        return None
    if context.get("kind") == "multi":
        parts = [part for key, part in context.items() if isinstance(part, dict)]
        context = context.get(kind) if kind else next(iter(parts), None)
    elif kind and context.get("kind", "user") != kind:
        return None
    return context.get(name.removeprefix("/")) if isinstance(context, dict) else None


def _same(value: Any, wanted: Any) -> bool:
    """Compare without taking true for 1."""
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _text(test: Callable[[str, str], Any]) -> Callable[[Any, Sequence[Any]], bool]:
    return lambda value, wanted: (
        isinstance(value, str) and any(isinstance(w, str) and test(value, w) for w in wanted)
    )


def _number(test: Callable[[float, float], bool]) -> Callable[[Any, Sequence[Any]], bool]:
    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    return lambda value, wanted: (
        is_number(value) and any(is_number(w) and test(value, w) for w in wanted)
    )


def _matches(value: str, pattern: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return False


def _in(value: Any, wanted: Sequence[Any]) -> bool:
    return any(_same(value, other) for other in wanted)


OPERATORS: Mapping[str, Callable[[Any, Sequence[Any]], bool]] = {
    "in": _in,
    "equals": _in,
    "startswith": _text(str.startswith),
    "endswith": _text(str.endswith),
    "contains": _text(lambda value, part: part in value),
    "matches": _text(_matches),
    "lessthan": _number(lambda value, limit: value < limit),
    "lessthanorequal": _number(lambda value, limit: value <= limit),
    "greaterthan": _number(lambda value, limit: value > limit),
    "greaterthanorequal": _number(lambda value, limit: value >= limit),
}
"""LaunchDarkly's clause operators, in lower case; an unknown one passes nothing."""
