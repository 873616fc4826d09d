"""Record what arrives: POSTs with their bodies, counts by key, and their rows, packed.

Recording only appends. `measurement_log` unpacks the rows later and in small pieces, `unit_values`
makes what the read-out needs. Bodies are kept up to a number of bytes: then the oldest go, and with
them what `event_reader` can list; the numbers stay.
"""

from __future__ import annotations

import sqlite3

from ..database import Database
from .event_reader import LAST_EVENT, EventReader
from .filtered_series import TABLES as SERIES_TABLES
from .filtered_series import FilteredSeries
from .measurement_log import TABLES as LOG_TABLES
from .measurement_log import MeasurementLog
from .newest_values import NewestValues
from .post_rows import Filters, PostRows
from .received import Post

MAX_BODY_BYTES = 1024**3
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
CREATE TABLE IF NOT EXISTS evaluations (
  flag TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
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
    "evaluations",
    "variations",
)


class EventLog:
    """Records POSTs and their events; its parts log their rows, and list what has arrived.

    Args:
        database: where they are kept.
        max_body_bytes: how much of the bodies is kept.
    """

    def __init__(self, database: Database, max_body_bytes: int = MAX_BODY_BYTES):
        self.database = database
        self.max_body_bytes = max_body_bytes
        self.log = MeasurementLog(database)
        self.reader = EventReader(database)
        self.filtered = FilteredSeries(database, self.log, self.reader)
        self.newest = NewestValues(database)
        (self._body_bytes,) = database.rows("SELECT coalesce(sum(length(body)), 0) FROM bodies")[0]

    def filters(self) -> Filters:
        """Return the filtered series that the events of a POST are tested for."""
        return self.filtered.filters()

    def record(self, post: Post, post_rows: PostRows | None = None) -> bool:
        """Keep one POST and its events, in one transaction.

        A payload id that was accepted before makes it a duplicate: the POST is counted, its events
        are not.

        Returns:
            Whether it was a duplicate.
        """
        with self.database.changing() as connection:
            duplicate = post_rows is not None and self._is_known(connection, post.payload_id)
            post_id = _insert_post(connection, post, duplicate)
            if post_rows is not None and not duplicate:
                self._insert(connection, post_id, post_rows, post.received)
            return duplicate

    @staticmethod
    def _is_known(connection: sqlite3.Connection, payload_id: str) -> bool:
        if not payload_id:
            return False
        added = connection.execute("INSERT OR IGNORE INTO payloads VALUES (?)", (payload_id,))
        return added.rowcount == 0

    def _insert(
        self, connection: sqlite3.Connection, post: int, post_rows: PostRows, received: int
    ) -> None:
        self._insert_body(connection, post, post_rows)
        connection.executemany(
            "INSERT INTO post_keys VALUES (?, ?, ?, ?)",
            ((kind, key, post, events) for (kind, key), events in post_rows.counts.items()),
        )
        connection.executemany(
            "INSERT INTO event_keys VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "events = events + excluded.events, valued = valued + excluded.valued, "
            "total = total + excluded.total, last_seen = max(last_seen, excluded.last_seen)",
            (
                (key, counted.events, len(counted.values), sum(counted.values), received)
                for key, counted in post_rows.keys.items()
            ),
        )
        connection.executemany(
            "INSERT INTO key_kinds VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET events = events + excluded.events",
            (
                (key, kinds, events)
                for key, counted in post_rows.keys.items()
                for kinds, events in counted.kinds.items()
            ),
        )
        connection.executemany(
            "INSERT INTO evaluations VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET last = max(last, excluded.last)",
            post_rows.evaluated.items(),
        )
        connection.executemany(
            "INSERT INTO variations VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            ((flag, variation, value) for (flag, variation), value in post_rows.variations.items()),
        )
        self.log.keep(connection, post_rows.builder.rows)
        self.newest.add({key: counted.values for key, counted in post_rows.keys.items()})

    def _insert_body(self, connection: sqlite3.Connection, post: int, post_rows: PostRows) -> None:
        if not post_rows.events:
            return
        (last,) = connection.execute(LAST_EVENT).fetchone() or (0,)
        connection.execute(
            "INSERT INTO bodies VALUES (?, ?, ?, ?)",
            (last + 1, post_rows.events, post, post_rows.body),
        )
        self._body_bytes += len(post_rows.body)
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

    def forget(self) -> None:
        """Delete posts, events and exposures."""
        with self.database.changing() as connection:
            for table in (*TABLES, *LOG_TABLES, *SERIES_TABLES):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
            self.log.forget()
            self.filtered.forget()
            self.newest.forget()
            self._body_bytes = 0


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
