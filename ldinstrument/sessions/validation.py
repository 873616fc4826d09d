"""Data that is safe to send: JSON types only, copied when recorded, so that nobody's later change
spoils it.

A value in an event's `data` that JSON cannot carry makes LaunchDarkly's SDK lose the whole batch.
Here that value is dropped, counted, and logged once with the fix.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from ..diagnostics import raise_if_interrupted, warn_once
from ..errors import StrictError
from ..ledger import ledger
from ..metrics.catalogs import EventRouting, catalog
from ..metrics.metric import RESERVED_PREFIXES, Metric, is_key
from ..values import without_surrogates
from .magnitudes import check_magnitude, settled

MAX_COUNT = 10_000
MAX_INT = 2**63 - 1
MOST_MEASURES = 10_000

measures: dict[str, tuple[int, Metric, EventRouting]] = {}
"""By key, `value` metrics of which `measurement` has taken a value: the version of the catalog that
this holds for, the metric, and its routing. Any number of at most `MAX_INT` is taken by them.
"""


def measurement(
    metric: Metric | str, value: Any, data: Mapping[str, Any] | None
) -> tuple[EventRouting, float | int | None, dict[str, Any] | None] | None:
    """Check a value that is to be recorded.

    Returns:
        `(routing, value, data)`; None when it cannot be sent, which is counted and logged once.
    """
    if not isinstance(metric, (str, Metric)) or not metric:
        discard("(no key)", "bad_key", f"give a Metric or its key, not {type(metric).__name__}")
        return None
    version = catalog.version
    known = catalog.get(metric) if type(metric) is str else _known(metric)
    # An enum member is the string it stands for.
    key = known.event if known else str.__str__(metric)
    routing = catalog.routing(key)
    if not routing.declared:
        if key.startswith(RESERVED_PREFIXES):
            discard(
                key,
                "reserved_prefix",
                f"{' and '.join(RESERVED_PREFIXES)} are LaunchDarkly's own; choose another",
            )
            return None
        _say_undeclared(key)
        routing = routing.replace(numeric=value is not None)
    kind = known.measure if known else _kind(routing)
    try:
        checked = _checked(kind, value)
    except _RefusedValue as refused:
        discard(routing.event_key, *refused.args)
        return None
    if kind == "count" and checked == 0:
        return None
    if known is not None and checked is not None:
        if known.key not in settled:
            check_magnitude(known, checked)
        if kind == "value" and known.key in settled and len(measures) < MOST_MEASURES:
            measures[known.key] = version, known, routing
    return routing, checked, data if data is None else copied(data, routing.event_key)


def _kind(routing: EventRouting) -> str:
    return "value" if routing.numeric else "count" if routing.counted else "occurrence"


def _say_undeclared(key: str) -> None:
    definition = (
        f"Metric({key!r}, ...)" if is_key(key) else f"Metric('a.key', event_key={key!r}, ...)"
    )
    warn_once(
        "undeclared",
        key,
        f"{key}: no metric is declared for it, so LaunchDarkly may ignore it; "
        f"say ldinstrument.catalog.add({definition}) and create it with bootstrap",
    )


def _known(metric: Metric | str) -> Metric | None:
    if isinstance(metric, Metric):
        if metric.key not in catalog:
            catalog.add(metric)
        elif catalog[metric.key] != metric:
            warn_once(
                "two_definitions",
                metric.key,
                f"{metric.key}: recorded with a Metric that differs from the catalog's; the "
                f"catalog's counts",
            )
        return catalog[metric.key]
    return catalog.get(metric)


class _RefusedValue(Exception):  # noqa: N818 - never leaves this file
    """A value that cannot be sent: `(reason, advice)`."""


def _checked(kind: str, value: Any) -> float | int | None:
    """Return *value* as a metric of this *kind* takes it."""
    if kind == "occurrence":
        if value is not None:
            advice = "an occurrence takes no value; record it only when it happened"
            raise _RefusedValue("value_for_occurrence", advice)
        return None
    if value is None:
        if kind == "value":
            raise _RefusedValue("no_value", "a value metric needs a number")
        return None
    checked = number(value)
    if checked is None:
        shown = f"{type(value).__name__} {_shown(value)}"
        raise _RefusedValue("not_a_number", f"give a finite number, not {shown}")
    if kind == "count" and not (checked == int(checked) and 0 <= checked <= MAX_COUNT):
        raise _RefusedValue("bad_count", f"a count is a whole number from 0 to {MAX_COUNT}")
    return checked


def _shown(value: Any) -> str:
    """Numbers may be shown; anything else could be somebody's data."""
    return str(value) if issubclass(type(value), (bool, float)) else "(a text or an object)"


def discard(event_key: str, reason: str, advice: str) -> None:
    """Count one value as discarded and say once why."""
    ledger.count(recorded=1)
    ledger.discarded(reason)
    warn_once(reason, event_key, f"{event_key}: {advice}; this value is left out")


MAX_BYTES = 16_384
MAX_DEPTH = 20
MAX_VALUES = 2_000


def copied(data: Mapping[str, Any] | None, event_key: str) -> dict[str, Any] | None:
    """Return a deep, JSON-safe copy of *data* (at most 16 KiB), or None when there is none.

    What JSON cannot carry (dates, decimals, sets, bytes, circular references, NaN, numbers beyond
    64 bits) is left out and named once, and so is what is more than 2,000 values deep or wide.
    """
    if data is None:
        return None
    try:
        if not isinstance(data, Mapping):
            _complain(event_key, "", f"data is a {type(data).__name__}; give a dict")
            return None
        if type(data) is dict and len(data) <= MOST_PLAIN and all(map(_is_plain, data.items())):
            return dict(data)
        return _capped(_Copy(event_key).mapping(data, "", ()), event_key)
    except StrictError:
        raise
    except Exception as error:  # a hostile mapping of the host's
        raise_if_interrupted(error)
        _complain(event_key, "", f"data raised {type(error).__name__} while it was copied")
        return None


