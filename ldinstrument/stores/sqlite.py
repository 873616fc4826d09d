"""Sessions in a SQLite file: several workers of one host share them, and they outlive all of them.

Write-ahead logging, so that a reader never waits; a write is one short transaction, which a killed
worker leaves whole or not at all. The time is SQLite's.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..diagnostics import log_once
from .protocol import Delta, Ended, Holdings, Merged, Rules, Sealed
from .records import Gone, Record, closed, gone, merged, readable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS visitors (
    key TEXT PRIMARY KEY, gone INTEGER NOT NULL, due INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS visitors_due ON visitors (gone, due);
CREATE TABLE IF NOT EXISTS ended (
    place INTEGER PRIMARY KEY AUTOINCREMENT, due INTEGER NOT NULL, owner TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS ended_due ON ended (due);
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY, due INTEGER NOT NULL, body BLOB NOT NULL, events INTEGER NOT NULL, zipped INTEGER NOT NULL,
    attempts INTEGER NOT NULL, sealed_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS taken (key TEXT PRIMARY KEY, until INTEGER NOT NULL);
"""
_NOW = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
_PUT = (
    "INSERT INTO visitors (key, gone, due, text) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET gone = excluded.gone, due = excluded.due, text = excluded.text"
)
_AT = "SELECT text FROM ended WHERE place = ?"
_TAKE = (
    "INSERT INTO taken (key, until) VALUES (?, ?) "
    "ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE until <= ?"
)
_RELEASE = "DELETE FROM taken WHERE rowid IN (SELECT rowid FROM taken WHERE until <= ? LIMIT 100)"
_FORGET = (
    "DELETE FROM visitors WHERE rowid IN "
    "(SELECT rowid FROM visitors WHERE gone = 1 AND due <= ? ORDER BY due LIMIT 1000)"
)


