"""Why a metric is empty: LaunchDarkly's three metric health checks, and what only a local server
can see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...analysis import measure_of
from ...metrics.units import is_confusable, other_unit
from ..database import Database, Document
from .session_health import changed_keys, dilution, exposed_elsewhere, unwatched

FEW = 5
"""So many events, each with a context key of its own, may still be chance."""
LOOKED_AT = 200_000
"""So many of the newest measurements are looked at for exposures."""
EXPOSED = """
WITH newest AS (SELECT * FROM measurements WHERE id > (SELECT max(id) FROM measurements) - ?),
  seen AS (SELECT series, unit, max(created) AS last FROM newest GROUP BY series, unit),
  timed AS (SELECT s.series, u.kind, s.last,
    (SELECT min(first) FROM exposures x WHERE x.unit = s.unit) AS first
    FROM seen s JOIN units u ON u.id = s.unit)
SELECT n.name, t.kind, count(*), count(t.first), coalesce(sum(t.last >= t.first), 0)
FROM timed t JOIN names n ON n.id = t.series GROUP BY t.series, t.kind
"""
OTHERS = """
SELECT count(DISTINCT e.unit) FROM exposure_log e
JOIN units u ON u.id = e.unit AND u.kind IN ({marks})
"""


KEYS = """
WITH newest AS (SELECT * FROM measurements WHERE id > (SELECT max(id) FROM measurements) - ?)
SELECT DISTINCT u.key FROM newest m JOIN units u ON u.id = m.unit AND u.kind IN ({marks})
WHERE m.series = (SELECT id FROM names WHERE space = 'series' AND name = ?) LIMIT 50
"""
VALUES = """
SELECT n.name, count(m.value), coalesce(sum(m.value = round(m.value)), 0),
  coalesce(max(abs(m.value)), 0)
FROM measurements m JOIN names n ON n.id = m.series
WHERE m.id > (SELECT max(id) FROM measurements) - ? GROUP BY m.series
"""
GENERATED = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|[0-9]{13,}")
"""A UUID, a long hexadecimal number, a time in milliseconds or less."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One check of one metric or event key.

    Args:
        subject: the metric's key, or the event key.
        check: `event receipt`, `analysis unit`, `numeric value`, `magnitude`, `exposure`, `client`,
            `dilution`, `identity`, `exposed elsewhere` or `definition`.
        ok: whether it passed.
        detail: what was seen, for a person.
        warning: it passed, and looks wrong all the same.
    """

    subject: str
    check: str
    ok: bool
    detail: str
    warning: bool = False


def health_checks(database: Database, project: str | None = None) -> list[HealthCheck]:
    """Return every check of every custom metric, then the event keys that no metric reads.

    Args:
        database: what is checked.
        project: only the metrics of this project; None takes all.
    """
    projects = [project] if project is not None else database.projects("metric")
    metrics = [metric for place in projects for metric in database.documents("metric", place)]
    seen = {
        key: (events, valued)
        for key, events, valued in database.rows("SELECT key, events, valued FROM event_keys")
    }
    custom = [metric for metric in metrics if metric["kind"] == "custom"]
    looked = _Looked.at(database) if custom else _Looked({}, {})
    checked = [check for metric in custom for check in _of_metric(database, metric, seen, looked)]
    return [*checked, *_undeclared(custom, seen)]


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the newest measurements show, looked through once for all metrics.

    Args:
        exposed: by event key and context kind how many units have events, how many of them were
            exposed, and how many before their last event.
        values: by event key how many values, how many of them whole, and the greatest.
    """

    exposed: Mapping[str, Mapping[str, tuple[int, int, int]]]
    values: Mapping[str, tuple[int, int, float]]

    @classmethod
    def at(cls, database: Database) -> _Looked:
        """Look through the newest measurements."""
        exposed: dict[str, dict[str, tuple[int, int, int]]] = {}
        for name, kind, *counted in database.rows(EXPOSED, (LOOKED_AT,)):
            exposed.setdefault(name, {})[kind] = (counted[0], counted[1], counted[2])
        values = {
            name: (count, whole, greatest)
            for name, count, whole, greatest in database.rows(VALUES, (LOOKED_AT,))
        }
        return cls(exposed, values)

    def units(self, metric: Document) -> tuple[int, ...]:
        """Return the counts of units, of the kinds that a metric is analysed by."""
        by_kind = self.exposed.get(f"={metric['eventKey']}", {})
        found = [by_kind.get(kind, (0, 0, 0)) for kind in metric["analysisUnits"]]
        return tuple(map(sum, zip(*found, strict=True))) if found else (0, 0, 0)


