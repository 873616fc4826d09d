"""SqliteFile: one SQLite file with write-ahead logging, shared by threads and processes.

It is closed around a fork.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


class SqliteFile:
    """A file that is opened when it is first used. Safe for several threads.

    Args:
        path: made when it is absent, with its folder; readable by its owner only.
        schema: SQL statements that make the tables, each ended by a semicolon; they must not mind
            being run again.
        timeout: seconds that one `transaction` waits for other threads and processes in all.
        version: of the schema. A file of another version, or one that is corrupt, is set aside
            under a name that says why, and a new one takes its place; one with the tables of
            somebody else is left as it is, and refused. None: the file is taken as it is.
        on_set_aside: called with the reason and the new path of a file that was set aside.
        on_moved: called when the file was moved, deleted or replaced while it is open here.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        *,
        timeout: float = 0.25,
        version: int | None = None,
        on_set_aside: Callable[[str, Path], None] = lambda reason, path: None,
        on_moved: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._schema = schema
        self._tables = frozenset(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", schema))
        self._version = version
        self._on_set_aside = on_set_aside
        self._on_moved = on_moved
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._patience = 0
        """Milliseconds that the connection waits for other processes, as SQLite was told last."""

    @contextmanager
    def connection(self, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend the open connection to one thread.

        Args:
            writing: run the block as one write transaction: all of it or nothing.

        Raises:
            TimeoutError: other threads keep it busy.
            sqlite3.Error, OSError: the file cannot be opened, or is busy.
        """
        deadline = time.monotonic() + self._timeout
        if not self._lock.acquire(timeout=self._timeout):
            raise TimeoutError("other threads keep the SQLite file busy")
        try:
            connection = self._opened_by(deadline)
            if writing:
                connection.execute("BEGIN IMMEDIATE")
            yield connection
            if writing:
                connection.execute("COMMIT")
        except BaseException as error:
            self._undo(error)
            raise
        finally:
            self._lock.release()

    def _opened_by(self, deadline: float) -> sqlite3.Connection:
        """Return the connection, which waits for other processes until *deadline*."""
        connection, found = self._connection, inode(self.path)
        if connection is None:
            connection = self._connection = self._opened(deadline)
            self._inode = inode(self.path)
        elif found != self._inode:
            self._on_moved()
        patience = max(1, math.ceil((deadline - time.monotonic()) * 1000))
        if patience != self._patience:
            connection.execute(f"PRAGMA busy_timeout = {patience}")
            self._patience = patience
        return connection

    def _undo(self, error: BaseException) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if self._version is not None and _is_corrupt(error):
            self._close()
            self._set_aside("corrupt", self._inode)

    def _opened(self, deadline: float) -> sqlite3.Connection:
        before = inode(self.path)
        try:
            return self._connected(deadline)
        except _OtherVersionError as error:
            self._set_aside(f"version-{error}", before)
        except Exception as error:
            if self._version is None or not _is_corrupt(error):
                raise
            self._set_aside("corrupt", before)
        return self._connected(deadline)

    def _set_aside(self, reason: str, expected: tuple[int, int] | None) -> None:
        """Rename the file, unless another process has done so already."""
        if expected is None or inode(self.path) != expected:
            return
        aside = self.path.with_name(f"{self.path.name}.{reason}-{time.time_ns() // 1_000_000}")
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(f"{aside}{suffix}")
        self._on_set_aside(reason, aside)

    def foreign_tables(self, deadline: float | None = None) -> list[str]:
        """Return the names of tables that are somebody else's; empty when the file is ours, absent,
        or cannot be read.
        """
        import sqlite3

        if not self.path.is_file():
            return []
        try:
            # Read-only, and no journal is begun: it may be another program's.
            left = self._timeout if deadline is None else max(0.001, deadline - time.monotonic())
            address = f"{self.path.absolute().as_uri()}?mode=ro"
            reading = sqlite3.connect(address, uri=True, timeout=left)
        except sqlite3.Error:
            return []
        try:
            return self._foreign_tables(reading)
        except sqlite3.Error:
            return []
        finally:
            reading.close()

    def _foreign_tables(self, connection: sqlite3.Connection) -> list[str]:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        tables = {name for (name,) in connection.execute(query)}
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        is_later = version and tables >= self._tables
        return [] if is_later else sorted(tables - self._tables)

    def _check_version(self, connection: sqlite3.Connection) -> None:
        """Set the version of a new file.

        Raises:
            _OtherVersionError: the file is not new, and has another version.
        """
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if found != self._version and tables:
            raise _OtherVersionError(found)
        connection.execute(f"PRAGMA user_version = {self._version}")

    def _connected(self, deadline: float) -> sqlite3.Connection:
        import sqlite3

        if self._version is not None and (tables := self.foreign_tables(deadline)):
            raise sqlite3.OperationalError(f"holds tables of another program: {tables[0]:.60}")
        _create(self.path)
        connection = sqlite3.connect(
            self.path,
            timeout=max(0.001, deadline - time.monotonic()),
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._patience = 0
            _write_ahead(connection, deadline)
            # A commit survives `kill -9` without a sync; only a power cut may cost the last ones,
            # and never the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            if self._version is not None:
                self._check_version(connection)
            for statement in filter(str.strip, self._schema.split(";")):
                connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def pause(self) -> None:
        """Close before a fork: SQLite's connections must never be in two processes.

        Holds the lock until `resume` (in the parent) or `forked` (in the child).
        """
        self._lock.acquire()
        self._close()

    def resume(self) -> None:
        """Go on in the parent after a fork; the next use opens the file again."""
        self._lock.release()

    def forked(self) -> None:
        """Go on in the child after a fork."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _OtherVersionError(Exception):
    """A file has tables of another version of their schema."""


def _is_corrupt(error: BaseException) -> bool:
    """Tell whether SQLite says that a file is damaged, or no database; it has no class for that."""
    import sqlite3

    return type(error) is sqlite3.DatabaseError


def inode(path: Path) -> tuple[int, int] | None:
    """Return which file is at *path*, whatever it is called; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Only when new: closing a descriptor would drop this process's locks on the file.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _write_ahead(connection: sqlite3.Connection, deadline: float) -> None:
    """Turn on write-ahead logging; for this SQLite does not wait by itself for another process that
    does the same.
    """
    import sqlite3

    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