MOST_PLAIN, LONGEST_PLAIN = 16, 200
"""Up to so many entries of so many characters need no look at what is inside."""


def _is_plain(item: tuple[Any, Any]) -> bool:
    """Tell whether an entry of a dict may be taken as it is: what most data is."""
    key, value = item
    if type(key) is not str or not key.isascii() or not 0 < len(key) <= LONGEST_PLAIN:
        return False
    if type(value) is str:
        return value.isascii() and len(value) <= LONGEST_PLAIN
    if type(value) is int:
        return -(2**53) < value < 2**53
    return value is None or type(value) is bool


def number(value: Any) -> float | int | None:
    """*value* as a finite number, or None when it is none: NaN, infinity, booleans, strings and
    look-alikes are not.

    `Decimal`, `Fraction` and NumPy scalars are numbers. Whole numbers stay whole.
    """
    plain: float | int
    if type(value) is float or type(value) is int:
        plain = value
    else:
        try:
            if isinstance(value, (bool, str)) or not _is_number(value):
                return None
            whole = isinstance(value, int) or _is(value, "numbers", "Integral")
            plain = int(value) if whole else float(value)
        except Exception as error:  # a number that is none, or an odd object of the host's
            raise_if_interrupted(error)
            return None
    try:
        if not math.isfinite(plain):
            return None
    except OverflowError:  # a whole number beyond every float
        return None
    return plain if abs(plain) <= MAX_INT else float(plain)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        or _is(value, "decimal", "Decimal")
        or _is(value, "numbers", "Real")
    )


def _is(value: object, module: str, kind: str) -> bool:
    """Tell whether *value* is of a *kind* of *module*, which then is loaded: not by us, who would
    pay a millisecond for it.
    """
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, kind))


def frozen(data: Mapping[str, Any] | None) -> str:
    """Return a text that is equal exactly for equal data: values fold only with equal data."""
    return json.dumps(data, sort_keys=True) if data else ""


class _Unfit(Exception):  # noqa: N818 - never leaves this file
    """A value that JSON cannot carry."""


class _Copy:
    """One copying: it counts what it has seen, so that wide or shared structures cannot hold up the
    host.
    """

    def __init__(self, event_key: str) -> None:
        self._event_key = event_key
        self._left = MAX_VALUES

    def mapping(self, data: Mapping[Any, Any], top: str, seen: tuple[int, ...]) -> dict[str, Any]:
        """Copy a mapping; *top* is the entry of the event's data that it belongs to, *seen* what it
        is nested in.
        """
        out: dict[str, Any] = {}
        for key, value in data.items():
            entry = top or (key[:40] if isinstance(key, str) else type(key).__name__)
            try:
                out[_key(key)] = self._value(value, entry, (*seen, id(data)))
            except _Unfit as unfit:
                _complain(self._event_key, entry, str(unfit))
            if self._left <= 0:
                break
        return out

    def _value(self, value: Any, top: str, seen: tuple[int, ...]) -> Any:
        self._left -= 1
        if self._left <= 0:
            raise _Unfit(f"more than {MAX_VALUES} values")
        if value is None or type(value) is bool:
            return value
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, (int, float)):
            return _plain(value)
        if id(value) in seen:
            raise _Unfit("a circular reference")
        if len(seen) >= MAX_DEPTH:
            raise _Unfit(f"nested deeper than {MAX_DEPTH}")
        if isinstance(value, Mapping):
            return self.mapping(value, top, seen)
        if isinstance(value, (list, tuple)):
            return self._items(value, top, (*seen, id(value)))
        raise _Unfit(f"of type {type(value).__name__}")

    def _items(self, values: Any, top: str, seen: tuple[int, ...]) -> list[Any]:
        out = []
        for value in values:
            try:
                out.append(self._value(value, top, seen))
            except _Unfit as unfit:
                _complain(self._event_key, top, str(unfit))
            if self._left <= 0:
                break
        return out


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise _Unfit("a key that is no string")
    return _text(key)


def _plain(value: int | float) -> int | float:
    if isinstance(value, int):
        if abs(value) > MAX_INT:
            raise _Unfit("a whole number beyond 64 bits")
        return int(value)
    if not math.isfinite(value):
        raise _Unfit("not a finite number")
    return float(value)


def _text(value: str) -> str:
    """Return the text without lone surrogates, which UTF-8 cannot carry."""
    return without_surrogates(str.__str__(value))


def _capped(safe: dict[str, Any], event_key: str) -> dict[str, Any] | None:
    """*safe* without its largest entries until it fits into `MAX_BYTES`."""
    sizes = sorted(
        ((len(json.dumps(value)) + len(key) + 4, key) for key, value in safe.items()), reverse=True
    )
    total, left_out = sum(size for size, _ in sizes), 0
    for size, key in sizes:
        if total <= MAX_BYTES:
            break
        total, left_out = total - size, left_out + 1
        del safe[key]
    if left_out:
        _complain(
            event_key,
            sizes[0][1][:40],
            f"{left_out} of the largest entries, for data has {MAX_BYTES} bytes",
        )
    return safe or None


def _complain(event_key: str, entry: str, what: str) -> None:
    warn_once(
        "bad_data",
        f"{event_key} {entry}",
        f"{event_key}: data{f'[{entry!r}]' if entry else ''} left out: {what}; "
        "give JSON types (str, int, finite float, bool, None, list, dict)",
    )
