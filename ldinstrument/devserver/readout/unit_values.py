"""From measurements and exposures to the values of units, and to statistics of them.

Intake only appends. Here the rows are aggregated, in pieces that hold the writer's lock for some
milliseconds each: exposures first (the earliest of a unit in an iteration decides its variation),
then measurements, added to the unit's events, events with a value and their total. A unit that is
exposed only after its events were aggregated is computed anew from the log, in pieces as well.

The statistics of a metric in an iteration, for a context kind, are kept up to date: the old value
of a unit is taken out and the new one put in.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..database import Database, Document, insert_rows
from ..events.filtered_series import FilteredSeries
from ..events.measurement_log import MeasurementLog
from ..events.parsing import BIGGEST
from .metric_statistics import Counted, MetricStatistics
from .sums_over_time import SumsOverTime

WINDOW_MS = 90 * 86_400_000
"""Events count up to 90 days after the exposure."""
CHUNK = 3_000
MEASUREMENTS = 7_000
"""Rows in one piece: at most 20 ms of the writer's lock on an idle machine. The more at once, the
less of the same unit is counted in several pieces."""
LATE_CHUNK = 10_000
POSTS = 16
"""So many pieces are unpacked before they are counted."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS exposures (
  unit INTEGER NOT NULL, iteration INTEGER NOT NULL, kind TEXT NOT NULL,
  variation INTEGER NOT NULL, first INTEGER NOT NULL, PRIMARY KEY (unit, iteration)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unit_values (
  iteration INTEGER NOT NULL, unit INTEGER NOT NULL, series INTEGER NOT NULL, kind TEXT NOT NULL,
  variation INTEGER NOT NULL, first INTEGER NOT NULL, events INTEGER NOT NULL,
  valued INTEGER NOT NULL, total REAL NOT NULL, old_events INTEGER NOT NULL DEFAULT 0,
  old_valued INTEGER NOT NULL DEFAULT 0, old_total REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (iteration, unit, series)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS late_jobs (
  id INTEGER PRIMARY KEY, next INTEGER NOT NULL, until INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS late_units (
  unit INTEGER NOT NULL, iteration INTEGER NOT NULL, job INTEGER NOT NULL,
  PRIMARY KEY (unit, iteration)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aggregated (
  id INTEGER PRIMARY KEY CHECK (id = 1), exposures INTEGER NOT NULL, measurements INTEGER NOT NULL);
INSERT OR IGNORE INTO aggregated VALUES (1, 0, 0);
"""
NO_EVENTS: Counted = (0, 0, 0.0)
TABLES = ("exposures", "unit_values", "late_jobs", "late_units")
FRESH = """
SELECT e.unit, i.id, u.kind, e.variation, e.created, x.variation, x.first
FROM exposure_log e JOIN units u ON u.id = e.unit
JOIN iterations i ON i.flag = e.flag AND e.created >= i.started AND e.created < i.stopped
LEFT JOIN exposures x ON x.unit = e.unit AND x.iteration = i.id
WHERE e.id > ? AND e.id <= ? AND e.created >= ? ORDER BY e.created, e.id
"""
FIRST_ITERATIONS = """
INSERT INTO iterations SELECT NULL, flag, 0, ? FROM (SELECT DISTINCT flag FROM exposure_log
WHERE id > ? AND id <= ?) WHERE flag NOT IN (SELECT flag FROM iterations)
"""
ADD = f"""
INSERT INTO unit_values (iteration, unit, series, kind, variation, first, events, valued, total)
SELECT x.iteration, m.unit, m.series, x.kind, x.variation, x.first, count(*), count(m.value),
  total(m.value)
FROM measurements m {{late}} CROSS JOIN exposures x ON x.unit = m.unit {{and_late}}
CROSS JOIN iterations i ON i.id = x.iteration WHERE m.id > ? AND m.id <= ?
  AND m.created >= x.first AND m.created < min(x.first + {WINDOW_MS}, i.stopped)
GROUP BY x.iteration, m.unit, m.series ON CONFLICT DO UPDATE SET old_events = events,
  old_valued = valued, old_total = total, events = events + excluded.events,
  valued = valued + excluded.valued, total = total + excluded.total
RETURNING iteration, series, kind, variation, first, old_events, old_valued, old_total,
  events, valued, total
"""  # noqa: S608 - a number of our own
ADD_ALL = ADD.replace("{late}", "").replace("{and_late}", "")
ADD_LATE = ADD.replace(
    "{late}", "CROSS JOIN late_units l ON l.unit = m.unit AND l.job = ?"
).replace("{and_late}", "AND x.iteration = l.iteration")
FORGET_VALUES = """
DELETE FROM unit_values WHERE iteration = ? AND unit = ? RETURNING series, kind, variation, first,
  events, valued, total
"""
EXPOSED_AFTER = """
DELETE FROM exposures WHERE iteration = ? AND first >= ? RETURNING unit, kind, variation, first
"""
FIRST_EXPOSURE = "SELECT min(first) FROM exposures WHERE iteration = ?"
MEASURED_AFTER = """
SELECT DISTINCT m.unit FROM measurements m
CROSS JOIN exposures x ON x.unit = m.unit AND x.iteration = ?
WHERE m.id >= (SELECT min(first_measurement) FROM stretches WHERE latest >= ?) AND m.id <= ?
  AND m.created >= ?
"""
CELL = """
SELECT variation, first, events, valued, total FROM unit_values
WHERE iteration = ? AND series = ? AND kind = ?
"""


class UnitValues:
    """Aggregates what has arrived, and keeps the statistics that are read.

    `give_way` is called between pieces: whoever serves POSTs may let it wait for them.
    """

    def __init__(self, database: Database, log: MeasurementLog, filtered: FilteredSeries):
        self.database = database
        self.log = log
        self.filtered = filtered
        self.give_way: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._waiting: list[None] = []
        self._cells: dict[tuple[int, str, str, str], MetricStatistics] = {}
        self._readers: dict[tuple[int, int, str], list[MetricStatistics]] = {}
        self._measured = bytearray()
        self._unpacked_units: set[int] = set()
        self._exposed: dict[tuple[int, str], dict[int, int]] = {}
        self._over_time: dict[tuple[int, str], SumsOverTime] = {}
        self._load()

    def _load(self) -> None:
        self._cells.clear()
        self._readers.clear()
        self._exposed, self._over_time = {}, {}
        for iteration, kind, variation, first in self.database.rows(
            "SELECT iteration, kind, variation, first FROM exposures"
        ):
            self._count_exposure((iteration, kind), variation, first, 1)
        aggregated = self._positions()[1]
        self._measured = bytearray()
        self._unpacked_units = set()
        sql = "SELECT DISTINCT unit FROM measurements WHERE id <= ?"
        self._mark_measured([unit for (unit,) in self.database.rows(sql, (aggregated,))])

    def _count_exposure(self, place: tuple[int, str], variation: int, first: int, by: int) -> None:
        if place not in self._exposed:
            self._exposed[place], self._over_time[place] = {}, SumsOverTime()
        counted = self._exposed[place]
        counted[variation] = counted.get(variation, 0) + by
        self._over_time[place].add(first, variation, 0.0, by)

    def _mark_measured(self, units: Collection[int]) -> None:
        marked = self._measured
        if units and (most := max(units)) >= len(marked):
            marked.extend(bytes(max(most + 1 - len(marked), 4096)))
        for unit in units:
            marked[unit] = 1

    def _positions(self) -> tuple[int, int]:
        found = self.database.rows("SELECT exposures, measurements FROM aggregated")
        return int(found[0][0]), int(found[0][1])

    def pending(self) -> int:
        """Return how many POSTs and rows are still to be aggregated; 0 when all is counted."""
        exposures, measurements = self._positions()
        newest = self._newest()
        rows = newest[0] - exposures + newest[1] - measurements
        (late,) = self.database.rows("SELECT count(*) FROM late_jobs")[0]
        return self.log.packed() + self.filtered.waiting() + rows + int(late)

    def _newest(self) -> tuple[int, int]:
        """Return the newest exposure and measurement of one moment: a POST brings both."""
        sql = "SELECT coalesce(max(id), 0) FROM {}"
        found = self.database.rows(
            f"SELECT ({sql.format('exposure_log')}), ({sql.format('measurements')})"
        )
        return int(found[0][0]), int(found[0][1])

    def aggregate(self, seconds: float | None = None) -> bool:
        """Aggregate what has arrived until now, in pieces; return whether all of it is aggregated.

        Args:
            seconds: stop after about so long, and go on with the next call; None aggregates all.
        """
        deadline = time.monotonic() + (BIGGEST if seconds is None else seconds)
        with self._lock:
            for _ in self._pieces():
                self.give_way()
                if time.monotonic() > deadline:
                    return False
        return True

    def aggregate_unless_read(self, seconds: float) -> bool:
        """Aggregate for so long, but end at once when somebody wants to read.

        Return as `aggregate` does.
        """
        deadline = time.monotonic() + seconds
        with self._lock:
            for _ in self._pieces():
                self.give_way()
                if self._waiting or time.monotonic() > deadline:
                    return False
        return True

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold everything as it is while it is read."""
        self._waiting.append(None)  # an append and a pop are atomic
        with self._lock:
            self._waiting.pop()
            yield

    def _pieces(self) -> Iterator[None]:
        """Do one piece of work after another; each leaves everything consistent."""
        while self.filtered.fill():
            yield
        while self.log.packed():
            for _ in range(POSTS):
                if (measured := self.log.unpack(CHUNK)) is not None:
                    self._unpacked_units.update(measured)
                    yield
            yield from self._unpacked_pieces()
        yield from self._unpacked_pieces()

    def _unpacked_pieces(self) -> Iterator[None]:
        newest, done = self._newest(), self._positions()
        for start in range(done[0], newest[0], CHUNK):
            self._aggregate_exposures(start, min(start + CHUNK, newest[0]), done[1])
            yield
        while self._compute_late():
            yield
        self._mark_measured(self._unpacked_units)
        self._unpacked_units.clear()
        for start in range(done[1], newest[1], MEASUREMENTS):
            self._aggregate_measurements(start, min(start + MEASUREMENTS, newest[1]))
            yield

    def _aggregate_exposures(
        self, after: int, until: int, aggregated: int, since: int = -BIGGEST
    ) -> None:
        """Take exposures of the log into the iterations that they fall into.

        Args:
            after: the row after which it begins.
            until: the row that is the last.
            aggregated: the last measurement that was counted.
            since: only exposures from this date on.
        """
        with self.database.changing(quietly=True) as connection:
            connection.execute(FIRST_ITERATIONS, (BIGGEST, after, until))
            fresh: dict[tuple[int, int], tuple[Any, ...]] = {}
            for unit, iteration, *rest in connection.execute(FRESH, (after, until, since)):
                fresh.setdefault((unit, iteration), tuple(rest))
            changed = {
                place: exposure
                for place, exposure in fresh.items()
                if exposure[4] is None or exposure[2] < exposure[4]
            }
            insert_rows(
                connection,
                "INSERT OR REPLACE INTO exposures",
                [(*place, *exposure[:3]) for place, exposure in changed.items()],
            )
            late = [place for place in changed if self._was_measured(place[0])]
            if late:
                first = min(exposure[2] for exposure in changed.values())
                self._begin_late(connection, late, first, aggregated)
            connection.execute("UPDATE aggregated SET exposures = ?", (until,))
        for (_, iteration), (kind, variation, first, before, known) in changed.items():
            self._count_exposure((iteration, kind), variation, first, 1)
            if before is not None:
                self._count_exposure((iteration, kind), before, known, -1)

    def end_iteration(self, iteration: int, at: int) -> None:
        """Take out of an iteration what has been counted, and is dated at its end or later: a
        client's clock may be ahead. Such exposures go into the iteration that began at that moment,
        where there is one.
        """
        with self._lock:
            exposures, measurements = self._positions()
            with self.database.changing(quietly=True) as connection:
                gone = connection.execute(EXPOSED_AFTER, (iteration, at)).fetchall()
                asked = (iteration, at, measurements, at)
                late = [(unit, iteration) for unit, *_ in gone]
                late += [(unit, iteration) for (unit,) in connection.execute(MEASURED_AFTER, asked)]
                if late:
                    (first,) = connection.execute(FIRST_EXPOSURE, (iteration,)).fetchone()
                    self._begin_late(connection, late, at if first is None else first, measurements)
            for _, kind, variation, first in gone:
                self._count_exposure((iteration, kind), variation, first, -1)
            self._aggregate_exposures(0, exposures, measurements, since=at)

    def _was_measured(self, unit: int) -> bool:
        return unit < len(self._measured) and bool(self._measured[unit])

    def _begin_late(
        self,
        connection: sqlite3.Connection,
        late: list[tuple[int, int]],
        first: int,
        aggregated: int,
    ) -> None:
        """Begin to compute units that turn out to be exposed (earlier) after their events."""
        for unit, iteration in late:
            for series, kind, variation, exposed, *counted in connection.execute(
                FORGET_VALUES, (iteration, unit)
            ).fetchall():
                known = (counted[0], counted[1], counted[2])
                self._change_statistics(
                    (iteration, series, kind), variation, exposed, known, NO_EVENTS
                )
        (start,) = connection.execute(
            "SELECT min(first_measurement) - 1 FROM stretches WHERE latest >= ?", (first,)
        ).fetchone()
        if start is not None and start < aggregated:
            job = connection.execute(
                "INSERT INTO late_jobs VALUES (NULL, ?, ?)", (start, aggregated)
            )
            connection.executemany(
                "INSERT OR REPLACE INTO late_units VALUES (?, ?, ?)",
                [(*place, job.lastrowid) for place in late],
            )

    def _compute_late(self) -> bool:
        """Go on with the oldest units that were exposed late; return whether there were any."""
        with self.database.changing(quietly=True) as connection:
            job = connection.execute("SELECT id, next, until FROM late_jobs LIMIT 1").fetchone()
            if job is None:
                return False
            number, start, until = job
            end = min(start + LATE_CHUNK, until)
            added = connection.execute(ADD_LATE, (number, start, end)).fetchall()
            connection.execute("UPDATE late_jobs SET next = ? WHERE id = ?", (end, number))
            if end == until:
                connection.execute("DELETE FROM late_jobs WHERE id = ?", (number,))
                connection.execute("DELETE FROM late_units WHERE job = ?", (number,))
        self._count(added)
        return True

    def _aggregate_measurements(self, after: int, until: int) -> None:
        with self.database.changing(quietly=True) as connection:
            added = connection.execute(ADD_ALL, (after, until)).fetchall()
            connection.execute("UPDATE aggregated SET measurements = ?", (until,))
        self._count(added)

    def _count(self, added: Iterable[tuple[Any, ...]]) -> None:
        """Bring the changed values of units into the statistics."""
        for iteration, series, kind, variation, first, *counted in added:
            old, new = tuple(counted[:3]), tuple(counted[3:])
            self._change_statistics((iteration, series, kind), variation, first, old, new)

    def _change_statistics(
        self, place: tuple[int, int, str], variation: int, first: int, old: Counted, new: Counted
    ) -> None:
        for metric_statistics in self._readers.get(place, ()):
            metric_statistics.change(variation, first, old, new)

    def exposed(self, iteration: int) -> Mapping[str, Mapping[int, int]]:
        """Return how many units were exposed, by context kind and variation."""
        with self._lock:
            return {
                kind: {variation: units for variation, units in counted.items() if units}
                for (of, kind), counted in self._exposed.items()
                if of == iteration
            }

    def over_time(self, iteration: int, kind: str) -> SumsOverTime:
        """Return when the units of a kind were exposed."""
        with self._lock:
            return self._over_time.get((iteration, kind)) or SumsOverTime()

    def statistics_of(
        self, iteration: int, project: str, metric: Document, series: str, kind: str
    ) -> MetricStatistics:
        """Return the statistics of a metric; made when first asked for, then kept up to date."""
        place = (iteration, project, metric["key"], kind)
        with self._lock:
            known = self._cells.get(place)
            if known is None or known.metric != metric:
                if known is not None:
                    self._readers[iteration, known.series, kind].remove(known)
                known = self._cells[place] = self._new_statistics(iteration, metric, series, kind)
                self._readers.setdefault((iteration, known.series, kind), []).append(known)
            for variation, units in self._exposed.get((iteration, kind), {}).items():
                known.of(variation).exposed = units
            return known

    def _new_statistics(
        self, iteration: int, metric: Document, series: str, kind: str
    ) -> MetricStatistics:
        self.filtered.filters()  # asks for a new series, while its name is still unknown
        with self.database.changing(quietly=True) as connection:
            number = self.log.name_id(connection, "series", series)
        metric_statistics = MetricStatistics(metric, number, kind)
        found = self.database.rows(CELL, (iteration, number, kind))
        for done, (variation, first, *counted) in enumerate(found):
            metric_statistics.change(variation, first, NO_EVENTS, tuple(counted))
            if done % CHUNK == 0:
                self.give_way()
        return metric_statistics

    def forget(self) -> None:
        """Forget everything, as the event log does."""
        with self._lock:
            with self.database.changing(quietly=True) as connection:
                for table in (*TABLES, "iterations"):
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
                connection.execute("UPDATE aggregated SET exposures = 0, measurements = 0")
            self._load()
