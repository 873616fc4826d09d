"""From the bytes of a POST to rows: JSON as strict as LaunchDarkly's, and what of each event the
read-out needs.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .database import Document
from .responses import STRICT, decode, invalid, too_large

SPACE = " \t\n\r"
BIGGEST = 2**63 - 1
LARGEST = 1e150
MOST_VALUES = 2_000_000
"""JSON values in one POST; a batch of 10,000 events has about 300,000."""
DEEPEST = 100
"""How deep lists and objects may be nested, about. What is read here may have to be read again
from a deeper call, where Python would give up sooner.
"""
Unit = tuple[str, str]
Filters = Mapping[str, Sequence[tuple[str, Callable[[Mapping[str, Any]], bool]]]]
"""By event key: the names of the filtered series, each with the test that its events pass."""


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body without its content encoding (gzip or none).

    Args:
        body: as it came.
        encoding: the header `Content-Encoding`.
        limit: bytes; inflating stops there, so that a small body cannot fill the memory.

    Raises:
        RefusedRequest: 400 for broken gzip, another encoding or deep nesting, 413 for too much.
    """
    plain = _inflated(body, encoding, limit)
    if len(plain) > limit or _values(plain) > MOST_VALUES:
        raise too_large()
    if _too_deep(plain):
        raise invalid("body is nested too deeply")
    return plain


def _inflated(body: bytes, encoding: str, limit: int) -> bytes:
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise invalid("unsupported content encoding")
    unzip = zlib.decompressobj(wbits=31)
    try:
        plain = unzip.decompress(body, limit + 1)
    except zlib.error:
        raise invalid("body is not gzip") from None
    if not unzip.eof and len(plain) <= limit:
        raise invalid("gzip body is cut off")
    return plain


