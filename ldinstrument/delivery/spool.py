"""The spool: undelivered events in a folder that outlive the process, one file per event processor.
Nothing is sent from here: `sender.py` posts, and posts again later.

A file is written by one process only, which holds a lock as long as it lives, also across forks and
containers. When its writer is dead another one takes the payloads over, bytes and payload ids
unchanged, so that LaunchDarkly counts them once whoever delivers them. Files hold no SDK key, only
a digest of it: what was recorded for one environment is not delivered to another, unless
LaunchDarkly had refused the key, which then has been changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..diagnostics import log_once
from .event_json import Payload, exposures_among, join_drafts
from .file_lock import FileLock, is_free
from .transport import texts_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (origin TEXT, refused INTEGER);
CREATE TABLE IF NOT EXISTS drafts (
    place INTEGER PRIMARY KEY, text TEXT NOT NULL, payload TEXT
);
CREATE TABLE IF NOT EXISTS payloads (
    id TEXT PRIMARY KEY, body BLOB NOT NULL, events INTEGER, custom INTEGER, zipped INTEGER,
    sealed_at REAL
);
"""
_LEFT = "left"
_OURS = re.compile(rf"((?:\d+-\d*|{_LEFT})-\w+\.events)(-wal|-shm|-journal)?")
"""Our names, and SQLite's beside them: a folder may hold files of others that end in `.events`."""


class Spool:
    """The file of one event processor. Safe for several threads.

    Every method may raise `OSError` or `sqlite3.Error`.

    Args:
        folder: made when it is absent, for its owner only.
        origin: a digest of where its events belong, see `memory_spool.origin_of`.
    """

    def __init__(self, folder: str | Path, origin: str) -> None:
        self._folder = Path(folder)
        self._origin = origin
        self._lock = threading.Lock()
        name = f"{os.getpid()}-{_started(os.getpid())}-{uuid.uuid4().hex[:8]}.events"
        self._path = self._folder / name
        self._open: sqlite3.Connection | None = None
        self._alive = FileLock(_lock_of(self._path))
        self.ended = False

    def draft(self, texts: Iterable[tuple[str, str]]) -> None:
        """Keep events that are in no payload yet: (id of their payload to be, JSON text) each."""
        with self._writing() as file:
            file.executemany("INSERT INTO drafts (payload, text) VALUES (?, ?)", texts)

    def seal(self, payloads: Iterable[Payload]) -> None:
        """Keep *payloads* in the place of their drafts."""
        payloads = list(payloads)
        with self._writing() as file:
            _insert(file, payloads)
            _delete_drafts(file, payloads)
        for payload in payloads:
            payload.stored = True

    def replace(self, payload: Payload, parts: Iterable[Payload]) -> None:
        """Keep *parts* in the place of *payload*."""
        with self._writing() as file:
            _insert(file, parts)
            _delete(file, [payload])

    def forget(self, payloads: Iterable[Payload]) -> None:
        """Delete what has been delivered or dropped."""
        payloads = list(payloads)
        with self._writing() as file:
            _delete(file, payloads)
            # A full disk may have kept the payload from taking the place of its drafts.
            _delete_drafts(file, payloads)

    def refused(self) -> None:
        """Note that LaunchDarkly refuses the key of these events."""
        with self._writing() as file:
            file.execute("UPDATE about SET refused = 1")

    def take_over(
        self, room: int, max_age: float, *, one_at_least: bool = False
    ) -> tuple[list[Payload], list[Payload]]:
        """Take over what dead processes left.

        Args:
            room: how many bytes at most.
            max_age: in seconds; what is older is deleted.
            one_at_least: when nothing fits, take one that does not: nothing else would ever empty
                its file.

        Returns:
            What is to be delivered, and what was too old.
        """
        found: list[Payload] = []
        expired: list[Payload] = []
        ours = [
            (path, name)
            for path in sorted(self._folder.glob("*.events*"))
            if (name := _OURS.fullmatch(path.name))
        ]
        for log, name in ours:
            if name[2] and not log.with_name(name[1]).exists():
                log.unlink(missing_ok=True)
        for path in [path for path, name in ours if not name[2]]:
            if path != self._path and not _writer_lives(path):
                left = room - sum(len(payload.body) for payload in found)
                taken, old = self._empty(path, left, max_age, one_at_least and not found)
                found += taken
                expired += old
        return found, expired

    def pause(self) -> None:
        """Close the connection before a fork: it must not be in two processes.

        The next write opens it again; the lock on the file is kept.
        """
        self._lock.acquire()
        self._close()

    def resume(self) -> None:
        """Go on after the fork, in the parent."""
        self._lock.release()

    def forked(self) -> None:
        """Let go of the parent's file in a forked child; takes no lock."""
        self._alive.forked()

    def end(self) -> None:
        """Close; what is still inside is left for the next processor, in any process."""
        with self._lock:
            self.ended = True
            if self._open is None:
                self._alive.release()
                return
            kept = self._open.execute(
                "SELECT (SELECT count(*) FROM payloads) + (SELECT count(*) FROM drafts)"
            )
            left = kept.fetchone()[0]
            self._close()
            if self._path.with_name(self._path.name + "-wal").exists():
                # The disk is full: the next process takes the file over with its log, under its
                # own name.
                self._alive.release()
                return
            if left:
                self._path.replace(self._folder / f"{_LEFT}-{uuid.uuid4().hex}.events")
            _remove(self._path)
            self._alive.release()

    # -- files -------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self.ended:
                raise OSError("the spool has ended")
            if self._open is None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._alive.acquire()
                self._open = _opened(self._path)
                _make_tables(self._open)
                if not self._open.execute("SELECT 1 FROM about").fetchone():
                    self._open.execute("INSERT INTO about VALUES (?, 0)", (self._origin,))
                    self._open.commit()
            with self._open:
                yield self._open

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _empty(
        self, path: Path, room: int, max_age: float, one_at_least: bool
    ) -> tuple[list[Payload], list[Payload]]:
        found: tuple[list[Payload], list[Payload]] = ([], [])
        try:
            with contextlib.closing(_opened(path)) as file:
                found = self._taken(file, room, max_age, one_at_least)
                if file.execute("SELECT count(*) FROM payloads").fetchone()[0]:
                    return found
            _remove(path)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                self._log_left(error)
        except sqlite3.DatabaseError:
            _put_aside(path)
        return found

    def _log_left(self, error: Exception) -> None:
        log_once(
            "spool_left",
            type(error).__name__,
            f"a spool file in {self._folder} cannot be taken over ({error}); make room, or give "
            "this process the right to write it",
        )

    def _taken(
        self, file: sqlite3.Connection, room: int, max_age: float, one_at_least: bool
    ) -> tuple[list[Payload], list[Payload]]:
        _make_tables(file)  # its writer may have died before it had made them
        about = file.execute("SELECT origin, refused FROM about").fetchone()
        origin, refused = about or (self._origin, 0)
        with file:
            _seal_drafts(file)
        if origin != self._origin and not refused:
            return [], _expired(file, max_age)
        expired = _expired(file, max_age)
        taken = list(_payloads(file, room, one_at_least))
        with self._writing() as own:
            _insert(own, taken)
        for payload in taken:
            payload.stored = True
        with file:  # in this order: killed in between, both files hold the same payload ids
            _delete(file, taken)
        return taken, expired


