"""SqliteStore: sessions in a file; the workers of one host share them, and they outlive these.

A write is one short transaction, which a killed worker leaves whole or not at all. The time is
SQLite's.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from ..diagnostics import log_once
from ..errors import DefinitionError
from .compaction import compact
from .protocol import Delta, Ended, Holdings, Merged, Rules, Sealed
from .records import (
    PLACES_PER_WINDOW,
    Record,
    close,
    merge,
    readable,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS visitors (
    key TEXT PRIMARY KEY, gone INTEGER NOT NULL, due INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS visitors_due ON visitors (gone, due);
CREATE TABLE IF NOT EXISTS ended (
    place INTEGER PRIMARY KEY, due INTEGER NOT NULL, owner TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS ended_due ON ended (due);
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY, due INTEGER NOT NULL, body BLOB NOT NULL, events INTEGER NOT NULL,
    zipped INTEGER NOT NULL, attempts INTEGER NOT NULL, sealed_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS taken (key TEXT PRIMARY KEY, until INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS counters (
    row INTEGER PRIMARY KEY CHECK (row = 1), places INTEGER NOT NULL, clock INTEGER NOT NULL,
    correction INTEGER NOT NULL
);
INSERT OR IGNORE INTO counters VALUES (1, 0, 0, 0);
"""
_NOW = (
    "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER), clock, correction "
    "FROM counters"
)
_FIRST_ENDED = "SELECT min(place) FROM ended WHERE due <= ? AND place < ?"
_ENDED = "SELECT place, text FROM ended WHERE due <= ? AND place < ? ORDER BY place LIMIT ?"
_HELD = "SELECT text FROM visitors WHERE key = ?"
_PUT = (
    "INSERT INTO visitors (key, gone, due, text) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET gone = excluded.gone, due = excluded.due, text = excluded.text"
)
_WAITING = "SELECT text FROM ended WHERE place = ?"
_TAKE = (
    "INSERT INTO taken (key, until) VALUES (?, ?) "
    "ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE until <= ?"
)
_RELEASE = "DELETE FROM taken WHERE rowid IN (SELECT rowid FROM taken WHERE until <= ? LIMIT 100)"
_FORGET = (
    "DELETE FROM visitors WHERE rowid IN "
    "(SELECT rowid FROM visitors WHERE gone = 1 AND due <= ? ORDER BY due LIMIT 1000)"
)
_SILENT = "SELECT key, text FROM visitors WHERE gone = 0 AND due <= ? ORDER BY due LIMIT ?"
_OPEN = "SELECT key, text FROM visitors WHERE gone = 0 AND key > ? ORDER BY key LIMIT 500"
_OUTBOX = (
    "SELECT id, body, events, zipped, attempts + 1, sealed_at FROM outbox "
    "WHERE due <= ? ORDER BY due LIMIT ?"
)
_KEEP = (
    "INSERT INTO outbox (id, body, events, zipped, due, attempts, sealed_at) "
    "VALUES (?, ?, ?, ?, ?, 1, ?)"
)
VERSION = 2
"""Of the tables, and of the records in them."""
CLOCK_PRECISION = 1000
"""Milliseconds: the clock is written down once per second, for a time set back to be noticed."""


