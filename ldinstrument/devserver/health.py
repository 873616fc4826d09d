"""Why a metric is empty: LaunchDarkly's three metric health checks, and what only a local server
can see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .database import Database, Document
from .readout import measure_of


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One check of one metric or event key.

    Args:
        subject: the metric's key, or the event key.
        check: `event receipt`, `analysis unit`, `numeric value`, `exposure` or `definition`.
        ok: whether it passed.
        detail: what was seen, for a person.
    """

    subject: str
    check: str
    ok: bool
    detail: str


def health_checks(database: Database, project: str | None = None) -> list[HealthCheck]:
    """Every check of every custom metric, then the event keys that no metric reads.

    Args:
        database: what is checked.
        project: only the metrics of this project; None takes all.
    """
    with database.locked():
        projects = [project] if project is not None else database.projects("metric")
        metrics = [metric for place in projects for metric in database.documents("metric", place)]
        seen = {
            key: (events, valued)
            for key, events, valued in database.rows("SELECT key, events, valued FROM event_keys")
        }
        custom = [metric for metric in metrics if metric["kind"] == "custom"]
        checked = [finding for metric in custom for finding in _of_metric(database, metric, seen)]
        return [*checked, *_undeclared(custom, seen)]


def _of_metric(
    database: Database, metric: Document, seen: dict[str, tuple[int, int]]
) -> Iterator[HealthCheck]:
    subject, key = metric["key"], metric["eventKey"]
    events, valued = seen.get(key, (0, 0))
    if not events:
        yield HealthCheck(subject, "event receipt", False, _nothing_received(key, seen))
        return
    yield HealthCheck(subject, "event receipt", True, f"{events} events")
    yield _unit_check(database, metric, events)
    if measure_of(metric) == "value":
        yield HealthCheck(
            subject,
            "numeric value",
            valued == events,
            f"{valued} of {events} events carry a number",
        )
    yield _exposure_check(database, metric)


def _nothing_received(key: str, seen: dict[str, tuple[int, int]]) -> str:
    similar = [other for other in seen if other.lower() == key.lower()]
    return f"no event {key!r}" + (
        f", but {similar[0]!r}: event keys are case-sensitive" if similar else ""
    )


def _unit_check(database: Database, metric: Document, events: int) -> HealthCheck:
    units = metric["analysisUnits"]
    marks = ", ".join("?" * len(units))
    sql = f"SELECT count(DISTINCT event) FROM measurements WHERE key = ? AND kind IN ({marks})"  # noqa: S608 - marks
    usable = database.rows(sql, (metric["eventKey"], *units))[0][0]
    detail = f"{usable} of {events} events carry {' or '.join(units)}"
    return HealthCheck(metric["key"], "analysis unit", usable == events, detail)


FEW = 5
"""So many events, each with a context key of its own, may still be chance."""
EXPOSED = """
SELECT count(*), count(x.unit), coalesce(sum(m.last >= x.first), 0), coalesce(sum(m.events), 0) FROM
  (SELECT kind, unit, max(created) AS last, count(*) AS events FROM measurements
   WHERE key = ? AND kind IN ({marks}) GROUP BY kind, unit) m
  LEFT JOIN (SELECT kind, unit, min(first) AS first FROM exposures GROUP BY kind, unit) x USING (kind, unit)
"""


def _exposure_check(database: Database, metric: Document) -> HealthCheck:
    """Events of units that no experiment saw, or only later, count for nothing."""
    kinds = metric["analysisUnits"]
    marks = ", ".join("?" * len(kinds))
    units, exposed, after, events = database.rows(
        EXPOSED.replace("{marks}", marks), (metric["eventKey"], *kinds)
    )[0]
    detail = f"{exposed} of {units} units with events were exposed to an experiment, {after} before their last event"
    if not exposed:
        sql = f"SELECT count(DISTINCT kind || ':' || unit) FROM exposures WHERE kind IN ({marks})"  # noqa: S608 - marks
        others = database.rows(sql, tuple(kinds))[0][0]
        detail += (
            f"; {others} other units were exposed" if others else "; nobody was exposed at all"
        )
        if units == events > FEW:
            detail += (
                "; each event came with a context key of its own, as if made anew in each call"
            )
    return HealthCheck(metric["key"], "exposure", after > 0, detail)


def _undeclared(metrics: list[Document], seen: dict[str, tuple[int, int]]) -> Iterator[HealthCheck]:
    declared = {metric["eventKey"] for metric in metrics}
    for key, (events, _) in sorted(seen.items()):
        if key not in declared and not key.startswith(("$ld:", "otel.")):
            yield HealthCheck(key, "definition", False, f"{events} events that no metric reads")
