"""What the local LaunchDarkly remembers, in SQLite: documents, posts, events, and what the read-out
joins.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
  collection TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
  UNIQUE (collection, project, key));
CREATE TABLE IF NOT EXISTS posts (
  id INTEGER PRIMARY KEY, received INTEGER NOT NULL, route TEXT NOT NULL, payload_id TEXT NOT NULL,
  status INTEGER NOT NULL, bytes INTEGER NOT NULL, events INTEGER NOT NULL, duplicate INTEGER NOT NULL,
  agent TEXT NOT NULL, fault TEXT NOT NULL, error TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS posts_by_payload ON posts (payload_id);
CREATE TABLE IF NOT EXISTS payloads (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY, post INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, created INTEGER NOT NULL,
  body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_by_key ON events (key, kind);
CREATE TABLE IF NOT EXISTS event_keys (
  key TEXT PRIMARY KEY, events INTEGER NOT NULL, valued INTEGER NOT NULL, last_seen INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS measurements (
  key TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL, event INTEGER NOT NULL, created INTEGER NOT NULL,
  value REAL, PRIMARY KEY (key, kind, unit, event)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS exposures (
  flag TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL, variation INTEGER NOT NULL, first INTEGER NOT NULL,
  PRIMARY KEY (flag, kind, unit)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS variations (
  flag TEXT NOT NULL, variation INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (flag, variation)) WITHOUT ROWID;
"""
TRAFFIC = ("posts", "payloads", "events", "event_keys", "measurements", "exposures", "variations")


@dataclass(frozen=True, slots=True)
class Post:
    """One POST that reached the event intake.

    `status` is what the intake decided, `fault` what a test made of it (empty without a fault),
    `duplicate` that its payload id had been accepted before, `events` the number of events in its
    body (also of a duplicate), `received` epoch milliseconds, `bytes` the size on the wire, `error`
    why it was refused.
    """

    route: str
    payload_id: str
    status: int
    bytes: int
    events: int
    duplicate: bool
    received: int
    agent: str = ""
    fault: str = ""
    error: str = ""


class ReceivedEvent(dict[str, Any]):
    """An event as it was sent, with what the server knows beside it: `payload_id`, `received`
    (epoch ms) and `id`.
    """

    __slots__ = ("id", "payload_id", "received")

    def __init__(self, body: Document, id: int = 0, payload_id: str = "", received: int = 0):
        super().__init__(body)
        self.id = id
        self.payload_id = payload_id
        self.received = received


@dataclass(slots=True)
class Batch:
    """The rows that the events of one POST become; see `batches.rows_of`."""

    events: list[tuple[str, str, int, str]] = field(
        default_factory=list
    )  # kind, key, created, body
    measurements: list[tuple[str, str, str, int, int, float | None]] = field(
        default_factory=list
    )  # ..., event index, ...
    exposures: list[tuple[str, str, str, int, int]] = field(
        default_factory=list
    )  # flag, kind, unit, variation, first
    variations: dict[tuple[str, int], str] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # event key -> events, events with a value