class SqliteStore:
    """A store in a file.

    Args:
        path: of the file; made when it is absent, readable by its owner only.
        rules: when a session is over; the same in every worker.
        timeout: seconds that a call waits for other threads and workers before it fails.
    """

    shared = True

    def __init__(
        self, path: str | Path, rules: Rules | None = None, *, timeout: float = 0.25
    ) -> None:
        self.rules = rules or Rules()
        self._file = SqliteFile(
            Path(path),
            _SCHEMA,
            timeout=timeout,
            version=VERSION,
            on_set_aside=_say_set_aside,
            on_moved=_say_moved,
        )

    # -- open sessions ---------------------------------------------------------------------------
    def merge(self, key: str, delta: Delta) -> Merged | None:
        """Add *delta* to the open session of *key*, or open the next one when that is over. One
        transaction.
        """
        with self._writing() as (file, now, waited):
            delta = delta.aged(waited) if waited else delta
            began = now - delta.started_ago
            (held,) = file.execute(_HELD, (key,)).fetchone() or (None,)
            result = merge(held, delta, now, self.rules, partial(_waiting_at, file))
            if result is None:
                return None

            if result.ended is not None:
                result.follow(self._add_ended(file, result.ended, now), began)
            if result.keeps_place:
                # A sweeper that claimed it will lose the claim when it seals.
                query = "UPDATE ended SET due = 0, owner = '', text = ? WHERE place = ?"
                file.execute(query, (result.record.text(), result.place))
                return result.answer

            if result.place:
                file.execute("DELETE FROM ended WHERE place = ?", (result.place,))
            record = result.record
            if record.reason:
                self._add_ended(file, record, now, key, began)
                return result.answer
            for part in compact(record) if result.is_long else ():
                self._add_ended(file, part, now)
            file.execute(_PUT, (key, 0, record.deadline(self.rules), record.text()))
        return result.answer

    def end(
        self, key: str, reason: str, *, over: int | None = None, active: bool = False
    ) -> str | None:
        """End the open session of *key* now; return its record, None when none is open."""
        with self._writing() as (file, now, _):
            row = file.execute(_HELD, (key,)).fetchone()
            record, was_open = close(row and row[0], now, reason, over, active, self.rules)
            if record is not None:
                self._add_ended(file, record, now, key)
        return record.text() if record is not None and was_open else None

    def _add_ended(
        self,
        file: sqlite3.Connection,
        record: Record,
        now: int,
        key: str | None = None,
        began: int | None = None,
    ) -> int:
        """Let *record* wait to be sealed; return its place.

        Args:
            file: inside a transaction.
            record: of a session that has ended, or of a part that leaves early.
            now: the time.
            key: whose session it is that ends: a tombstone takes its place.
            began: when the end began, if that was earlier.
        """
        file.execute("UPDATE counters SET places = places + 1")
        (number,) = file.execute("SELECT places FROM counters").fetchone()
        place, tombstone = record.place_and_tombstone(number, now, self.rules, began)
        query = "INSERT INTO ended (place, due, owner, text) VALUES (?, 0, '', ?)"
        file.execute(query, (place, record.text()))
        if key is not None:
            file.execute(_PUT, (key, 1, now + int(self.rules.remember * 1000), tombstone))
        return place

    # -- ended sessions --------------------------------------------------------------------------
    def claim(self, limit: int, lease: float, owner: str, *, early: bool = True) -> list[Ended]:
        """Hand out sessions that are over, of one batch; nobody else is handed them for *lease*
        seconds.
        """
        with self._writing() as (file, now, _):
            # Forget tombstones that are too old, and move on what has fallen silent.
            file.execute(_FORGET, (now,))
            for key, text in file.execute(_SILENT, (now, limit)).fetchall():
                record = readable(text)
                if record is None:
                    file.execute("DELETE FROM visitors WHERE key = ?", (key,))
                else:
                    self._add_ended(file, record, now, key)

            # Of the oldest batch there is; that of the current window may still grow.
            window = now // int(self.rules.window * 1000) * PLACES_PER_WINDOW
            end = window + PLACES_PER_WINDOW if early else window
            (first,) = file.execute(_FIRST_ENDED, (now, end)).fetchone()
            if first is None:
                return []
            end = min(end, first - first % PLACES_PER_WINDOW + PLACES_PER_WINDOW)
            rows = file.execute(_ENDED, (now, end, limit)).fetchall()
            until = now + int(lease * 1000)
            file.executemany(
                "UPDATE ended SET due = ?, owner = ? WHERE place = ?",
                [(until, owner, place) for place, _ in rows],
            )
        return [Ended(str(place), text) for place, text in rows]

    def end_silent(self) -> int:
        """End every session that is over by these rules; return how many."""
        ended, last = 0, ""
        while True:
            with self._writing() as (file, now, _):
                rows = file.execute(_OPEN, (last,)).fetchall()
                for key, text in rows:
                    record = readable(text)
                    if record is not None and record.deadline(self.rules) <= now:
                        self._add_ended(file, record, now, key)
                        ended += 1
            if not rows:
                return ended
            last = rows[-1][0]

    def seal(
        self, places: Sequence[str], sealed: Sequence[Sealed], lease: float, owner: str
    ) -> list[str]:
        """Put *sealed* in the place of the claimed sessions *places*, all or nothing; return those
        that were lost.
        """
        with self._writing() as (file, now, _):
            query = "SELECT owner FROM ended WHERE place = ?"
            owners = {place: file.execute(query, (int(place),)).fetchone() for place in places}
            lost = [place for place, row in owners.items() if row is None or row[0] != owner]
            if not lost:
                numbers = [(int(place),) for place in places]
                file.executemany("DELETE FROM ended WHERE place = ?", numbers)
                until = now + int(lease * 1000)
                for payload in sealed:
                    kept = payload.id, payload.body, payload.events, payload.zipped, until
                    file.execute(_KEEP, (*kept, now - int(payload.age * 1000)))
        return lost

    # -- sealed payloads -------------------------------------------------------------------------
    def claim_sealed(self, limit: int, lease: float, owner: str) -> list[Sealed]:
        """Hand out up to *limit* sealed payloads whose time has come."""
        with self._writing() as (file, now, _):
            rows = file.execute(_OUTBOX, (now, limit)).fetchall()
            until = now + int(lease * 1000)
            file.executemany(
                "UPDATE outbox SET due = ?, attempts = attempts + 1 WHERE id = ?",
                [(until, row[0]) for row in rows],
            )
        return [
            Sealed(id, body, events, bool(zipped), attempts, (now - sealed_at) / 1000)
            for id, body, events, zipped, attempts, sealed_at in rows
        ]

    def acknowledge(self, payload_id: str) -> None:
        """Forget a payload."""
        with self._writing() as (file, _, _):
            file.execute("DELETE FROM outbox WHERE id = ?", (payload_id,))

    def postpone(self, payload_id: str, delay: float) -> None:
        """Let a payload be claimed again after *delay* seconds."""
        with self._writing() as (file, now, _):
            due = now + int(delay * 1000)
            file.execute("UPDATE outbox SET due = ? WHERE id = ?", (due, payload_id))

    def replace(self, payload_id: str, halves: Sequence[Sealed]) -> None:
        """Put *halves* in the place of a payload that was too large."""
        with self._writing() as (file, now, _):
            if file.execute("DELETE FROM outbox WHERE id = ?", (payload_id,)).rowcount:
                for half in halves:
                    kept = half.id, half.body, half.events, half.zipped, now
                    file.execute(_KEEP, (*kept, now - int(half.age * 1000)))

    # -- what may happen once --------------------------------------------------------------------
    def once(self, key: str, ttl: float) -> bool:
        """Take *key* for *ttl* seconds; False when somebody has it already."""
        with self._writing() as (file, now, _):
            taken = file.execute(_TAKE, (key, now + int(ttl * 1000), now)).rowcount == 1
            file.execute(_RELEASE, (now,))
        return taken

    # -- life ------------------------------------------------------------------------------------
    def holdings(self) -> Holdings:
        """Return what the store holds now."""
        with self._file.connection() as file:
            (visitors,) = file.execute("SELECT count(*) FROM visitors WHERE gone = 0").fetchone()
            (ended,) = file.execute("SELECT count(*) FROM ended").fetchone()
            (sealed,) = file.execute("SELECT count(*) FROM outbox").fetchone()
        return Holdings(visitors, ended, sealed)

    def end_unshared(self, reason: str) -> int:
        """Return 0: other processes see these sessions."""
        return 0

    def check(self) -> None:
        """Look into a file that is there; it is opened when it is first used.

        Raises:
            DefinitionError: it is somebody else's.
        """
        if tables := self._file.foreign_tables():
            raise DefinitionError(
                f"sqlite: {self._file.path} is another program's database (it has a table "
                f"{tables[0]:.60}): give the sessions a file of their own"
            )

    def refuses(self, error: Exception) -> bool:
        """Tell whether *error* is about what was given: a busy, full or broken file may recover."""
        return not isinstance(error, (sqlite3.Error, OSError)) or isinstance(
            error, (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError)
        )

    def pause(self) -> None:
        """Close the file before a fork."""
        self._file.pause()

    def resume(self) -> None:
        """Go on in the parent after a fork."""
        self._file.resume()

    def forked(self) -> None:
        """Go on in the child after a fork."""
        self._file.forked()

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, int, int]]:
        """Run one transaction; lend its time, and the milliseconds that it waited for others.

        The time is SQLite's. Set back by somebody, it goes on from where it was: else what is idle
        or leased would stay so for as long as the clock was set back.
        """
        asked = time.monotonic()
        with self._file.connection(writing=True) as file:
            waited = int((time.monotonic() - asked) * 1000)
            wall, clock, correction = file.execute(_NOW).fetchone()
            now: int = wall + correction
            if now < clock - CLOCK_PRECISION:
                now = clock
            known = clock - CLOCK_PRECISION <= now < clock + CLOCK_PRECISION
            if not known or now - wall != correction:
                query = "UPDATE counters SET clock = ?, correction = ?"
                file.execute(query, (now, now - wall))
            yield file, now, waited


