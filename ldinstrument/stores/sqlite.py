"""SqliteStore: sessions in a file; the workers of one host share them, and they outlive these.

Each call is one short transaction, which a killed worker leaves whole or not at all. The time is
SQLite's. How the file is made, opened and set aside is in `sqlite_file`.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os.path import samestat
from pathlib import Path

from ..diagnostics import log_once, raise_if_interrupted
from ..errors import DefinitionError
from .compaction import compact
from .protocol import Delta, Ended, Holdings, Merged, Rules, Sealed
from .records import PLACES_PER_WINDOW, Record, close, merge, readable
from .sqlite_file import SqliteFile, is_corrupt

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
    """A store in a file, which is opened when it is first used. Safe for several threads.

    Args:
        path: of the file; made when it is absent, readable by its owner only.
        rules: when a session is over; the same in every worker.
        timeout: seconds that a call waits for other threads and workers, in all, before it fails.
    """

    shared = True

    def __init__(
        self, path: str | Path, rules: Rules | None = None, *, timeout: float = 0.25
    ) -> None:
        self.rules = rules or Rules()
        self._file = SqliteFile(Path(path), _SCHEMA, VERSION)
        self._timeout = timeout
        self._lock = threading.RLock()
        self._user = 0
        """The thread in a transaction (`threading.get_ident`); 0 when none is."""
        self._connection: sqlite3.Connection | None = None
        self._opened: os.stat_result
        """Which file it is, whatever it is called by now."""
        self._busy_timeout = 0
        """Milliseconds that the connection waits for other processes, as SQLite was told last."""

    # -- open sessions ---------------------------------------------------------------------------
    def merge(self, key: str, delta: Delta) -> Merged | None:
        """Add *delta* to the open session of *key*, or open the next one when that is over. One
        transaction.
        """
        with self._transaction() as (file, now, waited):
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
        with self._transaction() as (file, now, _):
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
        with self._transaction() as (file, now, _):
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
            with self._transaction() as (file, now, _):
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
        with self._transaction() as (file, now, _):
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
        with self._transaction() as (file, now, _):
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
        with self._transaction() as (file, _, _):
            file.execute("DELETE FROM outbox WHERE id = ?", (payload_id,))

    def postpone(self, payload_id: str, delay: float) -> None:
        """Let a payload be claimed again after *delay* seconds."""
        with self._transaction() as (file, now, _):
            due = now + int(delay * 1000)
            file.execute("UPDATE outbox SET due = ? WHERE id = ?", (due, payload_id))

    def replace(self, payload_id: str, halves: Sequence[Sealed]) -> None:
        """Put *halves* in the place of a payload that was too large."""
        with self._transaction() as (file, now, _):
            if file.execute("DELETE FROM outbox WHERE id = ?", (payload_id,)).rowcount:
                for half in halves:
                    kept = half.id, half.body, half.events, half.zipped, now
                    file.execute(_KEEP, (*kept, now - int(half.age * 1000)))

    # -- what may happen once --------------------------------------------------------------------
    def once(self, key: str, ttl: float) -> bool:
        """Take *key* for *ttl* seconds; False when somebody has it already."""
        with self._transaction() as (file, now, _):
            taken = file.execute(_TAKE, (key, now + int(ttl * 1000), now)).rowcount == 1
            file.execute(_RELEASE, (now,))
        return taken

    # -- life ------------------------------------------------------------------------------------
    def holdings(self) -> Holdings:
        """Return what the store holds now."""
        with self._transaction() as (file, _, _):
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

    def refuses(self, error: BaseException) -> bool:
        """Tell whether *error* is about what was given: a busy, full or broken file may recover."""
        return not isinstance(error, (sqlite3.Error, OSError)) or isinstance(
            error, (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError)
        )

    def pause(self) -> None:
        """Close the file before a fork: SQLite's connections must never be in two processes.

        Holds the lock until `resume` (in the parent) or `forked` (in the child).
        """
        self._lock.acquire()
        self._disconnect()

    def resume(self) -> None:
        """Go on in the parent after a fork; the next call opens the file again."""
        self._lock.release()

    def forked(self) -> None:
        """Go on in the child after a fork."""
        self._lock, self._user = threading.RLock(), 0

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._disconnect()

    # -- transactions ----------------------------------------------------------------------------
    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, int, int]]:
        """Run the block as one transaction, all of it or nothing; lend the connection to this
        thread, with the time and the milliseconds that it waited for others.

        The time is SQLite's. Set back by somebody, it goes on from where it was: else what is idle
        or leased would stay so for as long as the clock was set back.

        Raises:
            TimeoutError: other threads keep it busy.
            sqlite3.Error, OSError: the file cannot be opened, or is busy.
        """
        asked = time.monotonic()
        me = threading.get_ident()
        if self._user == me:
            raise TimeoutError("what a signal's handler has interrupted keeps the SQLite file busy")
        # The handler may raise when the lock has been taken, before this function knows. Whose it
        # is, the lock can tell; no call may come before its release.
        try:
            if not self._lock.acquire(timeout=self._timeout):
                raise TimeoutError("other threads keep the SQLite file busy")
            self._user = me
            file = self._connection or self._connect(asked + self._timeout)
            try:
                moved = not samestat(self._file.path.stat(), self._opened)
            except OSError as error:
                raise_if_interrupted(error)
                moved = True
            if moved:
                _say_moved()

            # Other processes are waited for until the same deadline.
            left = asked + self._timeout - time.monotonic()
            busy_timeout = max(1, math.ceil(left * 1000))
            if busy_timeout != self._busy_timeout:
                file.execute(f"PRAGMA busy_timeout = {busy_timeout}")
                self._busy_timeout = busy_timeout
            file.execute("BEGIN IMMEDIATE")
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
            file.execute("COMMIT")
        except BaseException as error:
            if self._user == me:
                self._undo(error)
            raise
        finally:
            if self._user == me:
                self._user = 0
            try:
                self._lock.release()
            except RuntimeError:  # it is another thread's
                pass

    def _connect(self, deadline: float) -> sqlite3.Connection:
        connection = self._file.open(deadline)
        self._opened, self._busy_timeout = self._file.path.stat(), 0
        self._connection = connection
        return connection

    def _undo(self, error: BaseException) -> None:
        """Leave nothing of a transaction that failed; a file that is damaged is set aside."""
        if self._connection is None:
            return
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if is_corrupt(error):
            self._disconnect()
            self._file.set_aside("corrupt", self._opened)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _waiting_at(file: sqlite3.Connection, place: str) -> str | None:
    (text,) = file.execute(_WAITING, (place,)).fetchone() or (None,)
    return text


def _say_moved() -> None:
    log_once(
        "store_moved",
        "SqliteStore",
        "the SQLite file of the session store was moved, deleted or replaced while it is in use: "
        "restart all workers; until then they do not share their sessions",
    )
