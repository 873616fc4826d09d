"""One event as the intake reads it: its units, its value and its date, whatever JSON they are."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ...values import without_surrogates
from ..database import Document

BIGGEST = 2**63 - 1
LARGEST = 1e24
"""A million events of a unit add up to no more than the analysis takes, 1e30."""
Unit = tuple[str, str]


class ParsedEvent(msgspec.Struct, gc=False):
    """What the intake looks at in an event; every field may hold any JSON."""

    kind: Any = None
    key: Any = None
    creationDate: Any = None  # noqa: N815 - the names of events
    context: Any = None
    metricValue: Any = None  # noqa: N815
    variation: Any = None
    value: Any = None
    reason: Any = None
    startDate: Any = None  # noqa: N815
    endDate: Any = None  # noqa: N815
    features: Any = None
    contextKeys: Any = None  # noqa: N815
    user: Any = None
    userKey: Any = None  # noqa: N815


FIELDS = ParsedEvent.__struct_fields__


def parsed(item: Any) -> Any:
    """Return an event as `ParsedEvent`; what is no object stays as it is."""
    if not isinstance(item, dict):
        return item
    return ParsedEvent(*(item.get(name) for name in FIELDS))


def only_unit(event: ParsedEvent) -> Unit | None:
    """Return the unit of a context of one kind; None for every other context."""
    context = event.context
    if type(context) is not dict:
        return None
    kind, key = context.get("kind"), context.get("key")
    if type(kind) is not str or type(key) is not str or not key or kind == "multi":
        return None
    return (kind, key) if kind.isascii() and key.isascii() else None


def units_of(event: ParsedEvent) -> dict[str, str]:
    """Return the analysis units of an event: context kind to context key.

    Reads `context` (single or multi), the older `contextKeys`, and `user` of the SDKs before
    contexts.
    """
    context = event.context
    if isinstance(context, dict):
        return _units_of_context(context)
    keys = event.contextKeys
    if isinstance(keys, dict):
        return {text_of(kind): text_of(key) for kind, key in keys.items() if _is_key(key)}
    user = event.user
    key = user.get("key") if isinstance(user, dict) else event.userKey
    return {"user": text_of(key)} if _is_key(key) else {}


def _units_of_context(context: Document) -> dict[str, str]:
    kind, key = context.get("kind", "user"), context.get("key")
    if kind != "multi":
        return {text_of(kind): text_of(key)} if _is_key(key) and isinstance(kind, str) else {}
    parts = {kind: part.get("key") for kind, part in context.items() if isinstance(part, dict)}
    return {text_of(kind): text_of(key) for kind, key in parts.items() if _is_key(key)}


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and key != ""


def number(value: Any) -> float | None:
    """Return a finite number as a float; None for everything else: LaunchDarkly cannot analyse a
    string or a boolean.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def measured(event: ParsedEvent) -> float | None:
    """Return the value of an event; what is beyond 1e24 is cut to it."""
    value = event.metricValue
    if type(value) is float and -LARGEST < value < LARGEST:
        return value
    found = number(value)
    return None if found is None else max(-LARGEST, min(LARGEST, found))


def date_of(event: ParsedEvent, received: int) -> int:
    """Return when an event was created; when it was received, where it does not say."""
    created = event.creationDate
    if type(created) is int and -BIGGEST < created < BIGGEST:
        return created
    return whole_of(event.startDate if created is None else created, received)


def whole_of(value: Any, otherwise: int) -> int:
    """Return a number as an integer; another one where it is none, or does not fit."""
    found = number(value)
    return int(found) if found is not None and abs(found) < BIGGEST else otherwise


def text_of(value: Any) -> str:
    """Return a string that SQLite can hold: a lone surrogate, which JSON allows, becomes a question
    mark; what is no string becomes an empty one.
    """
    if not isinstance(value, str):
        return ""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return without_surrogates(value)
    return value


def plain_text(value: Any) -> str:
    """Return a string as it is where that is sure to be text, which nearly every one is."""
    return value if type(value) is str and value.isascii() else text_of(value)
