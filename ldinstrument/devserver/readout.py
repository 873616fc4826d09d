"""The read-out: what each metric says about each variation, as an honest join of exposures and
events.

LaunchDarkly's semantics:

- A unit is a context kind and key. It belongs to the variation of its *first* exposure (a `feature`
  event with `reason.inExperiment`), and is counted once.
- An event counts for a unit when its context carries that kind and key, and it was created at or
  after that first exposure.
- The value of a unit: `occurrence` 1 or 0; `count` the number of events; numeric `sum` the total,
  numeric `average` the mean of its events that have a value. `metricValue` plays no part in the
  first two.
- A unit without a value counts as 0 where the metric fills with zero (`eventDefault.disabled`
  false); an occurrence always does.
- Percentiles are of the unit values, with linear interpolation between neighbours (the common "type
  7").
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .database import Database, Document
from .flags import randomization_kinds

JOIN = """
SELECT x.unit, count(m.event), count(m.value), total(m.value)
FROM exposures x LEFT JOIN measurements m
  ON m.key = ? AND m.kind = x.kind AND m.unit = x.unit AND m.created >= x.first
WHERE x.flag = ? AND x.kind = ? AND x.variation = ?
GROUP BY x.unit
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A mean and percentiles; all None when there is nothing to describe."""

    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class VariationResult:
    """What one metric says about one variation of one flag.

    Args:
        metric: the metric's key.
        project: its project.
        flag: the flag's key.
        context_kind: the analysis unit of this row.
        variation: the variation's index.
        value: the variation's value.
        measure: `value`, `count` or `occurrence`.
        unit: the metric's unit, empty when it has none.
        units: exposed units.
        measured: those of them with at least one event (for numeric metrics, with a value).
        events: events that count.
        estimate: what LaunchDarkly would compare: the mean, or the metric's own percentile.
        distribution: of the unit values, zero-filled where the metric says so.
    """

    metric: str
    project: str
    flag: str
    context_kind: str
    variation: int
    value: Any
    measure: str
    unit: str
    units: int
    measured: int
    events: int
    estimate: float | None
    distribution: Distribution

    @property
    def mean(self) -> float | None:
        """The mean of the unit values."""
        return self.distribution.mean

    @property
    def p50(self) -> float | None:
        """The median of the unit values."""
        return self.distribution.p50

    @property
    def p90(self) -> float | None:
        """The 90th percentile of the unit values."""
        return self.distribution.p90

    @property
    def p95(self) -> float | None:
        """The 95th percentile of the unit values."""
        return self.distribution.p95

    @property
    def p99(self) -> float | None:
        """The 99th percentile of the unit values."""
        return self.distribution.p99


@dataclass(frozen=True, slots=True)
class EventTotal:
    """All events of one key, whoever was exposed to what.

    `events` counts them, `values` those with a numeric value, `sum` adds these up, `distribution`
    is of the single values, `metrics` names the metrics that read this event key, `last_seen` is in
    epoch milliseconds.
    """

    event_key: str
    events: int
    values: int
    sum: float
    distribution: Distribution
    metrics: tuple[str, ...]
    last_seen: int

    @property
    def mean(self) -> float | None:
        """The mean of the values."""
        return self.distribution.mean


@dataclass(frozen=True, slots=True)
class Readout:
    """`rows` by metric, flag and variation; `totals` by event key."""

    rows: tuple[VariationResult, ...]
    totals: tuple[EventTotal, ...]

    def row(self, metric: str, flag: str, variation: int) -> VariationResult:
        """One row.

        Raises:
            KeyError: nothing was exposed there, or there is no such metric.
        """
        for row in self.rows:
            if (row.metric, row.flag, row.variation) == (metric, flag, variation):
                return row
        raise KeyError((metric, flag, variation))

    def total(self, event_key: str) -> EventTotal:
        """Return the total of one event key.

        Raises:
            KeyError: no such event arrived.
        """
        for total in self.totals:
            if total.event_key == event_key:
                return total
        raise KeyError(event_key)


def measure_of(metric: Document) -> str:
    """LaunchDarkly's word for what a metric measures: `value`, `count` or `occurrence`."""
    if metric.get("isNumeric"):
        return "value"
    return "count" if metric.get("unitAggregationType") == "sum" else "occurrence"


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile (0..100) of sorted values, linearly interpolated."""
    place = (len(ordered) - 1) * share / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def distribution(values: Iterable[float]) -> Distribution:
    """Mean and percentiles of values in any order."""
    ordered = sorted(values)
    if not ordered:
        return Distribution(None, None, None, None, None)
    p50, p90, p95, p99 = (percentile(ordered, share) for share in (50, 90, 95, 99))
    return Distribution(statistics.fmean(ordered), p50, p90, p95, p99)


def read_out(database: Database, project: str | None = None) -> Readout:
    """Compute the read-out of what has arrived until now.

    Args:
        database: what is read.
        project: only the metrics of this project; None takes all.
    """
    with database.locked():
        projects = [project] if project is not None else database.projects("metric")
        metrics = [
            (place, metric) for place in projects for metric in database.documents("metric", place)
        ]
        rows = [row for place, metric in metrics for row in _rows(database, place, metric)]
        return Readout(tuple(rows), tuple(_totals(database, metrics)))


def _rows(database: Database, project: str, metric: Document) -> Iterator[VariationResult]:
    if metric["kind"] != "custom" or metric.get("archived"):
        return
    for flag, exposed in _exposed(database).items():
        kind = analysis_unit(metric, database.document("flag", "", flag), list(exposed))
        for variation in sorted(exposed.get(kind or "", ())):
            yield _row(database, project, metric, flag, kind or "", variation)


def _exposed(database: Database) -> dict[str, dict[str, list[int]]]:
    """Flag to context kind to the variations that units of this kind saw."""
    found: dict[str, dict[str, list[int]]] = {}
    for flag, kind, variation in database.rows(
        "SELECT DISTINCT flag, kind, variation FROM exposures ORDER BY flag, kind"
    ):
        found.setdefault(flag, {}).setdefault(kind, []).append(variation)
    return found


def analysis_unit(metric: Document, flag: Document | None, exposed: list[str]) -> str | None:
    """Return the context kind by which a metric is analysed in an experiment on this flag.

    The experiment's randomization unit if the metric allows it, else the first unit of the metric
    that was exposed; None when the two have no kind in common, which is LaunchDarkly's "no data".
    """
    allowed = [kind for kind in metric["analysisUnits"] if kind in exposed]
    preferred = [kind for kind in randomization_kinds(flag or {}) if kind in allowed]
    return next(iter([*preferred, *allowed]), None)


def _row(
    database: Database, project: str, metric: Document, flag: str, kind: str, variation: int
) -> VariationResult:
    joined = database.rows(JOIN, (metric["eventKey"], flag, kind, variation))
    measure = measure_of(metric)
    values = [unit_value(metric, *row[1:]) for row in joined]
    spread = distribution(value for value in values if value is not None)
    measured = sum(
        bool(valued if measure == "value" else events) for _, events, valued, _ in joined
    )
    own = metric.get("percentileValue") if metric.get("analysisType") == "percentile" else None
    filled = sorted(value for value in values if value is not None)
    return VariationResult(
        metric=metric["key"],
        project=project,
        flag=flag,
        context_kind=kind,
        variation=variation,
        value=_variation_value(database, flag, variation),
        measure=measure,
        unit=metric.get("unit", ""),
        units=len(joined),
        measured=measured,
        events=sum(row[2] if measure == "value" else row[1] for row in joined),
        estimate=percentile(filled, own) if own is not None and filled else spread.mean,
        distribution=spread,
    )


def unit_value(metric: Document, events: int, valued: int, total: float) -> float | None:
    """Return the value of one exposed unit, or None when it does not count.

    Args:
        metric: the definition.
        events: its events after the exposure.
        valued: those with a numeric value.
        total: the sum of these.
    """
    measure = measure_of(metric)
    if measure == "occurrence":
        return float(events > 0)
    nothing = None if metric["eventDefault"]["disabled"] else 0.0
    if measure == "count":
        return float(events) if events else nothing
    if not valued:
        return nothing
    return total if metric["unitAggregationType"] == "sum" else total / valued


def _variation_value(database: Database, flag: str, variation: int) -> Any:
    found = database.rows(
        "SELECT value FROM variations WHERE flag = ? AND variation = ?", (flag, variation)
    )
    return json.loads(found[0][0]) if found else None


def _totals(database: Database, metrics: list[tuple[str, Document]]) -> Iterator[EventTotal]:
    readers: dict[str, list[str]] = {}
    for _, metric in metrics:
        readers.setdefault(metric.get("eventKey", ""), []).append(metric["key"])
    for key, events, last_seen in database.rows(
        "SELECT key, events, last_seen FROM event_keys ORDER BY key"
    ):
        values = [value for (value,) in database.rows(VALUES, (key,))]
        yield EventTotal(
            event_key=key,
            events=events,
            values=len(values),
            sum=math.fsum(values),
            distribution=distribution(values),
            metrics=tuple(readers.get(key, ())),
            last_seen=last_seen,
        )


VALUES = "SELECT value FROM measurements WHERE key = ? AND value IS NOT NULL GROUP BY event"
