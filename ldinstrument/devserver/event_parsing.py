"""From the bytes of a POST to rows: JSON as strict as LaunchDarkly's, and what of each event the
read-out needs.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

from .database import Batch, Document
from .responses import STRICT, decode, invalid

MAX_UNPACKED = 256 * 1024 * 1024
SPACE = " \t\n\r"
BIGGEST = 2**63 - 1


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return the body without its content encoding (gzip or none), bounded so that a small bomb
    cannot fill the memory.

    Raises:
        RefusedRequest: broken gzip or an encoding that the intake does not know (400).
    """
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise invalid("unsupported content encoding")
    unzip = zlib.decompressobj(wbits=31)
    try:
        plain = unzip.decompress(body, MAX_UNPACKED)
    except zlib.error:
        raise invalid("body is not gzip") from None
    if not unzip.eof:
        raise invalid("gzip body is cut off or too large")
    return plain


def split_array(body: bytes) -> list[tuple[Any, str]]:
    """Return the items of a JSON array, each with its own text, so that an event is kept exactly as
    it was sent.

    Raises:
        RefusedRequest: empty, not JSON, or not an array (400).
    """
    if not body.strip():
        raise invalid("body may not be empty")
    try:
        text = body.decode("utf-8")
        return _scan(text)
    except (ValueError, RecursionError):
        raise invalid("body is not a JSON array of events") from None


def _scan(text: str) -> list[tuple[Any, str]]:
    """Walk the array item by item; the decoder in C tells where each one ends."""
    items: list[tuple[Any, str]] = []
    at = _after_space(text, 0)
    if text[at : at + 1] != "[":
        raise ValueError("not an array")
    at = _after_space(text, at + 1)
    if text[at : at + 1] == "]":
        return _nothing_after(text, at + 1, items)
    while True:
        item, end = STRICT.raw_decode(text, at)
        items.append((item, text[at:end]))
        at = _after_space(text, end)
        if text[at : at + 1] == "]":
            return _nothing_after(text, at + 1, items)
        if text[at : at + 1] != ",":
            raise ValueError("no comma")
        at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in SPACE:
        at += 1
    return at


def _nothing_after(text: str, at: int, items: list[tuple[Any, str]]) -> list[tuple[Any, str]]:
    if text[at:].strip(SPACE):
        raise ValueError("something after the array")
    return items


def single(body: bytes) -> list[tuple[Any, str]]:
    """Return a diagnostic POST: one JSON object."""
    if not body.strip():
        raise invalid("body may not be empty")
    try:
        event = decode(body)
    except ValueError:
        raise invalid("body is not a JSON object") from None
    if not isinstance(event, dict):
        raise invalid("body is not a JSON object")
    return [(event, json.dumps(event))]


def rows_of(items: list[tuple[Any, str]], received: int) -> Batch:
    """Return the rows of a batch. Items that are no events (no object, no kind) are left out, as an
    intake that accepts whatever is well-formed would; everything else is kept, with strange values
    as they are.
    """
    batch = Batch()
    for event, text in items:
        if isinstance(event, dict) and isinstance(event.get("kind"), str):
            _add(batch, event, text, received)
    return batch


def _add(batch: Batch, event: Document, text: str, received: int) -> None:
    kind, created = (
        event["kind"],
        _whole(event.get("creationDate", event.get("startDate")), received),
    )
    key = _text(event.get("key"))
    index = len(batch.events)
    batch.events.append((_text(kind), key, created, _text(text)))
    if kind == "custom":
        _add_measurement(batch, event, key, index, created)
    elif kind == "feature":
        _add_exposure(batch, event, key, created)


def _add_measurement(batch: Batch, event: Document, key: str, index: int, created: int) -> None:
    value = number(event.get("metricValue"))
    events, valued = batch.keys.get(key, (0, 0))
    batch.keys[key] = (events + 1, valued + (value is not None))
    for kind, unit in units_of(event).items():
        batch.measurements.append((key, kind, unit, index, created, value))


def _add_exposure(batch: Batch, event: Document, flag: str, created: int) -> None:
    variation, reason = event.get("variation"), event.get("reason")
    if type(variation) is not int or not 0 <= variation <= BIGGEST:
        return
    if not isinstance(reason, dict) or reason.get("inExperiment") is not True:
        return
    batch.variations[flag, variation] = _variation_text(event.get("value"))
    for kind, unit in units_of(event).items():
        batch.exposures.append((flag, kind, unit, variation, created))


def _variation_text(value: Any) -> str:
    """JSON of a variation's value; null for the infinity that a number like 1e999 is read as."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return "null"


def units_of(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the analysis units of an event: context kind to context key.

    Reads `context` (single or multi), the older `contextKeys`, and `user` of the SDKs before
    contexts.
    """
    context = event.get("context")
    if isinstance(context, dict):
        return _units_of_context(context)
    keys = event.get("contextKeys")
    if isinstance(keys, dict):
        return {_text(kind): _text(key) for kind, key in keys.items() if _is_key(key)}
    user = event.get("user")
    key = user.get("key") if isinstance(user, dict) else event.get("userKey")
    return {"user": _text(key)} if _is_key(key) else {}


def _units_of_context(context: Document) -> dict[str, str]:
    if context.get("kind") != "multi":
        kind = context.get("kind", "user")
        return (
            {_text(kind): _text(context.get("key"))}
            if _is_key(context.get("key")) and isinstance(kind, str)
            else {}
        )
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


def _whole(value: Any, otherwise: int) -> int:
    found = number(value)
    return int(found) if found is not None and abs(found) < BIGGEST else otherwise


def _text(value: Any) -> str:
    """Return a string that SQLite can hold: a lone surrogate, which JSON allows, becomes a question
    mark.
    """
    if not isinstance(value, str):
        return ""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
