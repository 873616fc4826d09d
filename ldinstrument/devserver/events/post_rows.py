"""What the events of one POST become: counts by key, and rows of measurements and exposures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..database import Document
from .bodies import is_event, parse_items
from .parsing import (
    BIGGEST,
    ParsedEvent,
    Unit,
    date_of,
    measured,
    only_unit,
    parsed,
    plain_text,
    text_of,
    units_of,
    whole_of,
)

Filters = Mapping[str, Sequence[tuple[str, Callable[[Mapping[str, Any]], bool]]]]
"""By event key: the names of the filtered series, each with the test that its events pass."""


class Rows(msgspec.Struct, array_like=True):
    """The measurements and exposures of a POST: every unit and series once, and columns of numbers
    that refer to them; quick to pack, and small.

    Args:
        units: kind and key.
        series: their names, see `series_name`.
        series_of: for each measurement, the place of its series.
        unit_of: for each measurement, the place of its unit.
        created: for each measurement, its date.
        values: for each measurement, its value.
        is_first: for each measurement, 1 for the first unit of an event, else 0.
        exposures: flag, place of the unit, variation, date.
    """

    units: list[Unit] = []
    series: list[str] = []
    series_of: list[int] = []
    unit_of: list[int] = []
    created: list[int] = []
    values: list[float | None] = []
    is_first: list[int] = []
    exposures: list[tuple[str, int, int, int]] = []


class RowsBuilder:
    """Collects rows, and numbers the units and series in them."""

    def __init__(self) -> None:
        self.rows = Rows()
        self._units: dict[Unit, int] = {}
        self._series: dict[str, int] = {}

    def measure(
        self, series: str, unit: Unit, created: int, value: float | None, first: int
    ) -> None:
        """Add a measurement."""
        rows = self.rows
        number = self._series.get(series)
        if number is None:
            number = self._series[series] = len(rows.series)
            rows.series.append(series)
        rows.series_of.append(number)
        rows.unit_of.append(self._unit(unit))
        rows.created.append(created)
        rows.values.append(value)
        rows.is_first.append(first)

    def expose(self, flag: str, unit: Unit, variation: int, created: int) -> None:
        """Add an exposure."""
        self.rows.exposures.append((flag, self._unit(unit), variation, created))

    def _unit(self, unit: Unit) -> int:
        number = self._units.get(unit)
        if number is None:
            number = self._units[unit] = len(self.rows.units)
            self.rows.units.append(unit)
        return number


@dataclass(slots=True)
class KeyCounts:
    """The events of one key in a POST: how many, the values of those that have one, and how many by
    the context kinds that they carry (joined by a comma).
    """

    events: int = 0
    values: list[float] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class PostRows:
    """What the events of one POST become.

    Args:
        body: the JSON array, as it came.
        received: epoch milliseconds; the date of events without a valid one.
        events: how many items are events.
        counts: events by kind and key.
        keys: the custom events by key.
        builder: their measurements and exposures.
        evaluated: by flag, the date of its newest evaluation.
        variations: JSON of a variation's value, by flag and variation.
    """

    body: bytes
    received: int
    events: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    keys: dict[str, KeyCounts] = field(default_factory=dict)
    builder: RowsBuilder = field(default_factory=RowsBuilder)
    evaluated: dict[str, int] = field(default_factory=dict)
    variations: dict[tuple[str, int], str] = field(default_factory=dict)


def rows_of_post(
    body: bytes, items: list[Any], received: int, filters: Filters | None = None
) -> PostRows:
    """Return the rows of a POST.

    Items that are no events (no object, no kind) are left out, as an intake that accepts whatever
    is well-formed would; everything else is kept, with strange values as they are.
    """
    rows = PostRows(body, received)
    for event in items:
        if type(event) is ParsedEvent and isinstance(event.kind, str):
            _add(rows, event)
    if filters and any(key in filters for key in rows.keys):
        _add_filtered(rows, filters)
    return rows


def _add(rows: PostRows, event: ParsedEvent) -> None:
    rows.events += 1
    kind, key = plain_text(event.kind), plain_text(event.key)
    place = (kind, key)
    rows.counts[place] = rows.counts.get(place, 0) + 1
    if kind == "custom":
        _add_measurement(rows, event, key)
    elif kind in ("feature", "debug"):
        _add_evaluation(rows, key, date_of(event, rows.received))
        if kind == "feature":
            _add_exposure(rows, event, key)
    elif kind == "summary" and isinstance(event.features, dict):
        for flag in event.features:
            _add_evaluation(rows, text_of(flag), whole_of(event.endDate, rows.received))


def _add_filtered(rows: PostRows, filters: Filters) -> None:
    """Measure the events that pass the filters of metrics; they look at all of an event."""
    for item in parse_items(rows.body):
        if is_event(item) and item["kind"] == "custom":
            for series, passes in filters.get(plain_text(item.get("key")), ()):
                if passes(item):
                    measure_item(rows.builder, item, series, rows.received)


def measure_item(builder: RowsBuilder, item: Document, series: str, received: int) -> None:
    """Add a measurement of a series for each unit of an event that is still JSON."""
    event = parsed(item)
    _measure_units(builder, event, series, date_of(event, received), measured(event))


def _measure_units(
    builder: RowsBuilder, event: ParsedEvent, series: str, created: int, value: float | None
) -> list[str]:
    """Add a measurement for each unit of an event; return their kinds."""
    units = units_of(event).items()
    for number, unit in enumerate(units):
        builder.measure(series, unit, created, value, int(not number))
    return [kind for kind, _ in units]


def _add_evaluation(rows: PostRows, flag: str, at: int) -> None:
    rows.evaluated[flag] = max(at, rows.evaluated.get(flag, at))


def series_name(event_key: str, filter_text: str = "") -> str:
    """Return the name of the events of one key, all of them or those that pass a filter."""
    return f"~{filter_text}~{event_key}" if filter_text else f"={event_key}"


def _add_measurement(rows: PostRows, event: ParsedEvent, key: str) -> None:
    value, created = measured(event), date_of(event, rows.received)
    unit, series = only_unit(event), "=" + key
    if unit is None:
        kinds = ",".join(_measure_units(rows.builder, event, series, created, value))
    else:
        rows.builder.measure(series, unit, created, value, 1)
        kinds = unit[0]
    known = rows.keys.get(key)
    if known is None:
        known = rows.keys[key] = KeyCounts()
    known.events += 1
    known.kinds[kinds] = known.kinds.get(kinds, 0) + 1
    if value is not None:
        known.values.append(value)


def _add_exposure(rows: PostRows, event: ParsedEvent, flag: str) -> None:
    variation, reason = event.variation, event.reason
    if type(variation) is not int or not 0 <= variation <= BIGGEST:
        return
    if not isinstance(reason, dict) or reason.get("inExperiment") is not True:
        return
    if (flag, variation) not in rows.variations:
        rows.variations[flag, variation] = _variation_text(event.value)
    created = date_of(event, rows.received)
    for unit in units_of(event).items():
        rows.builder.expose(flag, unit, variation, created)


def _variation_text(value: Any) -> str:
    """Return JSON of a variation's value; null for the infinity that 1e999 is read as."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return "null"