def _values(body: bytes) -> int:
    """Return about how many JSON values there are: each has a comma, or opens a list or object."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_USUAL_DEPTH = 5
_STEPS = [(byte in b"[{") - (byte in b"]}") for byte in range(256)]
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"\\'))


def _too_deep(body: bytes) -> bool:
    """Tell whether JSON is nested deeper than `DEEPEST`, at the speed of C where it is flat."""
    marks = body.translate(None, _NO_MARKS).replace(b'""', b"")
    if b'"' in marks or b"\\" in marks:  # strings with brackets or quotes in them
        marks = _STRING.sub(b"", body).translate(None, _NO_MARKS)
    for _ in range(_USUAL_DEPTH):
        marks = marks.replace(b"{}", b"").replace(b"[]", b"")
    return max(itertools.accumulate(map(_STEPS.__getitem__, marks)), default=0) > DEEPEST


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


_FAST = msgspec.json.Decoder(list[ParsedEvent])
FIELDS = ParsedEvent.__struct_fields__


def parse_array(body: bytes) -> list[Any]:
    """Return the items of a JSON array, events as `ParsedEvent`.

    msgspec reads what nearly everybody sends, five times as fast; what it does not take (half
    surrogate pairs, very large numbers, items that are no objects) is read by the standard library.

    Raises:
        RefusedRequest: empty, not JSON, or not an array (400).
    """
    if not body.strip():
        raise invalid("body may not be empty")
    try:
        return _FAST.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return [parsed(item) for item in parse_items(body)]


def parse_items(body: bytes) -> list[Any]:
    """Return the items of a JSON array as they are.

    Raises:
        RefusedRequest: not JSON, or not an array (400).
    """
    try:
        found = STRICT.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise invalid("body is not a JSON array of events") from None
    if not isinstance(found, list):
        raise invalid("body is not a JSON array of events")
    return found


def parsed(item: Any) -> Any:
    """Return an event as `ParsedEvent`; what is no object stays as it is."""
    if not isinstance(item, dict):
        return item
    return ParsedEvent(*(item.get(name) for name in FIELDS))


def split_array(body: bytes) -> list[tuple[Any, str]]:
    """Return the items of a JSON array that `parse_array` took, each with its own text."""
    text = body.decode("utf-8")
    items: list[tuple[Any, str]] = []
    at = _after_space(text, _after_space(text, 0) + 1)
    while text[at : at + 1] not in ("]", ""):
        item, end = STRICT.raw_decode(text, at)
        items.append((item, text[at:end]))
        at = _after_space(text, end)
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
    return items


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in SPACE:
        at += 1
    return at


def parse_object(body: bytes) -> Document:
    """Return the JSON object of a diagnostic POST.

    Raises:
        RefusedRequest: it is none (400).
    """
    if not body.strip():
        raise invalid("body may not be empty")
    try:
        event = decode(body)
    except ValueError:
        raise invalid("body is not a JSON object") from None
    if not isinstance(event, dict):
        raise invalid("body is not a JSON object")
    return event


def is_event(item: Any) -> bool:
    """Return whether an item of a batch is an event: an object with a kind."""
    return isinstance(item, dict) and isinstance(item.get("kind"), str)


@dataclass(slots=True)
class KeyCounts:
    """The events of one key in a POST: how many, those with a value, the sum of the values, and how
    many by the context kinds that they carry (joined by a comma).
    """

    events: int = 0
    valued: int = 0
    total: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Batch:
    """What the events of one POST become.

    Args:
        body: the JSON array, as it came.
        received: epoch milliseconds; the date of events without a valid one.
        events: how many items are events.
        counts: events by kind and key.
        keys: the custom events by key.
        measurements: series, unit, date, value, and 1 for the first unit of an event (else 0).
        filtered: the same with the name of a filtered series.
        exposures: flag, unit, variation, date.
        evaluated: by flag, the date of its newest evaluation.
        variations: JSON of a variation's value, by flag and variation.
    """

    body: bytes
    received: int
    events: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    keys: dict[str, KeyCounts] = field(default_factory=dict)
    measurements: list[tuple[str, Unit, int, float | None, int]] = field(default_factory=list)
    filtered: list[tuple[str, Unit, int, float | None, int]] = field(default_factory=list)
    exposures: list[tuple[str, Unit, int, int]] = field(default_factory=list)
    evaluated: dict[str, int] = field(default_factory=dict)
    variations: dict[tuple[str, int], str] = field(default_factory=dict)


def batch_of(body: bytes, items: list[Any], received: int, filters: Filters | None = None) -> Batch:
    """Return the rows of a POST.

    Items that are no events (no object, no kind) are left out, as an intake that accepts whatever
    is well-formed would; everything else is kept, with strange values as they are.
    """
    batch = Batch(body, received)
    counts = batch.counts
    for event in items:
        if type(event) is not ParsedEvent or not isinstance(event.kind, str):
            continue
        batch.events += 1
        kind, key = _plain(event.kind), _plain(event.key)
        place = (kind, key)
        counts[place] = counts.get(place, 0) + 1
        if kind == "custom":
            _add_measurement(batch, event, key)
        elif kind in ("feature", "debug"):
            _add_evaluation(batch, key, date_of(event, received))
            if kind == "feature":
                _add_exposure(batch, event, key)
        elif kind == "summary" and isinstance(event.features, dict):
            for flag in event.features:
                _add_evaluation(batch, _text(flag), _whole(event.endDate, received))
    if filters and any(key in filters for key in batch.keys):
        _add_filtered(batch, filters)
    return batch


def _add_filtered(batch: Batch, filters: Filters) -> None:
    """Measure the events that pass the filters of metrics; they look at all of an event."""
    for item in parse_items(batch.body):
        if is_event(item) and item["kind"] == "custom":
            for series, passes in filters.get(_plain(item.get("key")), ()):
                if passes(item):
                    batch.filtered += measured_rows(item, series, batch.received)


def measured_rows(
    item: Document, series: str, received: int
) -> list[tuple[str, Unit, int, float | None, int]]:
    """Return a row of a series for each unit of an event that is still JSON."""
    event = parsed(item)
    return measurements_of(event, series, date_of(event, received), measured(event))


def _plain(value: Any) -> str:
    """Return a string as it is where that is sure to be text, which nearly every one is."""
    return value if type(value) is str and value.isascii() else _text(value)


def _add_evaluation(batch: Batch, flag: str, at: int) -> None:
    batch.evaluated[flag] = max(at, batch.evaluated.get(flag, at))


def series_name(event_key: str, filter_text: str = "") -> str:
    """Return the name of the events of one key, all of them or those that pass a filter."""
    return f"~{filter_text}~{event_key}" if filter_text else f"={event_key}"


def measurements_of(
    event: ParsedEvent, series: str, created: int, value: float | None
) -> list[tuple[str, Unit, int, float | None, int]]:
    """Return a row for each unit of an event."""
    units = units_of(event).items()
    return [(series, unit, created, value, int(not i)) for i, unit in enumerate(units)]


def _add_measurement(batch: Batch, event: ParsedEvent, key: str) -> None:
    value, created = measured(event), date_of(event, batch.received)
    unit = _only_unit(event)
    if unit is None:
        rows = measurements_of(event, "=" + key, created, value)
        kinds = ",".join(row[1][0] for row in rows)
    else:
        rows, kinds = [("=" + key, unit, created, value, 1)], unit[0]
    batch.measurements += rows
    known = batch.keys.get(key)
    if known is None:
        known = batch.keys[key] = KeyCounts()
    known.events += 1
    known.kinds[kinds] = known.kinds.get(kinds, 0) + 1
    if value is not None:
        known.valued += 1
        known.total += value


def _only_unit(event: ParsedEvent) -> Unit | None:
    """Return the unit of a context of one kind; None for every other context."""
    context = event.context
    if type(context) is not dict:
        return None
    kind, key = context.get("kind"), context.get("key")
    if type(kind) is not str or type(key) is not str or not key or kind == "multi":
        return None
    return (kind, key) if kind.isascii() and key.isascii() else None


def _add_exposure(batch: Batch, event: ParsedEvent, flag: str) -> None:
    variation, reason = event.variation, event.reason
    if type(variation) is not int or not 0 <= variation <= BIGGEST:
        return
    if not isinstance(reason, dict) or reason.get("inExperiment") is not True:
        return
    if (flag, variation) not in batch.variations:
        batch.variations[flag, variation] = _variation_text(event.value)
    created = date_of(event, batch.received)
    batch.exposures += [(flag, unit, variation, created) for unit in units_of(event).items()]


def _variation_text(value: Any) -> str:
    """Return JSON of a variation's value; null for the infinity that 1e999 is read as."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return "null"


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
        return {_text(kind): _text(key) for kind, key in keys.items() if _is_key(key)}
    user = event.user
    key = user.get("key") if isinstance(user, dict) else event.userKey
    return {"user": _text(key)} if _is_key(key) else {}


def _units_of_context(context: Document) -> dict[str, str]:
    kind, key = context.get("kind", "user"), context.get("key")
    if kind != "multi":
        return {_text(kind): _text(key)} if _is_key(key) and isinstance(kind, str) else {}
    parts = {kind: part.get("key") for kind, part in context.items() if isinstance(part, dict)}
    return {_text(kind): _text(key) for kind, key in parts.items() if _is_key(key)}


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
    """Return the value of an event; one that no sum of squares could hold is cut to 1e150."""
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
    return _whole(event.startDate if created is None else created, received)


def _whole(value: Any, otherwise: int) -> int:
    found = number(value)
    return int(found) if found is not None and abs(found) < BIGGEST else otherwise


def _text(value: Any) -> str:
    """Return a string that SQLite can hold: a lone surrogate, which JSON allows, becomes a question
    mark; what is no string becomes an empty one.
    """
    if not isinstance(value, str):
        return ""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
