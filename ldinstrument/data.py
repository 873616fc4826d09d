"""Data that is safe to send: JSON types only, copied when recorded, so that nobody's later change spoils it.

One value in an event's `data` that JSON cannot carry makes LaunchDarkly's SDK lose the whole batch. Here it costs
itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from .ledger import ledger

MAX_BYTES = 16_384
MAX_DEPTH = 20
_KEEP = (str, bool, int)


def copied(data: Mapping[str, Any] | None, event_key: str) -> dict[str, Any] | None:
    """A deep, JSON-safe copy of *data* (at most 16 KiB), or None when there is none.

    What JSON cannot carry (dates, decimals, sets, bytes, circular references, NaN) is left out and named once.
    """
    if not data:
        return None
    if not isinstance(data, Mapping):
        ledger.warn(
            "bad_data",
            event_key,
            f"{event_key}: data is a {type(data).__name__}; give a dict. The event goes without it",
        )
        return None
    try:
        safe = _mapping(data, event_key, "data", ())
    except Exception as error:  # a hostile mapping of the host's
        _complain(event_key, "data", type(error).__name__)
        return None
    return _capped(safe, event_key) if safe else None


def number(value: object) -> float | int | None:
    """*value* as a finite number, or None when it is none: NaN, infinity, booleans, strings and look-alikes are not.

    `Decimal`, `Fraction` and NumPy scalars are numbers. Whole numbers stay whole.
    """
    if type(value) is float or type(value) is int:
        plain: float | int = value
    elif isinstance(value, (bool, str)) or not isinstance(value, (Real, Decimal)):
        return None
    else:
        try:
            plain = int(value) if isinstance(value, Integral) else float(value)
        except (ValueError, OverflowError, ArithmeticError):
            return None
    try:
        return plain if math.isfinite(plain) else None
    except OverflowError:  # a whole number beyond what JSON readers hold
        return None


def frozen(data: Mapping[str, Any] | None) -> str:
    """A text that is equal exactly for equal data: values fold only with equal data."""
    return json.dumps(data, sort_keys=True) if data else ""


class _Unfit(Exception):  # noqa: N818 - never leaves this file
    """A value that JSON cannot carry."""


def _mapping(data: Mapping[Any, Any], event_key: str, path: str, seen: tuple[int, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in dict(data).items():
        if not isinstance(key, str):
            _complain(event_key, f"{path}[{key!r:.40}]", "a key that is no string")
            continue
        try:
            out[_text(key)] = _value(value, event_key, f"{path}[{key!r:.40}]", (*seen, id(data)))
        except _Unfit as unfit:
            _complain(event_key, f"{path}[{key!r:.40}]", str(unfit))
    return out


def _value(value: Any, event_key: str, path: str, seen: tuple[int, ...]) -> Any:
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, int):
        return int(value)
    if id(value) in seen:
        raise _Unfit("a circular reference")
    if len(seen) >= MAX_DEPTH:
        raise _Unfit(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return _mapping(value, event_key, path, seen)
    if isinstance(value, (list, tuple)):
        return _items(value, event_key, path, (*seen, id(value)))
    raise _Unfit(f"a {type(value).__name__}")


def _items(values: Any, event_key: str, path: str, seen: tuple[int, ...]) -> list[Any]:
    out = []
    for index, value in enumerate(list(values)):
        try:
            out.append(_value(value, event_key, f"{path}[{index}]", seen))
        except _Unfit as unfit:
            _complain(event_key, f"{path}[{index}]", str(unfit))
    return out


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise _Unfit("not a finite number")
    return float(value)


def _text(value: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot carry."""
    text = str.__str__(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _capped(safe: dict[str, Any], event_key: str) -> dict[str, Any] | None:
    """*safe* without its largest entries until it fits into `MAX_BYTES`."""
    sizes = {key: len(json.dumps(value)) + len(key) + 4 for key, value in safe.items()}
    total = sum(sizes.values())
    while total > MAX_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        total -= sizes.pop(largest)
        del safe[largest]
        _complain(event_key, f"data[{largest!r:.40}]", f"more than {MAX_BYTES} bytes in all")
    return safe or None


def _complain(event_key: str, path: str, what: str) -> None:
    ledger.warn(
        "bad_data",
        f"{event_key} {path}",
        f"{event_key}: {path} left out: {what}; give JSON types (str, int, finite float, bool, None, list, dict)",
    )
