"""The body of a POST: inflated within a limit, strict JSON, cut into events."""

from __future__ import annotations

import itertools
import re
import zlib
from typing import Any

import msgspec

from ..database import Document
from ..responses import STRICT, decode, invalid, too_large
from .parsing import ParsedEvent, parsed

SPACE = " \t\n\r"
MOST_VALUES = 2_000_000
"""JSON values in one POST; a batch of 10,000 events has about 300,000."""
DEEPEST = 100
"""How deep lists and objects may be nested, about. What is read here may have to be read again
from a deeper call, where Python would give up sooner.
"""


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


_FAST = msgspec.json.Decoder(list[ParsedEvent])


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
