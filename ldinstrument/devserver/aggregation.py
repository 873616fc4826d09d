"""From measurements and exposures to the values of units, and to statistics of them.

Intake only appends. Here the rows are folded, in pieces that hold the writer's lock for some
milliseconds each: exposures first (the earliest of a unit in an iteration decides its variation),
then measurements, added to the unit's events, events with a value and their total. A unit that is
exposed only after its events were folded is computed anew from the log.

The statistics of a cell (iteration, metric, context kind) are kept up to date: a unit's old value
is taken out and its new one put in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..analysis import SufficientStatistics, measure_of, unit_value
from .database import Database, Document
from .event_parsing import BIGGEST
from .traffic import Traffic

WINDOW_MS = 90 * 86_400_000
"""Events count up to 90 days after the exposure."""
CHUNK = 4_000
SCHEMA = """
CREATE TABLE IF NOT EXISTS exposures (
  unit INTEGER NOT NULL, iteration INTEGER NOT NULL, kind TEXT NOT NULL,
  variation INTEGER NOT NULL, first INTEGER NOT NULL, PRIMARY KEY (unit, iteration)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unit_values (
  iteration INTEGER NOT NULL, unit INTEGER NOT NULL, series INTEGER NOT NULL, kind TEXT NOT NULL,
  variation INTEGER NOT NULL, events INTEGER NOT NULL, valued INTEGER NOT NULL,
  total REAL NOT NULL, changed INTEGER NOT NULL DEFAULT 1,
  known_events INTEGER NOT NULL DEFAULT 0, known_valued INTEGER NOT NULL DEFAULT 0,
  known_total REAL NOT NULL DEFAULT 0, PRIMARY KEY (iteration, unit, series)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS changed_values ON unit_values (changed) WHERE changed = 1;
CREATE TABLE IF NOT EXISTS folded (
  id INTEGER PRIMARY KEY CHECK (id = 1), exposures INTEGER NOT NULL, measurements INTEGER NOT NULL);
INSERT OR IGNORE INTO folded VALUES (1, 0, 0);
"""
TABLES = ("exposures", "unit_values")
FRESH = """
SELECT e.unit, i.id, u.kind, e.variation, e.created, x.variation, x.first
FROM exposure_log e JOIN units u ON u.id = e.unit
JOIN iterations i ON i.flag = e.flag AND e.created >= i.started AND e.created < i.stopped
LEFT JOIN exposures x ON x.unit = e.unit AND x.iteration = i.id
WHERE e.id > ? AND e.id <= ? ORDER BY e.created, e.id
"""
FIRST_ITERATIONS = """
INSERT INTO iterations SELECT NULL, flag, 0, ? FROM (SELECT DISTINCT flag FROM exposure_log
WHERE id > ? AND id <= ?) WHERE flag NOT IN (SELECT flag FROM iterations)
"""
ADD = f"""
INSERT INTO unit_values (iteration, unit, series, kind, variation, events, valued, total)
SELECT x.iteration, m.unit, m.series, x.kind, x.variation, count(*), count(m.value), total(m.value)
FROM measurements m {{late}} CROSS JOIN exposures x ON x.unit = m.unit {{and_late}}
CROSS JOIN iterations i ON i.id = x.iteration WHERE m.id > ? AND m.id <= ?
  AND m.created >= x.first AND m.created < min(x.first + {WINDOW_MS}, i.stopped)
GROUP BY x.iteration, m.unit, m.series ON CONFLICT DO UPDATE SET events = events + excluded.events,
  valued = valued + excluded.valued, total = total + excluded.total, changed = 1
"""  # noqa: S608 - a number of our own
ADD_ALL = ADD.replace("{late}", "").replace("{and_late}", "")
ADD_LATE = ADD.replace("{late}", "CROSS JOIN late l ON l.unit = m.unit").replace(
    "{and_late}", "AND x.iteration = l.iteration"
)
CHANGED = """
SELECT iteration, unit, series, kind, variation, events, valued, total,
  known_events, known_valued, known_total FROM unit_values WHERE changed = 1 LIMIT ?
"""
KNOWN = """
UPDATE unit_values SET known_events = ?, known_valued = ?, known_total = ?, changed = 0
WHERE iteration = ? AND unit = ? AND series = ?
"""
CELL = """
SELECT variation, iif(changed, known_events, events), iif(changed, known_valued, valued),
  iif(changed, known_total, total) FROM unit_values WHERE iteration = ? AND series = ? AND kind = ?
"""


@dataclass(slots=True)
class Cell:
    """The statistics of one metric in one iteration, by variation.

    Args:
        metric: the definition they are of.
        series: the number of its event series.
        kind: the context kind of the units.
        statistics: by variation.
        events: by variation, the events (of a numeric metric those with a value).
        totals: by variation, the sum of the events' values.
    """

    metric: Document
    series: int
    kind: str
    statistics: dict[int, SufficientStatistics] = field(default_factory=dict)
    events: dict[int, int] = field(default_factory=dict)
    totals: dict[int, float] = field(default_factory=dict)

    def of(self, variation: int) -> SufficientStatistics:
        """Return the statistics of one variation."""
        return self.statistics.setdefault(variation, SufficientStatistics())

    def change(
        self, variation: int, old: tuple[int, int, float], new: tuple[int, int, float]
    ) -> None:
        """Take the old events, valued events and total of a unit out, and put the new ones in."""
        measure = measure_of(self.metric)
        aggregation = self.metric["unitAggregationType"]
        values = [unit_value(measure, aggregation, *counted) for counted in (old, new)]
        self.of(variation).replace(*values)
        more = new[1] - old[1] if measure == "value" else new[0] - old[0]
        self.events[variation] = self.events.get(variation, 0) + more
        self.totals[variation] = self.totals.get(variation, 0.0) + new[2] - old[2]


class Aggregation:
    """Folds what has arrived, and keeps the statistics of the cells that are read."""

    def __init__(self, database: Database, traffic: Traffic):
        self.database = database
        self.traffic = traffic
        self._lock = threading.RLock()
        self._cells: dict[tuple[int, str, str, str], Cell] = {}
        self._readers: dict[tuple[int, int, str], list[Cell]] = {}
        self._measured = bytearray()
        self._exposed: dict[tuple[int, str], dict[int, int]] = {}
        self._load()

    def _load(self) -> None:
        self._cells.clear()
        self._readers.clear()
        self._exposed = {}
        for iteration, kind, variation, units in self.database.rows(
            "SELECT iteration, kind, variation, count(*) FROM exposures GROUP BY 1, 2, 3"
        ):
            self._exposed.setdefault((iteration, kind), {})[variation] = units
        folded = self._positions()[1]
        self._measured = bytearray()
        sql = "SELECT DISTINCT unit FROM measurements WHERE id <= ?"
        self._mark_measured(unit for (unit,) in self.database.rows(sql, (folded,)))

    def _mark_measured(self, units: Iterable[int]) -> None:
        marked = self._measured
        for unit in units:
            if unit >= len(marked):
                marked.extend(bytes(max(unit + 1 - len(marked), 4096)))
            marked[unit] = 1

    def _positions(self) -> tuple[int, int]:
        exposures, measurements = self.database.rows("SELECT exposures, measurements FROM folded")[
            0
        ]
        return int(exposures), int(measurements)

    def pending(self) -> int:
        """Return how many POSTs and rows are still to be folded; 0 when all is counted."""
        exposures, measurements = self._positions()
        newest = self._newest()
        return self.traffic.packed() + newest[0] - exposures + newest[1] - measurements

    def _newest(self) -> tuple[int, int]:
        """Return the newest exposure and measurement of one moment: a POST brings both."""
        sql = "SELECT coalesce(max(id), 0) FROM {}"
        found = self.database.rows(
            f"SELECT ({sql.format('exposure_log')}), ({sql.format('measurements')})"
        )
        return int(found[0][0]), int(found[0][1])

    def fold(self, seconds: float | None = None) -> bool:
        """Fold what has arrived until now, in pieces; return whether all of it is folded.

        Args:
            seconds: stop after about so long, and go on with the next call; None folds all.
        """
        deadline = time.monotonic() + (BIGGEST if seconds is None else seconds)
        with self._lock:
            for _ in self._pieces():
                if time.monotonic() > deadline:
                    return False
        return True

    def _pieces(self) -> Iterator[None]:
        """Do one piece of work after another; each leaves everything consistent."""
        while self.traffic.unpack(CHUNK):
            yield
        newest, done = self._newest(), self._positions()
        for start in range(done[0], newest[0], CHUNK):
            self._fold_exposures(start, min(start + CHUNK, newest[0]), done[1])
            yield
        for start in range(done[1], newest[1], CHUNK):
            self._fold_measurements(start, min(start + CHUNK, newest[1]))
            yield
        while self._update_cells(CHUNK // 2):
            yield

    def _fold_exposures(self, after: int, until: int, folded: int) -> None:
        with self.database.changing(quietly=True) as connection:
            connection.execute(FIRST_ITERATIONS, (BIGGEST, after, until))
            fresh: dict[tuple[int, int], tuple[Any, ...]] = {}
            for unit, iteration, *rest in connection.execute(FRESH, (after, until)):
                fresh.setdefault((unit, iteration), tuple(rest))
            changed = {
                place: (kind, variation, first)
                for place, (kind, variation, first, _, known) in fresh.items()
                if known is None or first < known
            }
            connection.executemany(
                "INSERT OR REPLACE INTO exposures VALUES (?, ?, ?, ?, ?)",
                [(*place, *exposure) for place, exposure in changed.items()],
            )
            late = [place for place in changed if self._was_measured(place[0])]
            if late:
                self._compute_anew(connection, late, min(x[2] for x in changed.values()), folded)
            connection.execute("UPDATE folded SET exposures = ?", (until,))
        for (_, iteration), (kind, variation, *_) in changed.items():
            counted = self._exposed.setdefault((iteration, kind), {})
            counted[variation] = counted.get(variation, 0) + 1
        for place, (kind, _, _, before, _) in fresh.items():
            if before is not None and place in changed:
                self._exposed[place[1], kind][before] -= 1

    def _was_measured(self, unit: int) -> bool:
        return unit < len(self._measured) and bool(self._measured[unit])

    def _compute_anew(
        self, connection: Any, late: list[tuple[int, int]], first: int, folded: int
    ) -> None:
        """Compute the values of units that turn out to be exposed (earlier) after their events."""
        for unit, iteration in late:
            gone = connection.execute(
                "DELETE FROM unit_values WHERE iteration = ? AND unit = ? RETURNING "
                "series, kind, variation, known_events, known_valued, known_total, changed, "
                "events, valued, total",
                (iteration, unit),
            ).fetchall()
            for series, kind, variation, *counted in gone:
                known = tuple(counted[:3] if counted[3] else counted[4:])
                self._change_cells(iteration, series, kind, variation, known, (0, 0, 0.0))
        start = connection.execute(
            "SELECT min(first_measurement) - 1 FROM stretches WHERE latest >= ?", (first,)
        ).fetchone()[0]
        if start is None:
            return
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS late (unit, iteration)")
        connection.execute("DELETE FROM late")
        connection.executemany("INSERT INTO late VALUES (?, ?)", late)
        connection.execute("CREATE INDEX IF NOT EXISTS temp.late_units ON late (unit, iteration)")
        connection.execute(ADD_LATE, (start, folded))

    def _fold_measurements(self, after: int, until: int) -> None:
        with self.database.changing(quietly=True) as connection:
            connection.execute(ADD_ALL, (after, until))
            connection.execute("UPDATE folded SET measurements = ?", (until,))
            sql = "SELECT DISTINCT unit FROM measurements WHERE id > ? AND id <= ?"
            self._mark_measured(unit for (unit,) in connection.execute(sql, (after, until)))

    def _update_cells(self, limit: int) -> bool:
        """Bring the changed values of some units into the cells; return whether there were any."""
        changed = self.database.rows(CHANGED, (limit,))
        for iteration, _, series, kind, variation, *counted in changed:
            self._change_cells(
                iteration, series, kind, variation, tuple(counted[3:]), tuple(counted[:3])
            )
        if changed:
            with self.database.changing(quietly=True) as connection:
                connection.executemany(KNOWN, [(*row[5:8], *row[:3]) for row in changed])
        return bool(changed)

    def _change_cells(
        self, iteration: int, series: int, kind: str, variation: int, old: Any, new: Any
    ) -> None:
        for cell in self._readers.get((iteration, series, kind), ()):
            cell.change(variation, old, new)

    def exposed(self, iteration: int) -> Mapping[str, Mapping[int, int]]:
        """Return how many units were exposed, by context kind and variation."""
        with self._lock:
            return {
                kind: {variation: units for variation, units in counted.items() if units}
                for (of, kind), counted in self._exposed.items()
                if of == iteration
            }

    def cell(self, iteration: int, project: str, metric: Document, series: str, kind: str) -> Cell:
        """Return the statistics of a metric; made when first asked for, then kept up to date."""
        place = (iteration, project, metric["key"], kind)
        with self._lock:
            known = self._cells.get(place)
            if known is None or known.metric != metric:
                if known is not None:
                    self._readers[iteration, known.series, kind].remove(known)
                known = self._cells[place] = self._new_cell(iteration, metric, series, kind)
                self._readers.setdefault((iteration, known.series, kind), []).append(known)
            for variation, units in self._exposed.get((iteration, kind), {}).items():
                known.of(variation).exposed = units
            return known

    def _new_cell(self, iteration: int, metric: Document, series: str, kind: str) -> Cell:
        with self.database.changing(quietly=True) as connection:
            number = self.traffic.name_id(connection, "series", series)
        cell = Cell(metric, number, kind)
        for variation, *counted in self.database.rows(CELL, (iteration, number, kind)):
            cell.change(variation, (0, 0, 0.0), tuple(counted))
        return cell

    def forget(self) -> None:
        """Forget everything, as the traffic is forgotten."""
        with self._lock:
            with self.database.changing(quietly=True) as connection:
                for table in (*TABLES, "iterations"):
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
                connection.execute("UPDATE folded SET exposures = 0, measurements = 0")
            self._load()
