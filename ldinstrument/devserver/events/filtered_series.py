"""The series of events that pass the filters of metrics: made when a metric asks for one."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..database import Database, Document
from .event_reader import EventReader, numbered
from .measurement_log import MeasurementLog
from .metric_filters import Predicate, predicate
from .post_rows import Filters, Rows, RowsBuilder, measure_item, series_name

SCHEMA = """
CREATE TABLE IF NOT EXISTS fills (
  series TEXT PRIMARY KEY, key TEXT NOT NULL, next INTEGER NOT NULL, until INTEGER NOT NULL);
"""
TABLES = ("fills",)


class FilteredSeries:
    """Knows which filtered series metrics ask for, and fills a new one from what has arrived."""

    def __init__(self, database: Database, log: MeasurementLog, reader: EventReader):
        self.database = database
        self.log = log
        self.reader = reader
        self._filters: Filters = {}
        self._revision = -1

    def filters(self) -> Filters:
        """Return the filtered series that metrics ask for; a new one is filled from the bodies."""
        with self.database.locked():
            if self._revision != self.database.documents_revision:
                self._revision = self.database.documents_revision
                self._filters = self._asked_for()
            return self._filters

    def _asked_for(self) -> Filters:
        found: dict[str, list[tuple[str, Predicate]]] = {}
        for metric in self._filtered_metrics():
            passes = predicate(metric["filters"])
            assert passes is not None
            known = found.setdefault(metric["eventKey"], [])
            if all(name != series_of(metric) for name, _ in known):
                known.append((series_of(metric), passes))
                self._ask(metric["eventKey"], series_of(metric))
        return found

    def _filtered_metrics(self) -> Iterator[Document]:
        for project in self.database.projects("metric"):
            for metric in self.database.documents("metric", project):
                if metric.get("filters") and metric.get("eventKey"):
                    yield metric

    def _ask(self, key: str, series: str) -> None:
        """Have the events that are already there measured for a series that is new."""
        with self.database.changing() as connection:
            sql = "SELECT 1 FROM names WHERE space = 'series' AND name = ?"
            if not connection.execute(sql, (series,)).fetchone():
                self.log.name_id(connection, "series", series)
                row = (series, key, 0, self.reader.last_event())
                connection.execute("INSERT INTO fills VALUES (?, ?, ?, ?)", row)

    def waiting(self) -> int:
        """Return how many series are still to be filled."""
        return int(self.database.rows("SELECT count(*) FROM fills")[0][0])

    def fill(self) -> bool:
        """Measure one more body for a series that is new; return whether any waits."""
        found = self.database.rows("SELECT series, key, next, until FROM fills LIMIT 1")
        for series, key, after, until in found:
            body = next(iter(self.reader.bodies(after, key, None)), None)
            passes = dict(self.filters().get(key, ())).get(series)
            if body is None or body[0] > until or passes is None:
                self._note(series, None)
            else:
                rows, last = _measured(body, key, series, passes)
                self._note(series, last, rows)
        return bool(found)

    def _note(self, series: str, last: int | None, rows: Rows | None = None) -> None:
        """Keep what was measured and how far it went, in one transaction; None ends it."""
        with self.database.changing(quietly=True) as connection:
            if last is None:
                connection.execute("DELETE FROM fills WHERE series = ?", (series,))
            elif rows is not None:
                self.log.keep(connection, rows)
                connection.execute("UPDATE fills SET next = ? WHERE series = ?", (last, series))

    def forget(self) -> None:
        """Forget what was asked for, as the tables are emptied."""
        self._revision = -1


def _measured(
    body: tuple[int, bytes, str, int], key: str, series: str, passes: Predicate
) -> tuple[Rows, int]:
    """Return the rows of a series in one body, and the id of its last event."""
    first, content, _, received = body
    builder, last = RowsBuilder(), first
    for id, (event, _) in numbered(first, content):
        last = id
        if event["kind"] == "custom" and event.get("key") == key and passes(event):
            measure_item(builder, event, series, received)
    return builder.rows, last


def series_of(metric: Document) -> str:
    """Return the name of the events that a metric reads."""
    filters = metric.get("filters")
    text = json.dumps(filters, sort_keys=True) if filters else ""
    return series_name(metric["eventKey"], text)