class SqliteStore:
    """A store in a file.

    The connection is closed before a fork and opened again on either side: SQLite's must never be
        in two processes.

    Args:
        path: of the file; made when it is absent, readable by its owner only.
        rules: when a session is over; the same in every worker.
        timeout: seconds that a write waits for another worker's before it fails.
    """

    shared = True

    def __init__(
        self, path: str | Path, rules: Rules | None = None, *, timeout: float = 0.5
    ) -> None:
        self.rules = rules or Rules()
        self._path = Path(path)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    # -- open sessions ---------------------------------------------------------------------------
    def merge(self, key: str, delta: Delta) -> Merged | None:
        """Add *delta* to the open session of *key*, or open the next one when that is over. One
        transaction.
        """
        with self._writing() as (file, now, waited):
            (held,) = file.execute(
                "SELECT text FROM visitors WHERE key = ?", (key,)
            ).fetchone() or (None,)
            delta = delta.aged(waited)
            began = now - delta.started_ago
            over = gone(held, began)
            (waiting,) = (over and file.execute(_AT, (over.place,)).fetchone()) or (None,)
            outcome = merged(held, delta, now, self.rules, waiting)
            if outcome is None:
                return None
            for one in outcome.ended:
                outcome.following(_wait(file, one, now), began)
            record = outcome.record
            if over is not None and outcome.returns:
                file.execute("DELETE FROM ended WHERE place = ?", (over.place,))
            if (
                over is not None and outcome.stays
            ):  # who had claimed it finds at sealing that it is no longer his
                query = "UPDATE ended SET due = ?, owner = '', text = ? WHERE place = ?"
                file.execute(query, (now, record.text(), over.place))
            elif record.reason:
                self._move_on(file, key, record, now, began=began)
            else:
                file.execute(_PUT, (key, 0, record.deadline(self.rules), record.text()))
        return outcome.answer

    def end(self, key: str, reason: str, *, active: bool = False) -> str | None:
        """End the open session of *key* now. Returns its record; None when none is open."""
        with self._writing() as (file, now, _):
            row = file.execute("SELECT text FROM visitors WHERE key = ?", (key,)).fetchone()
            record, was_open = closed(row and row[0], now, reason, active, self.rules)
            if record is not None:
                self._move_on(file, key, record, now)
        return record.text() if record is not None and was_open else None

    def _move_on(
        self,
        file: sqlite3.Connection,
        key: str,
        record: Record,
        now: int,
        *,
        began: int | None = None,
    ) -> None:
        place = str(_wait(file, record, now))
        tombstone = Gone(record.id, now if began is None else began, place).text()
        file.execute(_PUT, (key, 1, now + int(self.rules.remember * 1000), tombstone))

    # -- ended sessions --------------------------------------------------------------------------
    def claim(self, limit: int, lease: float, owner: str) -> list[Ended]:
        """Hand out up to *limit* sessions that are over; nobody else is handed them for *lease*
        seconds.
        """
        with self._writing() as (file, now, _):
            self._retire(file, limit, now)
            query = "SELECT place, text FROM ended WHERE due <= ? ORDER BY due LIMIT ?"
            rows = file.execute(query, (now, limit)).fetchall()
            until = now + int(lease * 1000)
            file.executemany(
                "UPDATE ended SET due = ?, owner = ? WHERE place = ?",
                [(until, owner, place) for place, _ in rows],
            )
        return [Ended(str(place), text) for place, text in rows]

    def _retire(self, file: sqlite3.Connection, limit: int, now: int) -> None:
        """Forget who has been gone for long, and move on what has fallen silent."""
        file.execute(_FORGET, (now,))
        query = "SELECT key, text FROM visitors WHERE gone = 0 AND due <= ? ORDER BY due LIMIT ?"
        for key, text in file.execute(query, (now, limit)).fetchall():
            record = readable(text)
            if record is None:
                file.execute("DELETE FROM visitors WHERE key = ?", (key,))
            else:
                self._move_on(file, key, record, now)

    def seal(
        self, places: Sequence[str], sealed: Sequence[Sealed], lease: float, owner: str
    ) -> list[str]:
        """Put *sealed* in the place of the claimed sessions *places*, all or nothing; returns those
        that were lost.
        """
        with self._writing() as (file, now, _):
            query = "SELECT owner FROM ended WHERE place = ?"
            owners = {place: file.execute(query, (int(place),)).fetchone() for place in places}
            lost = [place for place, row in owners.items() if row is None or row[0] != owner]
            if not lost:
                file.executemany(
                    "DELETE FROM ended WHERE place = ?", [(int(place),) for place in places]
                )
                _keep(file, sealed, now, lease)
        return lost

    # -- sealed payloads -------------------------------------------------------------------------
    def claim_sealed(self, limit: int, lease: float, owner: str) -> list[Sealed]:
        """Hand out up to *limit* sealed payloads whose time has come."""
        with self._writing() as (file, now, _):
            columns = "id, body, events, zipped, attempts + 1, sealed_at"
            query = f"SELECT {columns} FROM outbox WHERE due <= ? ORDER BY due LIMIT ?"  # noqa: S608 - ours
            rows = file.execute(query, (now, limit)).fetchall()
            until = now + int(lease * 1000)
            file.executemany(
                "UPDATE outbox SET due = ?, attempts = attempts + 1 WHERE id = ?",
                [(until, row[0]) for row in rows],
            )
        return [
            Sealed(row[0], row[1], row[2], bool(row[3]), row[4], (now - row[5]) / 1000)
            for row in rows
        ]

    def acknowledge(self, payload_id: str) -> None:
        """Forget a payload."""
        with self._writing() as (file, _, _):
            file.execute("DELETE FROM outbox WHERE id = ?", (payload_id,))

    def postpone(self, payload_id: str, delay: float) -> None:
        """Let a payload be claimed again after *delay* seconds."""
        with self._writing() as (file, now, _):
            file.execute(
                "UPDATE outbox SET due = ? WHERE id = ?", (now + int(delay * 1000), payload_id)
            )

    def replace(self, payload_id: str, halves: Sequence[Sealed]) -> None:
        """Put *halves* in the place of a payload that was too large."""
        with self._writing() as (file, now, _):
            if file.execute("DELETE FROM outbox WHERE id = ?", (payload_id,)).rowcount:
                _keep(file, halves, now, 0.0)

    # -- what may happen once --------------------------------------------------------------------
    def once(self, key: str, ttl: float) -> bool:
        """Take *key* for *ttl* seconds; False when somebody has it already."""
        with self._writing() as (file, now, _):
            taken = file.execute(_TAKE, (key, now + int(ttl * 1000), now)).rowcount == 1
            file.execute(_RELEASE, (now,))
        return taken

    # -- life ------------------------------------------------------------------------------------
    def holdings(self) -> Holdings:
        """What the store holds now."""
        with self._locked() as file:
            (visitors,) = file.execute("SELECT count(*) FROM visitors WHERE gone = 0").fetchone()
            (ended,) = file.execute("SELECT count(*) FROM ended").fetchone()
            (sealed,) = file.execute("SELECT count(*) FROM outbox").fetchone()
        return Holdings(visitors, ended, sealed)

    def refuses(self, error: Exception) -> bool:
        """A busy, full or broken file may get well; anything else is about what was given."""
        return not isinstance(error, (sqlite3.Error, OSError)) or isinstance(
            error, (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError)
        )

    def pause(self) -> None:
        """Before a fork: close."""
        self._lock.acquire()
        self._close()

    def resume(self) -> None:
        """After it, in the parent; the next call opens."""
        self._lock.release()

    def forked(self) -> None:
        """In the child, likewise."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- the file --------------------------------------------------------------------------------
    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=self._timeout):
            raise TimeoutError("other threads keep the SQLite store busy")
        try:
            if self._connection is None:
                self._connection = _opened(self._path, self._timeout)
                self._file = _identity(self._path)
            elif _identity(self._path) != self._file:
                log_once(
                    "store_moved",
                    type(self).__name__,
                    "the SQLite file of the session store was moved, deleted or replaced while it "
                    "is in use: restart "
                    "all workers; until then they do not share their sessions",
                )
            yield self._connection
        finally:
            self._lock.release()

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, int, int]]:
        """One transaction, all of it or nothing; its time, and for how many milliseconds it waited
        for others.
        """
        asked = time.monotonic()
        with self._locked() as file:
            file.execute("BEGIN IMMEDIATE")
            try:
                waited = int((time.monotonic() - asked) * 1000)
                yield file, file.execute(_NOW).fetchone()[0], waited
                file.execute("COMMIT")
            except BaseException:
                if file.in_transaction:
                    file.execute("ROLLBACK")
                raise


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at *path*, whatever it is called; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _opened(path: Path, timeout: float) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(
        FileExistsError
    ):  # only when new: closing a descriptor would drop this process's locks on the file
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    file = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.executescript(_SCHEMA)
    except BaseException:
        file.close()
        raise
    return file


def _wait(file: sqlite3.Connection, record: Record, due: int) -> int | None:
    return file.execute(
        "INSERT INTO ended (due, owner, text) VALUES (?, '', ?)", (due, record.text())
    ).lastrowid


def _keep(file: sqlite3.Connection, payloads: Sequence[Sealed], now: int, lease: float) -> None:
    until = now + int(lease * 1000)
    file.executemany(
        "INSERT INTO outbox (id, due, body, events, zipped, attempts, sealed_at) VALUES (?, ?, ?, "
        "?, ?, 1, ?)",
        [
            (one.id, until, one.body, one.events, int(one.zipped), now - int(one.age * 1000))
            for one in payloads
        ],
    )
