"""What has arrived, as it arrived: POSTs with their bodies, measurements and exposures in order.

Recording only appends: the body, some counts, and the rows of the POST in one packed piece.
`aggregation` has them unpacked, later and in small pieces, and makes what the read-out needs.
Bodies are kept up to a number of bytes: then the oldest go, and with them what `events` can list;
the numbers stay.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from .database import Database, Document
from .event_parsing import (
    BIGGEST,
    Batch,
    Filters,
    is_event,
    measured_rows,
    series_name,
    split_array,
)
from .events import Post, ReceivedEvent
from .metric_filters import Predicate, predicate

MAX_BODY_BYTES = 1024**3
KNOWN_UNITS = 200_000
Measurement = tuple[str, tuple[str, str], int, float | None, int]
Exposure = tuple[str, tuple[str, str], int, int]
Rows = tuple[list[Measurement], list[Exposure]]
PACK = msgspec.msgpack.Encoder()
UNPACK = msgspec.msgpack.Decoder(Rows)
SCHEMA = """
CREATE TABLE IF NOT EXISTS posts (
  id INTEGER PRIMARY KEY, received INTEGER NOT NULL, route TEXT NOT NULL,
  payload_id TEXT NOT NULL, status INTEGER NOT NULL, bytes INTEGER NOT NULL,
  events INTEGER NOT NULL, duplicate INTEGER NOT NULL, agent TEXT NOT NULL, fault TEXT NOT NULL,
  error TEXT NOT NULL, wrapper TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS posts_by_payload ON posts (payload_id);
CREATE TABLE IF NOT EXISTS payloads (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bodies (
  first_event INTEGER PRIMARY KEY, events INTEGER NOT NULL, post INTEGER NOT NULL,
  body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS post_keys (
  kind TEXT NOT NULL, key TEXT NOT NULL, post INTEGER NOT NULL, events INTEGER NOT NULL,
  PRIMARY KEY (kind, key, post)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event_keys (
  key TEXT PRIMARY KEY, events INTEGER NOT NULL, valued INTEGER NOT NULL, total REAL NOT NULL,
  last_seen INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_kinds (
  key TEXT NOT NULL, kinds TEXT NOT NULL, events INTEGER NOT NULL,
  PRIMARY KEY (key, kinds)) WITHOUT ROWID;
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
CREATE TABLE IF NOT EXISTS evaluations (
  flag TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stretches (
  first_measurement INTEGER PRIMARY KEY, latest INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS packed (
  post INTEGER PRIMARY KEY, done INTEGER NOT NULL, rows BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS variations (
  flag TEXT NOT NULL, variation INTEGER NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (flag, variation)) WITHOUT ROWID;
"""
TABLES = (
    "posts",
    "payloads",
    "bodies",
    "post_keys",
    "event_keys",
    "key_kinds",
    "names",
    "units",
    "measurements",
    "exposure_log",
    "evaluations",
    "stretches",
    "packed",
    "variations",
)
KEPT = """
SELECT b.first_event, b.events, b.body, p.payload_id, p.received
FROM bodies b JOIN posts p ON p.id = b.post
WHERE b.first_event + b.events - 1 > ? {and_key} ORDER BY b.first_event
"""
NEWEST = """
SELECT b.first_event, b.body, p.payload_id, p.received FROM bodies b JOIN posts p ON p.id = b.post
WHERE b.first_event < ? {and_key} ORDER BY b.first_event DESC LIMIT 1
"""
LAST_EVENT = "SELECT first_event + events - 1 FROM bodies ORDER BY first_event DESC LIMIT 1"
WITH_KEY = "AND b.post IN (SELECT post FROM post_keys WHERE key = ?)"
WITH_KIND = "AND b.post IN (SELECT post FROM post_keys WHERE kind = ?)"


class Traffic:
    """Records POSTs and their events, and lists them.

    Args:
        database: where they are kept.
        max_body_bytes: how much of the bodies is kept.
    """

    def __init__(self, database: Database, max_body_bytes: int = MAX_BODY_BYTES):
        self.database = database
        self.max_body_bytes = max_body_bytes
        self._names: dict[tuple[str, str], int] = {}
        self._units: dict[tuple[str, str], int] = {}
        self._last_unpacked: tuple[int, Rows] = (0, ([], []))
        self._filters: Filters = {}
        self._filters_of = -1
        (self._body_bytes,) = database.rows("SELECT coalesce(sum(length(body)), 0) FROM bodies")[0]

    def filters(self) -> Filters:
        """Return the filtered series that metrics ask for; a new one is filled from the bodies."""
        with self.database.locked():
            if self._filters_of != self.database.documents_revision:
                self._filters_of = self.database.documents_revision
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
                self._fill(metric["eventKey"], *known[-1])
        return found

    def _filtered_metrics(self) -> Iterator[Document]:
        for project in self.database.projects("metric"):
            for metric in self.database.documents("metric", project):
                if metric.get("filters") and metric.get("eventKey"):
                    yield metric

    def _fill(self, key: str, series: str, passes: Predicate) -> None:
        """Measure the events that are already there for a series that is new."""
        with self.database.changing() as connection:
            sql = "SELECT 1 FROM names WHERE space = 'series' AND name = ?"
            if connection.execute(sql, (series,)).fetchone():
                return
            number_of_series = self.name_id(connection, "series", series)
            for first, body, _, received in self._bodies(0, key, None):
                rows = [
                    row
                    for _, (event, _) in _numbered(first, body)
                    if event["kind"] == "custom" and event.get("key") == key and passes(event)
                    for row in measured_rows(event, series, received)
                ]
                units = self._unit_ids(connection, {row[1] for row in rows})
                connection.executemany(
                    "INSERT INTO measurements VALUES (NULL, ?, ?, ?, ?, ?)",
                    [(number_of_series, units[unit], *rest) for _, unit, *rest in rows],
                )

    def record(self, post: Post, batch: Batch | None = None) -> bool:
        """Keep one POST and its events, in one transaction.

        A payload id that was accepted before makes it a duplicate: the POST is counted, its events
        are not.

        Returns:
            Whether it was a duplicate.
        """
        with self.database.changing() as connection:
            duplicate = batch is not None and self._is_known(connection, post.payload_id)
            post_id = _insert_post(connection, post, duplicate)
            if batch is not None and not duplicate:
                self._insert(connection, post_id, batch, post.received)
            return duplicate

    @staticmethod
    def _is_known(connection: sqlite3.Connection, payload_id: str) -> bool:
        if not payload_id:
            return False
        added = connection.execute("INSERT OR IGNORE INTO payloads VALUES (?)", (payload_id,))
        return added.rowcount == 0

    def _insert(
        self, connection: sqlite3.Connection, post: int, batch: Batch, received: int
    ) -> None:
        self._insert_body(connection, post, batch)
        connection.executemany(
            "INSERT INTO post_keys VALUES (?, ?, ?, ?)",
            ((kind, key, post, events) for (kind, key), events in batch.counts.items()),
        )
        connection.executemany(
            "INSERT INTO event_keys VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "events = events + excluded.events, valued = valued + excluded.valued, "
            "total = total + excluded.total, last_seen = max(last_seen, excluded.last_seen)",
            (
                (key, counted.events, counted.valued, counted.total, received)
                for key, counted in batch.keys.items()
            ),
        )
        connection.executemany(
            "INSERT INTO key_kinds VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET events = events + excluded.events",
            (
                (key, kinds, events)
                for key, counted in batch.keys.items()
                for kinds, events in counted.kinds.items()
            ),
        )
        connection.executemany(
            "INSERT INTO evaluations VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET last = max(last, excluded.last)",
            batch.evaluated.items(),
        )
        connection.executemany(
            "INSERT INTO variations VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            ((flag, variation, value) for (flag, variation), value in batch.variations.items()),
        )
        if batch.measurements or batch.exposures:
            rows = [*batch.measurements, *batch.filtered], batch.exposures
            sql = "INSERT INTO packed VALUES (?, 0, ?)"
            connection.execute(sql, (post, PACK.encode(rows)))

    def _insert_body(self, connection: sqlite3.Connection, post: int, batch: Batch) -> None:
        if not batch.events:
            return
        (last,) = connection.execute(LAST_EVENT).fetchone() or (0,)
        connection.execute(
            "INSERT INTO bodies VALUES (?, ?, ?, ?)", (last + 1, batch.events, post, batch.body)
        )
        self._body_bytes += len(batch.body)
        if self._body_bytes > self.max_body_bytes:
            self._drop_oldest(connection, last + 1)

    def _drop_oldest(self, connection: sqlite3.Connection, newest: int) -> None:
        """Delete the oldest bodies, a quarter at once, so that it is seldom done."""
        goal = self.max_body_bytes * 3 // 4
        sizes = connection.execute("SELECT first_event, length(body) FROM bodies").fetchall()
        for first, size in sizes:
            if self._body_bytes <= goal or first == newest:
                break
            connection.execute("DELETE FROM bodies WHERE first_event = ?", (first,))
            self._body_bytes -= size

    def unpack(self, limit: int) -> bool:
        """Write rows of the oldest POST that still waits; return whether there was one.

        Args:
            limit: so many rows at once, which bounds how long the writer's lock is held.
        """
        with self.database.changing(quietly=True) as connection:
            found = connection.execute(
                "SELECT post, done, rows FROM packed ORDER BY post LIMIT 1"
            ).fetchone()
            if found is None:
                return False
            post, done, packed = found
            measurements, exposures = self._unpacked(post, packed)
            self._insert_measurements(connection, measurements[done : done + limit])
            if done == 0:
                self._insert_exposures(connection, exposures)
            if done + limit < len(measurements):
                connection.execute(
                    "UPDATE packed SET done = ? WHERE post = ?", (done + limit, post)
                )
            else:
                connection.execute("DELETE FROM packed WHERE post = ?", (post,))
            return True

    def _unpacked(self, post: int, packed: bytes) -> tuple[list[Measurement], list[Exposure]]:
        """Return the rows of a POST; those of the last one are kept for its next piece."""
        if self._last_unpacked[0] != post:
            self._last_unpacked = post, UNPACK.decode(packed)
        return self._last_unpacked[1]

    def _insert_measurements(self, connection: sqlite3.Connection, rows: list[Measurement]) -> None:
        if not rows:
            return
        units = self._unit_ids(connection, {row[1] for row in rows})
        series = {name: self.name_id(connection, "series", name) for name in {r[0] for r in rows}}
        first = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM measurements").fetchone()
        latest = max(row[2] for row in rows)
        connection.execute("INSERT INTO stretches VALUES (?, ?)", (first[0], latest))
        connection.executemany(
            "INSERT INTO measurements VALUES (NULL, ?, ?, ?, ?, ?)",
            [
                (series[name], units[unit], created, value, is_first)
                for name, unit, created, value, is_first in rows
            ],
        )

    def _insert_exposures(self, connection: sqlite3.Connection, rows: list[Exposure]) -> None:
        units = self._unit_ids(connection, {row[1] for row in rows})
        flags = {name: self.name_id(connection, "flag", name) for name in {r[0] for r in rows}}
        connection.executemany(
            "INSERT INTO exposure_log VALUES (NULL, ?, ?, ?, ?)",
            [(flags[flag], units[unit], *rest) for flag, unit, *rest in rows],
        )

    def packed(self) -> int:
        """Return how many POSTs still wait to be unpacked."""
        return int(self.database.rows("SELECT count(*) FROM packed")[0][0])

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

    def _unit_ids(
        self, connection: sqlite3.Connection, units: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], int]:
        """Return the numbers that stand for units, by kind and key."""
        known = self._units
        missing = [unit for unit in units if unit not in known]
        if len(known) + len(missing) > KNOWN_UNITS:
            known.clear()
            missing = list(units)
        if missing:
            connection.executemany("INSERT OR IGNORE INTO units (kind, key) VALUES (?, ?)", missing)
            sql = "SELECT id FROM units WHERE kind = ? AND key = ?"
            for unit in missing:
                known[unit] = connection.execute(sql, unit).fetchone()[0]
        return known

    # -- reading ----------------------------------------------------------------------------------

    def events(
        self, *, since: int = 0, limit: int = -1, key: str | None = None, kind: str | None = None
    ) -> list[ReceivedEvent]:
        """Return events with ids above *since*, oldest first, of every kind or of one."""
        found = self._kept(since, limit, key, kind)
        return [
            ReceivedEvent(event, id, payload_id, received)
            for id, event, _, payload_id, received in found
        ]

    def event_texts(
        self, *, since: int = 0, limit: int = -1, key: str | None = None, kind: str | None = None
    ) -> list[tuple[int, str, str, int]]:
        """Return the same as id, JSON text, payload id and time of receipt."""
        found = self._kept(since, limit, key, kind)
        return [(id, text, payload_id, received) for id, _, text, payload_id, received in found]

    def _kept(
        self, since: int, limit: int, key: str | None, kind: str | None
    ) -> Iterator[tuple[int, dict[str, Any], str, str, int]]:
        """Go through the bodies, filter, and stop at the limit (below 0: none)."""
        left = limit
        for first, body, payload_id, received in self._bodies(since, key, kind):
            for id, (event, text) in _numbered(first, body):
                if left == 0:
                    return
                if id > since and _fits(event, key, kind):
                    left -= 1
                    yield id, event, text, payload_id, received

    def _bodies(
        self, since: int, key: str | None, kind: str | None
    ) -> Iterator[tuple[int, bytes, str, int]]:
        """Yield bodies that may hold what is asked for, some at a time."""
        condition, parameters = _condition(key, kind)
        sql = KEPT.replace("{and_key}", condition) + " LIMIT 16"
        while found := self.database.rows(sql, (since, *parameters)):
            for first, events, body, payload_id, received in found:
                yield first, body, payload_id, received
                since = max(since, first + events - 1)

    def newest(self, limit: int, key: str | None = None) -> list[tuple[int, str, str, int]]:
        """Return the newest events, oldest of them first, as `event_texts` does."""
        condition, parameters = _condition(key, None)
        sql = NEWEST.replace("{and_key}", condition)
        found: list[list[tuple[int, str, str, int]]] = []
        before, left = BIGGEST, limit
        while left > 0 and (rows := self.database.rows(sql, (before, *parameters))):
            before, body, payload_id, received = rows[0]
            texts = [
                (id, text, payload_id, received)
                for id, (event, text) in _numbered(before, body)
                if _fits(event, key, None)
            ]
            found.append(texts)
            left -= len(texts)
        return [*chain.from_iterable(reversed(found))][-limit:] if limit else []

    def count(self, kind: str | None = None, key: str | None = None) -> int:
        """Return how many events were accepted, of one kind and key or of all."""
        sql = (
            "SELECT coalesce(sum(events), 0) FROM post_keys "
            "WHERE (? IS NULL OR kind = ?) AND (? IS NULL OR key = ?)"
        )
        return int(self.database.rows(sql, (kind, kind, key, key))[0][0])

    def last_event(self) -> int:
        """Return the id of the newest event, 0 when there is none."""
        found = self.database.rows(LAST_EVENT)
        return int(found[0][0]) if found else 0

    def last_seen(self, event_key: str) -> int | None:
        """Return when the last event of this key was received, in epoch milliseconds."""
        sql = "SELECT last_seen FROM event_keys WHERE key = ?"
        found = self.database.rows(sql, (event_key,))
        return int(found[0][0]) if found else None

    def last_evaluated(self, flag: str) -> int | None:
        """Return when a flag was last evaluated, in epoch milliseconds."""
        found = self.database.rows("SELECT last FROM evaluations WHERE flag = ?", (flag,))
        return int(found[0][0]) if found else None

    def posts(self) -> list[Post]:
        """Return every POST that reached the intake, in the order of arrival."""
        found = self.database.rows(
            "SELECT route, payload_id, status, bytes, events, duplicate, received, agent, fault, "
            "error, wrapper FROM posts ORDER BY id"
        )
        return [
            Post(route, id, status, size, events, bool(duplicate), received, *rest)
            for route, id, status, size, events, duplicate, received, *rest in found
        ]

    def forget(self) -> None:
        """Delete posts, events and exposures."""
        with self.database.changing() as connection:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
            self._names.clear()
            self._units.clear()
            self._last_unpacked = (0, ([], []))  # ids of POSTs begin anew
            self._body_bytes = 0


def series_of(metric: Document) -> str:
    """Return the name of the events that a metric reads."""
    filters = metric.get("filters")
    text = json.dumps(filters, sort_keys=True) if filters else ""
    return series_name(metric["eventKey"], text)


def _insert_post(connection: sqlite3.Connection, post: Post, duplicate: bool) -> int:
    added = connection.execute(
        "INSERT INTO posts VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            post.received,
            post.route,
            post.payload_id,
            post.status,
            post.bytes,
            post.events,
            duplicate,
            post.agent,
            post.fault,
            post.error,
            post.wrapper,
        ),
    )
    return int(added.lastrowid or 0)


def _numbered(first: int, body: bytes) -> Iterator[tuple[int, tuple[dict[str, Any], str]]]:
    return enumerate((item for item in split_array(body) if is_event(item[0])), first)


def _condition(key: str | None, kind: str | None) -> tuple[str, list[str]]:
    if key is not None:
        return WITH_KEY, [key]
    return (WITH_KIND, [kind]) if kind is not None else ("", [])


def _fits(event: dict[str, Any], key: str | None, kind: str | None) -> bool:
    return (key is None or event.get("key") == key) and (kind is None or event["kind"] == kind)
