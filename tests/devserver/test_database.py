"""One database: all of a change or nothing, readers beside the writer, documents kept."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from ldinstrument.devserver.database import Database
from ldinstrument.errors import DefinitionError

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (n INTEGER);"


@pytest.fixture(name="database")
def _database(tmp_path):
    database = Database(str(tmp_path / "x.db"), SCHEMA)
    yield database
    database.close()


def test_a_change_that_fails_leaves_nothing_and_no_new_revision(database):
    """The exception passes."""
    before = database.revision
    with pytest.raises(ZeroDivisionError), database.changing() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
        raise ZeroDivisionError
    assert database.rows("SELECT * FROM numbers") == []
    assert database.revision == before


def test_what_is_changed_quietly_is_no_news(database):
    """The next change is."""
    before = database.revision
    with database.changing(quietly=True) as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
    assert database.revision == before
    with database.changing() as connection:
        connection.execute("INSERT INTO numbers VALUES (2)")
    assert database.revision == before + 1


def test_a_reader_sees_what_was_committed_while_somebody_writes(database):
    """It neither waits for the writer nor sees half of a change."""
    with database.changing() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
        found: list[object] = []
        reader = threading.Thread(
            target=lambda: found.append(database.rows("SELECT n FROM numbers"))
        )
        reader.start()
        reader.join(20)
        assert found == [[]]
    assert database.rows("SELECT n FROM numbers") == [(1,)]


def test_documents_are_there_again_after_a_restart_in_their_order(tmp_path):
    """A changed one keeps its place."""
    path = str(tmp_path / "x.db")
    first = Database(path, SCHEMA)
    for key in ("b", "a"):
        first.put("metric", "p", key, {"key": key})
    first.put("metric", "p", "b", {"key": "b", "changed": True})
    first.remove("metric", "p", "nothing")
    first.close()
    second = Database(path, SCHEMA)
    assert second.documents("metric", "p") == [{"key": "b", "changed": True}, {"key": "a"}]
    assert second.document("metric", "other", "a") is None
    assert second.projects("metric") == ["p"]
    second.close()


def test_a_key_is_taken_once_and_free_again_when_it_was_removed(database):
    """Adding never overwrites."""
    assert database.add("flag", "", "f", {"v": 1})
    assert not database.add("flag", "", "f", {"v": 2})
    assert database.document("flag", "", "f") == {"v": 1}
    assert database.remove("flag", "", "f")
    assert not database.remove("flag", "", "f")
    assert database.add("flag", "", "f", {"v": 2})


def test_everything_is_forgotten_but_what_is_kept(tmp_path):
    """By collection, and in the file, too."""
    database = Database(str(tmp_path / "x.db"), SCHEMA)
    for collection in ("flag", "metric", "settings"):
        database.put(collection, "", "k", {})
    database.forget_documents(keep=("flag",))
    assert database.document("flag", "", "k") == {}
    assert database.documents("metric") == database.documents("settings") == []
    database.close()
    again = Database(str(tmp_path / "x.db"), SCHEMA)
    assert again.document("flag", "", "k") == {}
    assert again.documents("metric") == again.documents("settings") == []
    again.close()


def test_a_file_of_an_older_version_keeps_its_documents_only(tmp_path):
    """Its tables are made anew."""
    path = str(tmp_path / "x.db")
    old = Database(path, SCHEMA)
    old.put("flag", "", "f", {"v": 1})
    with old.changing() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
        connection.execute("CREATE TABLE gone (x)")
    old.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=1")
    new = Database(path, SCHEMA)
    assert new.document("flag", "", "f") == {"v": 1}
    assert new.rows("SELECT * FROM numbers") == []
    new.close()


def test_a_file_that_is_no_database_is_named(tmp_path):
    """Instead of an error of SQLite."""
    path = tmp_path / "notes.txt"
    path.write_text("no database" * 100)
    with pytest.raises(DefinitionError, match=r"notes\.txt"):
        Database(str(path), SCHEMA)


@pytest.mark.parametrize("table", ["customers", "documents"])
def test_another_programs_database_is_not_touched(tmp_path, table):
    """Its tables are no older ones of ours, to be dropped."""
    path = tmp_path / "app.db"
    theirs = sqlite3.connect(path)
    theirs.execute(f"CREATE TABLE {table} (id INTEGER)")
    theirs.execute("CREATE TABLE orders (id INTEGER)")
    theirs.commit()
    theirs.close()
    before = path.read_bytes()

    with pytest.raises(DefinitionError, match="another program's database"):
        Database(str(path))

    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["app.db"]


def test_a_temporary_one_leaves_no_file():
    """Closing twice is fine."""
    database = Database(None, SCHEMA)
    path = Path(database.path)
    assert path.exists()
    database.close()
    database.close()
    assert not path.parent.exists()
