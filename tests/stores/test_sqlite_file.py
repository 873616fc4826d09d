"""`sqlite_file`: files that are broken, of another version or of somebody else; modes of what is
made.
"""

from __future__ import annotations

import sqlite3
import sys
import threading

import pytest
from stores_builders import delta, until, visit

from ldinstrument.errors import DefinitionError
from ldinstrument.stores import SqliteStore, open_store
from ldinstrument.stores.sqlite import VERSION
from ldinstrument.testing import RecordingClient


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
    thread.join(60)
    found = [aside.name for aside in tmp_path.glob("x.db.corrupt-*")]
    holdings = first.holdings()
    first.close()
    late.close()

    assert found == ["x.db.corrupt-0"]
    assert holdings.open == 2


def test_file_and_folder_belong_to_their_owner(tmp_path):
    """They hold the keys of contexts: nobody else reads them."""
    path = tmp_path / "folder" / "x.db"
    store = SqliteStore(path)
    store.merge("session:v", delta("s"))
    store.close()

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
