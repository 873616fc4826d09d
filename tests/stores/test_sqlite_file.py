"""`sqlite_file`: one deadline for whoever else holds the file, transactions, modes, forks."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from ldinstrument.stores.sqlite_file import SqliteFile

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
        "ldinstrument.stores.sqlite_file.time", SimpleNamespace(monotonic=lambda: clock.now)
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
