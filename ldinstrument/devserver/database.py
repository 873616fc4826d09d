"""The SQLite database of the local LaunchDarkly: its connections, and the documents in it.

One connection writes, under a lock; another one reads beside it (write-ahead log), so that a
read-out never makes a POST wait. Without a path the database is a temporary file: memory stays
bounded whatever arrives, and the file goes with the object.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import DefinitionError

Document = dict[str, Any]
SCHEMA_VERSION = 6
CACHE_KIB = 32_768
DOCUMENTS = """
CREATE TABLE IF NOT EXISTS documents (
  collection TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
  UNIQUE (collection, project, key));
"""


class Database:
    """One database file; documents are kept in memory as well.

    `revision` grows with every change, so that readers know when a computed answer is stale;
    `documents_revision` with those of documents.

    Args:
        path: the file; None for a temporary one.
        schema: the tables of whoever shares the database, as SQL.

    Raises:
        DefinitionError: the file cannot be opened, is no database, or is another program's, which
            is not touched.
    """

    def __init__(self, path: str | None = None, schema: str = ""):
        self.revision = 0
        self.documents_revision = 0
        self._lock = threading.RLock()
        self._read_lock = threading.RLock()
        self._folder = None if path else tempfile.TemporaryDirectory(prefix="ldinstrument-dev-")
        self.path = path or str(Path(self._folder.name if self._folder else "") / "events.sqlite")
        try:
            self._writer = self._open()
            self._prepare(schema)
            self._reader = self._open()
        except sqlite3.Error as error:
            raise DefinitionError(f"{self.path}: {error}") from error
        self._documents: dict[tuple[str, str], dict[str, Document]] = {}
        self._load_documents()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        return connection

    def _prepare(self, schema: str) -> None:
        """Create the tables; those of an older version are dropped but for the documents."""
        self._check_owner()
        self._writer.execute("PRAGMA journal_mode=WAL")
        (known,) = self._writer.execute("PRAGMA user_version").fetchone()
        if known not in (0, SCHEMA_VERSION) or (known == 0 and self._has_older_tables()):
            self._drop_traffic()
        self._writer.executescript(DOCUMENTS + schema)
        self._writer.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _check_owner(self) -> None:
        """Raise DefinitionError for a file with tables but not with our documents."""
        columns = self._writer.execute("SELECT name FROM pragma_table_info('documents')")
        is_ours = [name for (name,) in columns] == ["collection", "project", "key", "body"]
        if not is_ours and (tables := self._tables()):
            self._writer.close()
            raise DefinitionError(
                f"{self.path}: this is another program's database (it has a table "
                f"{tables[0]:.60}); give the local LaunchDarkly a file of its own"
            )

    def _tables(self) -> list[str]:
        found = self._writer.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return [name for (name,) in found if name != "documents" and "sqlite" not in name]

    def _has_older_tables(self) -> bool:
        return bool(self._tables())

    def _drop_traffic(self) -> None:
        for table in self._tables():
            self._writer.execute(f'DROP TABLE "{table}"')

    def close(self) -> None:
        """Close the database; harmless twice."""
        with self._lock, self._read_lock:
            self._reader.close()
            self._writer.close()
            if self._folder is not None:
                self._folder.cleanup()

    @contextmanager
    def changing(self, *, quietly: bool = False) -> Iterator[sqlite3.Connection]:
        """Make one transaction under the lock: all of it or nothing.

        Args:
            quietly: what is read does not change, only how it is kept; `revision` stays.
        """
        with self._lock:
            self._writer.execute("BEGIN")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")
            self.revision += not quietly

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the writer's lock over a read and the write that depends on it."""
        with self._lock:
            yield

    def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows that a query answers, of what has been committed."""
        with self._read_lock:
            return self._reader.execute(sql, tuple(parameters)).fetchall()

    # -- documents: metrics, flags, segments, projects, context kinds, settings ------------------

    def _load_documents(self) -> None:
        for collection, project, key, body in self.rows(
            "SELECT collection, project, key, body FROM documents ORDER BY rowid"
        ):
            self._documents.setdefault((collection, project), {})[key] = json.loads(body)

    def documents(self, collection: str, project: str = "") -> list[Document]:
        """Return every document of a collection, oldest first; treat them as frozen."""
        with self._lock:
            return list(self._documents.get((collection, project), {}).values())

    def document(self, collection: str, project: str, key: str) -> Document | None:
        """Return one document or None; treat it as frozen."""
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
                "INSERT INTO documents VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET body = excluded.body",
                (collection, project, key, json.dumps(body)),
            )
            self._documents.setdefault((collection, project), {})[key] = body
            self.documents_revision += 1

    def add(self, collection: str, project: str, key: str, body: Document) -> bool:
        """Write one document unless its key is taken; return whether it was written."""
        with self._lock:
            if self.document(collection, project, key) is not None:
                return False
            self.put(collection, project, key, body)
            return True

    def remove(self, collection: str, project: str, key: str) -> bool:
        """Delete one document; return whether there was one."""
        with self.changing() as connection:
            connection.execute(
                "DELETE FROM documents WHERE collection = ? AND project = ? AND key = ?",
                (collection, project, key),
            )
            self.documents_revision += 1
            return self._documents.get((collection, project), {}).pop(key, None) is not None

    def forget_documents(self, *, keep: Iterable[str]) -> None:
        """Delete every document but those of some collections."""
        kept = tuple(keep)
        with self.changing() as connection:
            marks = ", ".join("?" * len(kept))
            sql = f"DELETE FROM documents WHERE collection NOT IN ({marks})"  # noqa: S608 - marks
            connection.execute(sql, kept)
            for place in [place for place in self._documents if place[0] not in kept]:
                del self._documents[place]
            self.documents_revision += 1


ROWS_AT_ONCE = (1024, 256, 64, 16, 4, 1)
"""Few lengths, so that every statement is prepared once."""


def insert_rows(connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]]) -> None:
    """Insert many rows in few statements.

    A statement gives up the interpreter lock once; `executemany` does for every row, and waits for
    whoever took it.

    Args:
        connection: in a transaction.
        into: such as `INSERT INTO names (space, name)`.
        rows: all of one length.
    """
    done = 0
    for many in ROWS_AT_ONCE:
        while len(rows) - done >= many:
            part = rows[done : done + many]
            sql = f"{into} VALUES {places(len(part[0]), many)}"
            connection.execute(sql, list(chain.from_iterable(part)))
            done += many


@lru_cache
def places(columns: int, rows: int) -> str:
    """Return the marks for so many values in so many rows."""
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)
