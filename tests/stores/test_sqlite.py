"""`sqlite`: files that are locked, moved, broken, older, or whose clock is set back; one deadline
for whoever else holds the file, transactions, modes, forks.
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

from ldinstrument.errors import DefinitionError
from ldinstrument.stores import Rules, SqliteStore, open_store
from ldinstrument.stores.records import readable
from ldinstrument.stores.sqlite import VERSION, SqliteFile
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
    readings = iter((100.0, 100.0, 100.0, 100.5))  # the last is read when the file is ours
    monkeypatch.setattr(
        "ldinstrument.stores.sqlite.time", SimpleNamespace(monotonic=lambda: next(readings))
    )
    store.merge("session:other", delta("s-2", started_ago=50, last_ago=20))
    monkeypatch.undo()
    record = readable(end(store, "session:other"))
    store.close()

    assert (record.started, record.last) == (-550, -520)


def test_a_corrupt_file_is_set_aside(keep, tmp_path, caplog):
    """Nobody can read it: a new one takes its place, and it is said where the old one is."""
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    store = keep(SqliteStore(tmp_path / "x.db"), client=RecordingClient())

    refs = [visit(store) for _ in range(3)]

    assert [ref.stored for ref in refs] == [True] * 3
    (aside,) = tmp_path.glob("x.db.corrupt-*[0-9]")
    assert aside.read_bytes() == b"not a database" * 100
    assert caplog.text.count(str(aside)) == 1


def test_a_file_that_becomes_corrupt_in_use_is_set_aside(keep, tmp_path):
    """Whoever meets the damage loses nothing: it waits, and goes into the new one."""
    store = keep(SqliteStore(tmp_path / "x.db"), client=RecordingClient())
    for number in range(200):
        visit(store, f"v-{number}")
    store.store.close()
    with (tmp_path / "x.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    refs = [visit(store, f"v-{number}") for number in range(5)]
    until(lambda: store.catch_up() or store.waiting == 0)

    assert [*tmp_path.glob("x.db.corrupt-*[0-9]")] != []
    assert store.holdings().open == len(refs)


def test_a_file_of_another_version_is_set_aside(keep, tmp_path, caplog):
    """Tables of before, which had no version, and those of a later one: said, and begun anew."""
    for version in (0, 99):
        other = sqlite3.connect(tmp_path / "x.db")
        other.execute("CREATE TABLE IF NOT EXISTS visitors (key TEXT)")
        other.execute(f"PRAGMA user_version = {version}")
        other.commit()
        other.close()
        store = keep(SqliteStore(tmp_path / "x.db"), client=RecordingClient())
        assert visit(store).stored
        assert len([*tmp_path.glob(f"x.db.version-{version}-*[0-9]")]) == 1
        store.close()
        for path in tmp_path.glob("x.db*"):
            path.unlink()

    assert caplog.text.count("version 99") == 1


@pytest.mark.parametrize("version", [0, VERSION])
def test_another_programs_database_is_left_as_it_is(keep, tmp_path, version):
    """An address with a slip in it must not move the customers away: refused when it is opened, and
    not touched by a store that was made before they came.
    """
    store = keep(SqliteStore(tmp_path / "app.db"), client=RecordingClient())
    theirs = sqlite3.connect(tmp_path / "app.db")
    theirs.execute("CREATE TABLE customers (id INTEGER)")
    theirs.execute("CREATE TABLE visitors (id INTEGER)")
    theirs.execute(f"PRAGMA user_version = {version}")
    theirs.commit()
    before = (tmp_path / "app.db").read_bytes()

    with pytest.raises(DefinitionError, match=r"another program's.*customers"):
        open_store(f"sqlite:///{tmp_path}/app.db")
    ref = visit(store)

    theirs.close()
    assert not ref.stored
    assert store.waiting == 1
    assert (tmp_path / "app.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["app.db"]


def test_workers_that_begin_together_set_one_file_aside(tmp_path):
    """Whoever comes second finds the new file, and leaves it in its place."""
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    stores = [SqliteStore(tmp_path / "x.db", timeout=30.0) for _ in range(8)]
    threads = [
        threading.Thread(target=store.merge, args=(f"session:{number}", delta()))
        for number, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [store.holdings().open for store in stores]
    for store in stores:
        store.close()

    assert held == [8] * 8
    assert len([*tmp_path.glob("x.db.corrupt-*[0-9]")]) == 1


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


def test_a_sqlite_file_is_readable_by_its_owner_only(tmp_path):
    """It holds the keys of contexts."""
    store = SqliteStore(tmp_path / "x.db")
    store.merge("session:v", delta("s"))
    store.close()

    assert (tmp_path / "x.db").stat().st_mode & 0o077 == 0


def test_a_sweep_of_sqlite_reads_only_what_is_due(tmp_path):
    """Every query of a claim goes by an index: its cost does not grow with what is open, or has
    been gone for long.
    """
    store, seen = SqliteStore(tmp_path / "x.db"), []
    over(store, 1)
    store._file._connection.set_trace_callback(seen.append)
    store.claim(10, 60.0, "the-test")
    store.claim_sealed(10, 60.0, "the-test")
    store._file._connection.set_trace_callback(None)
    queries = [text for text in seen if "FROM" in text and "julianday" not in text]
    plans = [
        row[3]
        for text in queries
        for row in store._file._connection.execute(f"EXPLAIN QUERY PLAN {text}")
        if "SCAN" in row[3]
    ]
    store.close()

    assert len(queries) >= 4
    assert [plan for plan in plans if "outbox" not in plan] == []


# -- the file --------------------------------------------------------------------------------------

SCHEMA = "CREATE TABLE IF NOT EXISTS words (word TEXT);"


@pytest.fixture(name="file")
def _file(tmp_path):
    file = SqliteFile(tmp_path / "folder" / "x.db", SCHEMA, timeout=10.0)
    yield file
    file.close()


def add(file, word):
    with file.connection(writing=True) as connection:
        connection.execute("INSERT INTO words VALUES (?)", (word,))


def words(file):
    with file.connection() as connection:
        return [word for (word,) in connection.execute("SELECT word FROM words")]


def test_a_transaction_is_all_or_nothing(file):
    """What a block wrote before it raised is not there."""
    add(file, "first")
    with pytest.raises(ZeroDivisionError), file.connection(writing=True) as connection:
        connection.execute("INSERT INTO words VALUES ('second')")
        raise ZeroDivisionError
    add(file, "third")

    assert words(file) == ["first", "third"]


def test_file_and_folder_belong_to_their_owner(file):
    """They may hold keys of contexts: nobody else reads them."""
    add(file, "word")

    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700


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

    file = SqliteFile(tmp_path / "x.db", SCHEMA, timeout=0.25)
    file._lock = Slow()
    with file.connection() as connection:
        (left,) = connection.execute("PRAGMA busy_timeout").fetchone()
    file._lock = threading.Lock()
    file.close()

    assert left == pytest.approx(50, abs=1)


def test_a_thread_that_cannot_have_the_connection_hears_so(tmp_path):
    """Within the time-out, and as an error that a store may get over."""
    file = SqliteFile(tmp_path / "x.db", SCHEMA, timeout=0.01)
    with file.connection(), pytest.raises(TimeoutError):
        with file.connection():
            pass
    file.close()


def test_a_file_that_was_moved_is_noticed(tmp_path):
    """Whoever opens that path now sees other rows."""
    seen = []
    file = SqliteFile(tmp_path / "x.db", SCHEMA, on_moved=lambda: seen.append("moved"))
    add(file, "word")
    before = list(seen)
    file.path.rename(tmp_path / "elsewhere.db")
    add(file, "word")
    file.close()

    assert (before, seen) == ([], ["moved"])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_leaves_each_process_a_connection_of_its_own(file):
    """Closed before, opened anew on either side."""
    add(file, "before")
    file.pause()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            file.forked()
            add(file, "child")
            file.close()
            status = 0
        finally:
            os._exit(status)
    file.resume()
    add(file, "parent")

    assert os.waitpid(child, 0)[1] == 0
    assert sorted(words(file)) == ["before", "child", "parent"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
def test_a_file_that_somebody_sets_aside_is_left_to_them(tmp_path):
    """Whoever has found it broken, too, waits, and then uses the new one instead of moving that."""
    import fcntl

    path = tmp_path / "x.db"
    path.write_bytes(b"no database" * 1000)
    late, first = SqliteStore(path), SqliteStore(path)
    thread = threading.Thread(target=lambda: late.merge("session:late", delta("s-1")))
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.3)
        path.rename(tmp_path / "x.db.corrupt-0")
        first.merge("session:first", delta("s-2"))
    thread.join(10)
    found = [aside.name for aside in tmp_path.glob("x.db.corrupt-*")]
    holdings = first.holdings()
    first.close()
    late.close()

    assert found == ["x.db.corrupt-0"]
    assert holdings.open == 2
