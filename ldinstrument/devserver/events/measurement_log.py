"""Measurements and exposures in the order of their arrival, as numbers.

A POST only keeps its rows packed. `unpack` writes them into tables, later and in small pieces, with
a number for each unit, series and flag.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from operator import itemgetter

import msgspec

from ..database import Database, insert_rows, places
from .parsing import Unit
from .post_rows import Rows

KNOWN_UNITS = 200_000
ASKED_AT_ONCE = 500
PACK = msgspec.msgpack.Encoder()
UNPACK = msgspec.msgpack.Decoder(Rows)
SCHEMA = """
CREATE TABLE IF NOT EXISTS names (
  id INTEGER PRIMARY KEY, space TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (space, name));
CREATE TABLE IF NOT EXISTS units (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (kind, key));
CREATE TABLE IF NOT EXISTS measurements (
  id INTEGER PRIMARY KEY, series INTEGER NOT NULL, unit INTEGER NOT NULL,
  created INTEGER NOT NULL, value REAL, is_first INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS exposure_log (
  id INTEGER PRIMARY KEY, flag INTEGER NOT NULL, unit INTEGER NOT NULL,
  variation INTEGER NOT NULL, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS stretches (
  first_measurement INTEGER PRIMARY KEY, latest INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS packed (
  id INTEGER PRIMARY KEY, done INTEGER NOT NULL, rows BLOB NOT NULL);
"""
TABLES = ("names", "units", "measurements", "exposure_log", "stretches", "packed")


class MeasurementLog:
    """Keeps the rows of POSTs, and writes them into tables."""

    def __init__(self, database: Database):
        self.database = database
        self._names: dict[tuple[str, str], int] = {}
        self._units: dict[Unit, int] = {}
        self._last_unpacked: tuple[int, Rows] = (0, Rows())

    def keep(self, connection: sqlite3.Connection, rows: Rows) -> None:
        """Keep the rows of a POST, packed."""
        if rows.units:
            connection.execute("INSERT INTO packed VALUES (NULL, 0, ?)", (PACK.encode(rows),))

    def packed(self) -> int:
        """Return how many POSTs still wait to be unpacked."""
        return int(self.database.rows("SELECT count(*) FROM packed")[0][0])

    def unpack(self, limit: int) -> Collection[int] | None:
        """Write rows of the oldest POST that still waits.

        Args:
            limit: so many rows at once, which bounds how long the writer's lock is held.

        Returns:
            The units that have a measurement in them; None when no POST waits.
        """
        with self.database.changing(quietly=True) as connection:
            found = connection.execute(
                "SELECT id, done, rows FROM packed ORDER BY id LIMIT 1"
            ).fetchone()
            if found is None:
                return None
            post, done, packed = found
            rows = self._unpacked(post, packed)
            left = max(len(rows.series_of), len(rows.exposures)) - done
            measured = self._write(connection, rows, slice(done, done + limit))
            if left > limit:
                sql = "UPDATE packed SET done = ? WHERE id = ?"
                connection.execute(sql, (done + limit, post))
            else:
                connection.execute("DELETE FROM packed WHERE id = ?", (post,))
                self._last_unpacked = (0, Rows())  # the next POST may get the same id
            return measured

    def _unpacked(self, post: int, packed: bytes) -> Rows:
        """Return the rows of a POST; those of the last one are kept for its next piece."""
        if self._last_unpacked[0] != post:
            self._last_unpacked = post, UNPACK.decode(packed)
        return self._last_unpacked[1]

    def write(self, connection: sqlite3.Connection, rows: Rows) -> None:
        """Write all rows at once."""
        self._write(connection, rows, slice(None))

    def _write(self, connection: sqlite3.Connection, rows: Rows, part: slice) -> Collection[int]:
        unit_of, exposures = rows.unit_of[part], rows.exposures[part]
        places = sorted({*unit_of, *map(itemgetter(1), exposures)})
        ids = self._unit_ids(connection, [rows.units[place] for place in places])
        units = dict(zip(places, ids, strict=True))
        self._write_exposures(connection, exposures, units)
        measured = [units[place] for place in unit_of]
        if measured:
            self._write_measurements(connection, rows, part, measured)
        return measured

    def _write_measurements(
        self, connection: sqlite3.Connection, rows: Rows, part: slice, units: Sequence[int]
    ) -> None:
        series = [self.name_id(connection, "series", name) for name in rows.series]
        created = rows.created[part]
        first = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM measurements").fetchone()
        connection.execute("INSERT INTO stretches VALUES (?, ?)", (first[0], max(created)))
        columns = (
            [series[place] for place in rows.series_of[part]],
            units,
            created,
            rows.values[part],
            rows.is_first[part],
        )
        into = "INSERT INTO measurements (series, unit, created, value, is_first)"
        insert_rows(connection, into, [*zip(*columns, strict=True)])

    def _write_exposures(
        self,
        connection: sqlite3.Connection,
        exposures: Sequence[tuple[str, int, int, int]],
        units: dict[int, int],
    ) -> None:
        flags = {
            name: self.name_id(connection, "flag", name) for name in {each[0] for each in exposures}
        }
        insert_rows(
            connection,
            "INSERT INTO exposure_log (flag, unit, variation, created)",
            [
                (flags[flag], units[place], variation, created)
                for flag, place, variation, created in exposures
            ],
        )

    def name_id(self, connection: sqlite3.Connection, space: str, name: str) -> int:
        """Return the number that stands for a name."""
        known = self._names.get((space, name))
        if known is None:
            if len(self._names) > KNOWN_UNITS:
                self._names.clear()
            connection.execute(
                "INSERT OR IGNORE INTO names (space, name) VALUES (?, ?)", (space, name)
            )
            sql = "SELECT id FROM names WHERE space = ? AND name = ?"
            known = int(connection.execute(sql, (space, name)).fetchone()[0])
            self._names[space, name] = known
        return known

    def _unit_ids(self, connection: sqlite3.Connection, units: Sequence[Unit]) -> list[int]:
        """Return the numbers that stand for units, by kind and key."""
        known = self._units
        missing = [unit for unit in units if unit not in known]
        if len(known) + len(missing) > KNOWN_UNITS:
            known.clear()
            missing = list(units)
        if missing:
            insert_rows(connection, "INSERT OR IGNORE INTO units (kind, key)", missing)
            for start in range(0, len(missing), ASKED_AT_ONCE):
                part = missing[start : start + ASKED_AT_ONCE]
                known.update(zip(part, _ids(connection, part), strict=True))
        return [known[unit] for unit in units]

    def forget(self) -> None:
        """Forget the numbers, as the tables are emptied."""
        self._names.clear()
        self._units.clear()
        self._last_unpacked = (0, Rows())


def _ids(connection: sqlite3.Connection, units: Sequence[Unit]) -> list[int]:
    """Return the numbers of units, in one row: fetching many would wait for others at each."""
    sql = (
        f"WITH wanted (place, kind, key) AS (VALUES {places(3, len(units))}) "  # noqa: S608 - marks
        "SELECT group_concat(wanted.place || ' ' || units.id) FROM wanted "
        "JOIN units ON units.kind = wanted.kind AND units.key = wanted.key"
    )
    asked = [value for place, unit in enumerate(units) for value in (place, *unit)]
    pairs = (pair.split() for pair in connection.execute(sql, asked).fetchone()[0].split(","))
    found = {int(place): int(id) for place, id in pairs}
    return [found[place] for place in range(len(units))]
