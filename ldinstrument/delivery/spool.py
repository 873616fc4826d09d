"""What outlives the process: undelivered events in a folder, one SQLite file per event processor.

A file is written by one process only. It is another's to empty when its writer is dead; then the
payloads move, bytes and payload ids unchanged, so that LaunchDarkly counts them once whoever
delivers them. Files hold no SDK key, only a digest of it: what was recorded for one environment is
not delivered to another, unless LaunchDarkly had refused the key, which then has been changed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diagnostics import log_once
from .payloads import Payload, join

if TYPE_CHECKING:
    import sqlite3


_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (origin TEXT, refused INTEGER);
CREATE TABLE IF NOT EXISTS drafts (place INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS payloads (
    id TEXT PRIMARY KEY, body BLOB NOT NULL, events INTEGER, custom INTEGER, zipped INTEGER, sealed_at REAL
);
"""
_LEFT = "left"


class Spool:
    """The file of one event processor. Safe for several threads; every method may raise `OSError`
    or `sqlite3.Error`.

    Args:
        folder: made when it is absent.
        origin: a digest of where its events belong, see `orphans.origin_of`.
    """

    def __init__(self, folder: str | Path, origin: str) -> None:
        self._folder = Path(folder)
        self._origin = origin
        self._lock = threading.Lock()
        self._path = (
            self._folder / f"{os.getpid()}-{_started(os.getpid())}-{uuid.uuid4().hex[:8]}.events"
        )
        self._open: sqlite3.Connection | None = None
        self.ended = False

    def draft(self, texts: Iterable[str]) -> None:
        """Keep events, each as JSON text, that are not sealed yet."""
        with self._writing() as file:
            file.executemany("INSERT INTO drafts (text) VALUES (?)", [(text,) for text in texts])

    def seal(self, payloads: Iterable[Payload]) -> None:
        """Keep *payloads* in the place of every draft."""
        payloads = list(payloads)
        with self._writing() as file:
            _insert(file, payloads)
            file.execute("DELETE FROM drafts")
        for payload in payloads:
            payload.stored = True

    def replace(self, payload: Payload, heirs: Iterable[Payload]) -> None:
        """Keep *heirs* in the place of *payload*."""
        with self._writing() as file:
            _insert(file, heirs)
            file.execute("DELETE FROM payloads WHERE id = ?", (payload.id,))

    def forget(self, payloads: Iterable[Payload]) -> None:
        """Let go of what has been delivered or dropped."""
        with self._writing() as file:
            file.executemany(
                "DELETE FROM payloads WHERE id = ?", [(payload.id,) for payload in payloads]
            )

    def refused(self) -> None:
        """Note that LaunchDarkly refuses the key of these events."""
        with self._writing() as file:
            file.execute("UPDATE about SET refused = 1")

    def adopt(self, room: int, max_age: float, *, one_at_least: bool = False) -> list[Payload]:
        """Take over what dead processes left; what is older than *max_age* seconds goes.

        Args:
            room: how many bytes at most.
            max_age: in seconds.
            one_at_least: when nothing fits, take one that does not: nothing else would ever empty
                its file.
        """
        found: list[Payload] = []
        for log in self._folder.glob("*.events-*"):
            if not log.with_name(log.name.rpartition("-")[0]).exists():
                log.unlink(missing_ok=True)
        for path in sorted(self._folder.glob("*.events")) if self._folder.is_dir() else ():
            if path != self._path and not _writer_lives(path):
                left = room - sum(len(payload.body) for payload in found)
                found += self._empty(path, left, max_age, one_at_least and not found)
        return found

    def pause(self) -> None:
        """Before a fork: a connection must not be in two processes. The next write opens it
        again.
        """
        self._lock.acquire()
        self._close()

    def resume(self) -> None:
        """After the fork, in the parent."""
        self._lock.release()

    def end(self) -> None:
        """Close; what is still inside is left for the next processor, in this process or
        another.
        """
        with self._lock:
            self.ended = True
            if self._open is None:
                return
            kept = self._open.execute(
                "SELECT (SELECT count(*) FROM payloads) + (SELECT count(*) FROM drafts)"
            )
            left = kept.fetchone()[0]
            self._close()
            if self._path.with_name(self._path.name + "-wal").exists():
                return  # the disk is full: the next process takes the file over with its log, under its own name
            if left:
                self._path.replace(self._folder / f"{_LEFT}-{uuid.uuid4().hex}.events")
            else:
                _remove(self._path)

    # -- files -------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self.ended:
                raise OSError("the spool has ended")
            if self._open is None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._open = _opened(self._path)
                self._open.executescript(_SCHEMA)
                if not self._open.execute("SELECT 1 FROM about").fetchone():
                    self._open.execute("INSERT INTO about VALUES (?, 0)", (self._origin,))
                    self._open.commit()
            with self._open:
                yield self._open

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _empty(self, path: Path, room: int, max_age: float, one_at_least: bool) -> list[Payload]:
        import sqlite3

        try:
            with contextlib.closing(_opened(path)) as file:
                found = self._taken(file, room, max_age, one_at_least)
                if file.execute("SELECT count(*) FROM payloads").fetchone()[0]:
                    return found
            _remove(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                if "locked" not in str(error):
                    log_once(
                        "spool_left",
                        type(error).__name__,
                        f"a spool file in {self._folder} cannot be taken over ({error})",
                    )
            else:  # not a database: nobody can read it, so nobody shall trip again
                broken = path.with_suffix(".broken")
                path.replace(broken)
                log_once(
                    "spool_broken",
                    "",
                    f"a spool file could not be read; it is now {broken}, and its events are lost",
                )
            return []
        return found

    def _taken(
        self, file: sqlite3.Connection, room: int, max_age: float, one_at_least: bool
    ) -> list[Payload]:
        file.executescript(_SCHEMA)  # its writer may have died before it had made the tables
        origin, refused = file.execute("SELECT origin, refused FROM about").fetchone() or (
            self._origin,
            0,
        )
        horizon = time.time() - max_age
        with file:
            file.execute("DELETE FROM payloads WHERE sealed_at < ?", (horizon,))
            _seal_drafts(file)
        if origin != self._origin and not refused:
            return []
        taken = list(_payloads(file, room, one_at_least))
        with self._writing() as own:
            _insert(own, taken)
        for payload in taken:
            payload.stored = True
        with file:  # in this order: killed in between, both files hold the same payload ids
            file.executemany(
                "DELETE FROM payloads WHERE id = ?", [(payload.id,) for payload in taken]
            )
        return taken


def _opened(path: Path) -> sqlite3.Connection:
    import sqlite3

    file = sqlite3.connect(path, timeout=0, check_same_thread=False)
    try:
        file.execute("PRAGMA locking_mode=EXCLUSIVE")
        file.execute("PRAGMA journal_mode=WAL")
        # A commit survives `kill -9` without a sync; only a power cut may cost the last ones, and
        # never the file.
        file.execute("PRAGMA synchronous=NORMAL")
        file.execute("BEGIN IMMEDIATE")
        file.commit()
    except BaseException:
        file.close()
        raise
    return file


def _insert(file: sqlite3.Connection, payloads: Iterable[Payload]) -> None:
    rows = [
        (one.id, one.body, one.events, one.custom, one.zipped, one.sealed_at) for one in payloads
    ]
    file.executemany("INSERT OR IGNORE INTO payloads VALUES (?, ?, ?, ?, ?, ?)", rows)


def _payloads(file: sqlite3.Connection, room: int, one_at_least: bool) -> Iterator[Payload]:
    """The oldest that fit into *room*; one that does not holds up nobody behind it."""
    large = None
    for row in file.execute(
        "SELECT id, body, events, custom, zipped, sealed_at FROM payloads ORDER BY sealed_at"
    ):
        payload = _payload(row)
        if len(payload.body) > room:
            large = large or payload
            continue
        room -= len(payload.body)
        one_at_least = False
        yield payload
    if one_at_least and large is not None:
        yield large


def _payload(row: tuple[Any, ...]) -> Payload:
    id, body, events, custom, zipped, sealed_at = row
    age = max(0.0, time.time() - sealed_at)  # a clock set back must not make it immortal, nor older
    return Payload(body, events, custom, bool(zipped), id, sealed_at, time.monotonic() - age)


def _seal_drafts(file: sqlite3.Connection) -> None:
    texts = [text for (text,) in file.execute("SELECT text FROM drafts ORDER BY place")]
    if texts:
        _insert(file, [join(texts, zipped=False)])
        file.execute("DELETE FROM drafts")


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _writer_lives(path: Path) -> bool:
    pid, _, rest = path.name.partition("-")
    if pid == _LEFT or not pid.isdigit():
        return False
    return _started(int(pid)) == rest.partition("-")[0]


def _started(pid: int) -> str:
    """When process *pid* started, so that a number used again is not taken for the same process; ""
    when it is dead.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "0"