class Database:
    """SQLite behind one connection and one lock; in memory unless a path is given.

    `revision` grows with every change, so that readers know when a computed answer is stale.
    """

    def __init__(self, path: str | None = None):
        self.path = path
        self.revision = 0
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path or ":memory:", check_same_thread=False, isolation_level=None
        )
        if path:
            self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(SCHEMA)
        self._documents: dict[tuple[str, str], dict[str, Document]] = {}
        self._load_documents()

    def close(self) -> None:
        """Close the database; harmless twice."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction under the lock: all of it or nothing."""
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            self.revision += 1

    def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows that a query answers."""
        with self._lock:
            return self._connection.execute(sql, tuple(parameters)).fetchall()

    # -- documents: metrics, flags, context kinds, settings ---------------------------------------

    def _load_documents(self) -> None:
        for collection, project, key, body in self.rows(
            "SELECT collection, project, key, body FROM documents ORDER BY rowid"
        ):
            self._documents.setdefault((collection, project), {})[key] = json.loads(body)

    def documents(self, collection: str, project: str = "") -> list[Document]:
        """Every document of a collection, oldest first; treat them as frozen."""
        with self._lock:
            return list(self._documents.get((collection, project), {}).values())

    def document(self, collection: str, project: str, key: str) -> Document | None:
        """One document or None; treat it as frozen."""
        with self._lock:
            return self._documents.get((collection, project), {}).get(key)

    def projects(self, collection: str) -> list[str]:
        """Return the projects that hold documents of this collection."""
        with self._lock:
            return [project for kind, project in self._documents if kind == collection]

    def put(self, collection: str, project: str, key: str, body: Document) -> None:
        """Write one document, new or changed."""
        with self.changing() as connection:
            connection.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET body = "
                "excluded.body",
                (collection, project, key, json.dumps(body)),
            )
            self._documents.setdefault((collection, project), {})[key] = body

    def add(self, collection: str, project: str, key: str, body: Document) -> bool:
        """Write one document unless its key is taken; whether it was written."""
        with self._lock:
            if self.document(collection, project, key) is not None:
                return False
            self.put(collection, project, key, body)
            return True

    def remove(self, collection: str, project: str, key: str) -> bool:
        """Delete one document; whether there was one."""
        with self.changing() as connection:
            connection.execute(
                "DELETE FROM documents WHERE collection = ? AND project = ? AND key = ?",
                (collection, project, key),
            )
            return self._documents.get((collection, project), {}).pop(key, None) is not None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock over a read and the write that depends on it."""
        with self._lock:
            yield

    # -- traffic ----------------------------------------------------------------------------------

    def record(self, post: Post, batch: Batch | None = None) -> bool:
        """Keep one POST and its events, in one transaction.

        A payload id that was accepted before makes it a duplicate: the POST is counted, its events
            are not.

        Returns:
            Whether it was a duplicate.
        """
        with self.changing() as connection:
            duplicate = (
                batch is not None
                and bool(post.payload_id)
                and not self._first_time(connection, post.payload_id)
            )
            post_id = connection.execute(
                "INSERT INTO posts VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                ),
            ).lastrowid
            if batch is not None and not duplicate:
                self._insert(connection, int(post_id or 0), batch, post.received)
            return duplicate

    @staticmethod
    def _first_time(connection: sqlite3.Connection, payload_id: str) -> bool:
        return (
            connection.execute("INSERT OR IGNORE INTO payloads VALUES (?)", (payload_id,)).rowcount
            == 1
        )

    @staticmethod
    def _insert(connection: sqlite3.Connection, post: int, batch: Batch, received: int) -> None:
        last = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
        connection.executemany(
            "INSERT INTO events (id, post, kind, key, created, body) VALUES (?, ?, ?, ?, ?, ?)",
            ((last + 1 + index, post, *row) for index, row in enumerate(batch.events)),
        )
        connection.executemany(
            "INSERT OR IGNORE INTO measurements VALUES (?, ?, ?, ?, ?, ?)",
            (
                (key, kind, unit, last + 1 + i, created, value)
                for key, kind, unit, i, created, value in batch.measurements
            ),
        )
        connection.executemany(
            "INSERT INTO exposures VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET variation = "
            "excluded.variation, "
            "first = excluded.first WHERE excluded.first < first",
            batch.exposures,
        )
        connection.executemany(
            "INSERT INTO variations VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = "
            "excluded.value",
            ((flag, variation, value) for (flag, variation), value in batch.variations.items()),
        )
        connection.executemany(
            "INSERT INTO event_keys VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET events = events "
            "+ excluded.events, "
            "valued = valued + excluded.valued, last_seen = max(last_seen, excluded.last_seen)",
            ((key, events, valued, received) for key, (events, valued) in batch.keys.items()),
        )

    def last_seen(self, event_key: str) -> int | None:
        """When the last event of this key was received, in epoch milliseconds."""
        found = self.rows("SELECT last_seen FROM event_keys WHERE key = ?", (event_key,))
        return int(found[0][0]) if found else None

    def events(
        self, *, since: int = 0, limit: int = -1, key: str | None = None, kind: str | None = None
    ) -> list[ReceivedEvent]:
        """Events in the order of arrival, of every kind or of one, with ids above *since*."""
        found = self.event_rows(since=since, limit=limit, key=key, kind=kind)
        return [
            ReceivedEvent(json.loads(body), id, payload_id, received)
            for id, body, payload_id, received in found
        ]

    def event_rows(
        self, *, since: int = 0, limit: int = -1, key: str | None = None, kind: str | None = None
    ) -> list[tuple[int, str, str, int]]:
        """Return the same with the JSON text of each event: id, text, payload id, time of receipt."""
        rows: list[tuple[Any, ...]] = self.rows(
            "SELECT e.id, e.body, p.payload_id, p.received FROM events e JOIN posts p ON p.id = "
            "e.post "
            "WHERE e.id > ? AND (? IS NULL OR e.kind = ?) AND (? IS NULL OR e.key = ?) ORDER BY "
            "e.id LIMIT ?",
            (since, kind, kind, key, key, limit),
        )
        return [(id, body, payload_id, received) for id, body, payload_id, received in rows]

    def count(self, kind: str | None = None, key: str | None = None) -> int:
        """How many events were kept, of one kind and key or of all."""
        if key is None:
            return int(
                self.rows("SELECT count(*) FROM events WHERE ? IS NULL OR kind = ?", (kind, kind))[
                    0
                ][0]
            )
        sql = "SELECT count(*) FROM events WHERE key = ? AND (? IS NULL OR kind = ?)"
        return int(self.rows(sql, (key, kind, kind))[0][0])

    def tail(self, limit: int) -> int:
        """Return the id before the newest *limit* events, for `since`."""
        return max(0, int(self.rows("SELECT coalesce(max(id), 0) FROM events")[0][0]) - limit)

    def posts(self) -> list[Post]:
        """Every POST that reached the intake, in the order of arrival."""
        found = self.rows(
            "SELECT route, payload_id, status, bytes, events, duplicate, received, agent, fault, "
            "error "
            "FROM posts ORDER BY id"
        )
        return [
            Post(
                route, payload, status, size, events, bool(duplicate), received, agent, fault, error
            )
            for route, payload, status, size, events, duplicate, received, agent, fault, error in found
        ]

    def forget_traffic(self) -> None:
        """Delete posts, events and exposures; metrics and flags stay."""
        with self.changing() as connection:
            for table in TRAFFIC:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own

    def forget_documents(self, *, keep: str) -> None:
        """Delete every document but those of one collection."""
        with self.changing() as connection:
            connection.execute("DELETE FROM documents WHERE collection <> ?", (keep,))
            for place in [place for place in self._documents if place[0] != keep]:
                del self._documents[place]