def _of_metric(
    database: Database, metric: Document, seen: dict[str, tuple[int, int]], looked: _Looked
) -> Iterator[HealthCheck]:
    subject, key = metric["key"], metric["eventKey"]
    events, valued = seen.get(key, (0, 0))
    if not events:
        yield HealthCheck(subject, "event receipt", False, _nothing_received(key, seen))
        return
    yield HealthCheck(subject, "event receipt", True, f"{events} events")
    yield _unit_check(database, metric, events)
    if measure_of(metric) == "value":
        detail = f"{valued} of {events} events carry a number"
        yield HealthCheck(subject, "numeric value", valued == events, detail)
        yield from _magnitude_check(looked, metric)
    yield _exposure_check(database, looked, metric)
    yield from _session_checks(database, metric)


def _nothing_received(key: str, seen: dict[str, tuple[int, int]]) -> str:
    similar = [other for other in seen if other.lower() == key.lower()]
    hint = f", but {similar[0]!r}: event keys are case-sensitive" if similar else ""
    return f"no event {key!r}{hint}"


def _unit_check(database: Database, metric: Document, events: int) -> HealthCheck:
    units = metric["analysisUnits"]
    found = database.rows(
        "SELECT kinds, events FROM key_kinds WHERE key = ?", (metric["eventKey"],)
    )
    usable = sum(count for kinds, count in found if set(kinds.split(",")) & set(units))
    detail = f"{usable} of {events} events carry {' or '.join(units)}"
    return HealthCheck(metric["key"], "analysis unit", usable == events, detail)


def _magnitude_check(looked: _Looked, metric: Document) -> Iterator[HealthCheck]:
    """Find seconds under a metric in milliseconds, and shares under one in percent.

    Only where people record by hand: the durations of sessions and tasks are measured by
    ldinstrument itself, and may be short.
    """
    unit = str(metric.get("unit", ""))
    if not is_confusable(metric["key"], unit):
        return
    count, integers, greatest = looked.values.get(f"={metric['eventKey']}", (0, 0, 0.0))
    if count < FEW or integers == count:
        return
    other = other_unit(unit, greatest)
    if not other:
        return
    detail = (
        f"{count} values, the greatest {greatest:.4g}, under a metric in {unit}: are they {other}?"
    )
    yield HealthCheck(metric["key"], "magnitude", True, detail, warning=True)


def _exposure_check(database: Database, looked: _Looked, metric: Document) -> HealthCheck:
    """Say how many units an experiment saw, and saw in time: other events count for nothing."""
    kinds = tuple(metric["analysisUnits"])
    marks = ", ".join("?" * len(kinds))
    parameters = (LOOKED_AT, *kinds, f"={metric['eventKey']}")
    units, exposed, after = looked.units(metric)
    detail = (
        f"{exposed} of {units} units with events were exposed to an experiment, {after} before "
        "their last event"
    )
    if not exposed:
        others = database.rows(OTHERS.replace("{marks}", marks), kinds)[0][0]
        detail += f"; {others} other units were exposed" if others else ""
        detail += "" if others else "; nobody was exposed at all"
        keys = [key for (key,) in database.rows(KEYS.replace("{marks}", marks), parameters)]
        if len(keys) > FEW and all(map(GENERATED.fullmatch, keys)):
            detail += "; their keys look generated, as if made anew in each call"
        return HealthCheck(metric["key"], "exposure", False, detail)
    few, late = exposed < units / 2, 0 < after < exposed / 2
    if few:
        detail += "; the others count for nothing"
    elif late:
        detail += "; what the others did before it counts for nothing"
    return HealthCheck(metric["key"], "exposure", after > 0, detail, warning=few or late)


def _session_checks(database: Database, metric: Document) -> Iterator[HealthCheck]:
    """Find what the events of sessions show: each passes, and looks wrong all the same."""
    key = metric["eventKey"]
    found = {
        "client": unwatched(database, key),
        "dilution": dilution(database, key),
        "identity": changed_keys(database, key),
    }
    if measure_of(metric) == "value" and metric["unitAggregationType"] == "sum":
        found["exposed elsewhere"] = exposed_elsewhere(database, key)
    for check, detail in found.items():
        if detail:
            yield HealthCheck(metric["key"], check, True, detail, warning=True)


def _undeclared(metrics: list[Document], seen: dict[str, tuple[int, int]]) -> Iterator[HealthCheck]:
    declared = {metric["eventKey"] for metric in metrics}
    for key, (events, _) in sorted(seen.items()):
        if key not in declared and not key.startswith(("$ld:", "otel.")):
            yield HealthCheck(key, "definition", False, f"{events} events that no metric reads")
