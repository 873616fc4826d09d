"""`sqlite`: files that are locked or moved, or whose clock is set back; transactions, one deadline
for whoever else holds the file, forks.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from types import SimpleNamespace

import pytest
from stores_builders import (
    delta,
    end,
    ended,
    over,
    tallies_of,
    until,
    visit,
)

from ldinstrument.stores import Rules, SqliteStore
from ldinstrument.stores.records import readable
from ldinstrument.testing import RecordingClient


def test_a_locked_sqlite_file_costs_a_wait_and_no_number(keep, tmp_path):
    """Somebody who holds the file for longer than the time-out makes merges wait in memory."""
    raw = SqliteStore(tmp_path / "x.db", Rules(), timeout=0.05)
    store = keep(raw, client=RecordingClient())
    visit(store)

    blocker = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    blocked = [visit(store) for _ in range(5)]
    blocker.execute("ROLLBACK")
    blocker.close()
    until(lambda: store.catch_up() or store.waiting == 0)

    assert not any(ref.stored for ref in blocked)
    assert tallies_of(readable(end(raw, "session:v-1", "ended")))[0] == 6


def test_what_a_merge_waits_for_other_workers_is_no_activity(tmp_path, monkeypatch):
    """Dates go by the store's clock, and an age that was told before the wait is older after it."""
    store = SqliteStore(tmp_path / "x.db")
    store.merge("session:v", delta("s-1"))
    readings = iter((100.0, 100.0, 100.5))  # the last is read when the file is ours
    monkeypatch.setattr(
        "ldinstrument.stores.sqlite.time", SimpleNamespace(monotonic=lambda: next(readings))
    )
    store.merge("session:other", delta("s-2", started_ago=50, last_ago=20))
    monkeypatch.undo()
    record = readable(end(store, "session:other"))
    store.close()

    assert (record.started, record.last) == (-550, -520)


def test_a_clock_set_back_stalls_nothing(tmp_path, monkeypatch):
    """The store's time goes on from where it was: what has ended is reported, what falls silent
    ends, and leases run out as they would have.
    """
    now = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
    queries = sys.modules["ldinstrument.stores.sqlite"]
    store = SqliteStore(tmp_path / "x.db", Rules(idle=0.05))
    query = queries._NOW

    def set_clock(hours):
        monkeypatch.setattr(queries, "_NOW", query.replace(now, f"{now} + {hours * 3_600_000}"))

    set_clock(0)
    store.merge("session:ended", delta("s-1", ends="logout"))
    store.merge("session:open", delta("s-2"))
    assert len(store.claim(10, 0.05, "dead", early=True)) == 1
    set_clock(-5)
    records = []
    until(lambda: records.extend(ended(store)) or len(records) == 2)
    store.close()

    assert sorted(record.id for record in records) == ["s-1", "s-2"]
    assert all(0 <= record.last - record.started < 10_000 for record in records)


def test_a_sqlite_file_that_is_taken_away_is_missed(keep, tmp_path, caplog):
    """Its workers go on with what they have open, which nobody who starts later can see: that is
    said, once.
    """
    store = keep(SqliteStore(tmp_path / "x.db"), client=RecordingClient())

    assert visit(store).stored
    assert "restart all workers" not in caplog.text
    (tmp_path / "x.db").rename(tmp_path / "y.db")
    for _ in range(3):
        assert visit(store).stored

    assert caplog.text.count("restart all workers") == 1


def test_a_sweep_of_sqlite_reads_only_what_is_due(tmp_path):
    """Every query of a claim goes by an index: its cost does not grow with what is open, or has
    been gone for long.
    """
    store, seen = SqliteStore(tmp_path / "x.db"), []
    over(store, 1)
    store._connection.set_trace_callback(seen.append)
    store.claim(10, 60.0, "the-test")
    store.claim_sealed(10, 60.0, "the-test")
    store._connection.set_trace_callback(None)
    queries = [text for text in seen if "FROM" in text and "julianday" not in text]
    plans = [
        row[3]
        for text in queries
        for row in store._connection.execute(f"EXPLAIN QUERY PLAN {text}")
        if "SCAN" in row[3]
    ]
    store.close()

    assert len(queries) >= 4
    assert [plan for plan in plans if "outbox" not in plan] == []


# -- transactions ----------------------------------------------------------------------------------


@pytest.fixture(name="store")
def _store(tmp_path):
    store = SqliteStore(tmp_path / "folder" / "x.db", timeout=10.0)
    yield store
    store.close()


def add(store, key):
    with store._transaction() as (file, _, _):
        file.execute("INSERT INTO taken VALUES (?, 0)", (key,))


def keys(store):
    with store._transaction() as (file, _, _):
        return [key for (key,) in file.execute("SELECT key FROM taken ORDER BY rowid")]


def test_a_transaction_is_all_or_nothing(store):
    """What a block wrote before it raised is not there."""
    add(store, "first")
    with pytest.raises(ZeroDivisionError), store._transaction() as (file, _, _):
        file.execute("INSERT INTO taken VALUES ('second', 0)")
        raise ZeroDivisionError
    add(store, "third")

    assert keys(store) == ["first", "third"]


def test_threads_and_processes_share_one_deadline(tmp_path, monkeypatch):
    """What was waited for another thread is not waited once more for another process."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(
        "ldinstrument.stores.sqlite.time", SimpleNamespace(monotonic=lambda: clock.now)
    )

    class Slow:
        def acquire(self, timeout):
            clock.now += 0.2
            return True

        def release(self):
            pass

    store = SqliteStore(tmp_path / "x.db", timeout=0.25)
    add(store, "opens it")
    store._lock = Slow()
    with store._transaction() as (file, _, waited):
        (left,) = file.execute("PRAGMA busy_timeout").fetchone()
    store._lock = threading.Lock()
    store.close()

    assert left == pytest.approx(50, abs=1)
    assert waited == pytest.approx(200, abs=1)


def test_a_thread_that_cannot_have_the_connection_hears_so(tmp_path):
    """Within the time-out, and as an error that a store may get over."""
    store = SqliteStore(tmp_path / "x.db", timeout=0.05)
    with store._transaction(), pytest.raises(TimeoutError):
        with store._transaction():
            pass
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_leaves_each_process_a_connection_of_its_own(store):
    """Closed before, opened anew on either side."""
    add(store, "before")
    store.pause()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.forked()
            add(store, "child")
            store.close()
            status = 0
        finally:
            os._exit(status)
    store.resume()
    add(store, "parent")

    assert os.waitpid(child, 0)[1] == 0
    assert sorted(keys(store)) == ["before", "child", "parent"]
