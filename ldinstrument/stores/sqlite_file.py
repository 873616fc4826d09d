"""SqliteFile: the file of a SQLite store as it is on the disk: made, opened, moved, set aside."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os.path import samestat
from pathlib import Path

from ..diagnostics import log_once


class SqliteFile:
    """A file of tables. One of another version, or one that is corrupt, is set aside under a name
    that says why, and a new one takes its place; one with the tables of somebody else is left as it
    is, and refused.

    Args:
        path: made when it is absent, with its folder; readable by its owner only.
        schema: SQL statements that make the tables, each ended by a semicolon; they must not mind
            being run again.
        version: of the schema.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        self._schema = schema
        self._tables = frozenset(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", schema))
        self._version = version

    def open(self, deadline: float) -> sqlite3.Connection:
        """Open the file, by *deadline* (a reading of `time.monotonic`).

        Raises:
            sqlite3.Error, OSError: it cannot be opened, or is busy.
        """
        before = self.path.stat() if self.path.exists() else None
        try:
            return self._connected(deadline)
        except _OtherVersionError as error:
            self.set_aside(f"version-{error}", before)
        except Exception as error:
            if not is_corrupt(error):
                raise
            self.set_aside("corrupt", before)
        return self._connected(deadline)

    def set_aside(self, reason: str, found: os.stat_result | None) -> None:
        """Rename the file for *reason*, if it is still the one that was *found*: another process
        may have done so already.
        """
        aside = self.path.with_name(f"{self.path.name}.{reason}-{time.time_ns() // 1_000_000}")
        with _locked(self.path):
            if found is None or not self.path.exists() or not samestat(self.path.stat(), found):
                return
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).rename(f"{aside}{suffix}")
        self._say_set_aside(reason, aside)

    def _say_set_aside(self, reason: str, aside: Path) -> None:
        log_once(
            "store_set_aside",
            str(aside),
            f"the SQLite file of the session store is {reason.replace('-', ' ')} (this is version "
            f"{self._version}): it is now {aside}, and a new one was begun; what it held is not "
            "reported",
        )

    def foreign_tables(self, deadline: float | None = None) -> list[str]:
        """Return the names of tables that are somebody else's; empty when the file is ours, absent,
        or cannot be read.
        """
        if not self.path.is_file():
            return []
        try:
            # Read-only, and no journal is begun: it may be another program's.
            left = 0.25 if deadline is None else max(0.001, deadline - time.monotonic())
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
        if tables := self.foreign_tables(deadline):
            raise sqlite3.OperationalError(f"holds tables of another program: {tables[0]:.60}")
        _create(self.path)
        connection = sqlite3.connect(
            self.path,
            timeout=max(0.001, deadline - time.monotonic()),
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _write_ahead(connection, deadline)
            # A commit survives `kill -9` without a sync; only a power cut may cost the last ones,
            # and never the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            self._check_version(connection)
            for statement in filter(str.strip, self._schema.split(";")):
                connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection


class _OtherVersionError(Exception):
    """A file has tables of another version of their schema."""


def is_corrupt(error: BaseException) -> bool:
    """Tell whether SQLite says that a file is damaged, or no database; it has no class for that."""
    return type(error) is sqlite3.DatabaseError


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file at *path*, whatever it is called afterwards: of several workers that find it
    broken, only one may set it aside; another one's rename would hit the new file.
    """
    try:
        import fcntl

        file = path.open("rb")
    except (ImportError, OSError):  # Windows; or it is gone
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Only when new: closing a descriptor would drop this process's locks on the file.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _write_ahead(connection: sqlite3.Connection, deadline: float) -> None:
    """Turn on write-ahead logging; for this SQLite does not wait by itself for another process that
    does the same.
    """
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