def _waiting_at(file: sqlite3.Connection, place: str) -> str | None:
    (text,) = file.execute(_WAITING, (place,)).fetchone() or (None,)
    return text


def _say_set_aside(reason: str, path: Path) -> None:
    log_once(
        "store_set_aside",
        str(path),
        f"the SQLite file of the session store is {reason.replace('-', ' ')} (this is version "
        f"{VERSION}): it is now {path}, and a new one was begun; what it held is not reported",
    )


def _say_moved() -> None:
    log_once(
        "store_moved",
        "SqliteStore",
        "the SQLite file of the session store was moved, deleted or replaced while it is in use: "
        "restart all workers; until then they do not share their sessions",
    )


# -- the file --------------------------------------------------------------------------------------


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
        self._busy_timeout = 0
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
            connection = self._connection
            if connection is None:
                connection = self._connection = self._opened(deadline)
                self._inode = _inode(self.path)
            elif self._inode != _inode(self.path):
                self._on_moved()
            # Other processes are waited for until the same deadline.
            busy_timeout = max(1, math.ceil((deadline - time.monotonic()) * 1000))
            if busy_timeout != self._busy_timeout:
                connection.execute(f"PRAGMA busy_timeout = {busy_timeout}")
                self._busy_timeout = busy_timeout

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

    def _undo(self, error: BaseException) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if self._version is not None and _is_corrupt(error):
            self._close()
            self._set_aside("corrupt", self._inode)

    def _opened(self, deadline: float) -> sqlite3.Connection:
        before = _inode(self.path)
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
        aside = self.path.with_name(f"{self.path.name}.{reason}-{time.time_ns() // 1_000_000}")
        with _locked(self.path):
            if expected is None or _inode(self.path) != expected:
                return
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).rename(f"{aside}{suffix}")
        self._on_set_aside(reason, aside)

    def foreign_tables(self, deadline: float | None = None) -> list[str]:
        """Return the names of tables that are somebody else's; empty when the file is ours, absent,
        or cannot be read.
        """
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
            self._busy_timeout = 0
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
    return type(error) is sqlite3.DatabaseError


def _inode(path: Path) -> tuple[int, int] | None:
    """Return which file is at *path*, whatever it is called; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