def _make_tables(file: sqlite3.Connection) -> None:
    file.executescript(_SCHEMA)
    if "payload" not in [column[1] for column in file.execute("PRAGMA table_info(drafts)")]:
        file.execute("ALTER TABLE drafts ADD COLUMN payload TEXT")


def _put_aside(path: Path) -> None:
    """Rename what is no database: nobody can read it, so nobody shall try again."""
    broken = path.with_suffix(".broken")
    path.replace(broken)
    log_once(
        "spool_broken",
        "",
        f"a spool file could not be read and its events are lost; it is kept as {broken}: "
        "delete it, or report it",
    )


def _opened(path: Path) -> sqlite3.Connection:
    # SQLite gives its log files the permissions of the file: events are personal data.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
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
        (
            payload.id,
            payload.body,
            payload.events,
            payload.custom,
            payload.zipped,
            payload.sealed_at,
        )
        for payload in payloads
    ]
    file.executemany("INSERT OR IGNORE INTO payloads VALUES (?, ?, ?, ?, ?, ?)", rows)


def _delete(file: sqlite3.Connection, payloads: Iterable[Payload]) -> None:
    file.executemany("DELETE FROM payloads WHERE id = ?", [(payload.id,) for payload in payloads])


def _delete_drafts(file: sqlite3.Connection, payloads: Iterable[Payload]) -> None:
    file.executemany(
        "DELETE FROM drafts WHERE payload = ?", [(payload.id,) for payload in payloads]
    )


def _expired(file: sqlite3.Connection, max_age: float) -> list[Payload]:
    """Delete what is older than *max_age* seconds, and return it."""
    horizon = time.time() - max_age
    old = [_payload(row) for row in file.execute(_OLDEST, (horizon,)).fetchall()]
    with file:
        _delete(file, old)
    return old


_OLDEST = (
    "SELECT id, body, events, custom, zipped, sealed_at FROM payloads WHERE sealed_at < ? "
    "ORDER BY sealed_at"
)


def _payloads(file: sqlite3.Connection, room: int, one_at_least: bool) -> Iterator[Payload]:
    """Yield the oldest that fit into *room*; one that does not holds up nobody behind it."""
    large = None
    for row in file.execute(_OLDEST, (float("inf"),)):
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
    exposures = _exposures(body, bool(zipped)) if events > custom else 0
    since = time.monotonic() - age
    return Payload(body, events, custom, bool(zipped), id, sealed_at, since, exposures)


def _exposures(body: bytes, zipped: bool) -> int:
    try:
        return exposures_among(texts_of(body, zipped))
    except (ValueError, OSError):  # damaged; it will be dropped when LaunchDarkly refuses it
        return 0


def _seal_drafts(file: sqlite3.Connection) -> None:
    """Make the payloads that the writer would have made, under the ids that it gave them."""
    drafts: dict[str | None, list[str]] = {}
    for id, text in file.execute("SELECT payload, text FROM drafts ORDER BY place"):
        drafts.setdefault(id, []).append(text)
    _insert(file, [join_drafts(texts, id) for id, texts in drafts.items()])
    file.execute("DELETE FROM drafts")


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".events") + ".lock")


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    _lock_of(path).unlink(missing_ok=True)


def _writer_lives(path: Path) -> bool:
    if (free := is_free(_lock_of(path))) is not None:
        return not free
    pid, _, rest = path.name.partition("-")
    if pid == _LEFT or not pid.isdigit():
        return False
    return _started(int(pid)) == rest.partition("-")[0]


def _started(pid: int) -> str:
    """Return when process *pid* started, as a number used again is another process; "" when
    dead.
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
