"""The lock on a file: held by one process, given up by its death, and removed with its file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ldinstrument.delivery.file_lock import FileLock, is_free

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file locks on Windows")


def test_one_holder_at_a_time(tmp_path):
    """Whoever comes second is refused, and may come again when the first has let go."""
    first, second = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    first.acquire()
    first.acquire()
    with pytest.raises(OSError):
        second.acquire()
    assert is_free(tmp_path / "a.lock") is False
    first.release()
    second.acquire()
    assert is_free(tmp_path / "a.lock") is False
    second.release()


def test_the_file_goes_with_the_lock(tmp_path):
    """Only its owner may read it; without a file there is nothing to say."""
    path = tmp_path / "a.lock"
    lock = FileLock(path)
    assert is_free(path) is None
    lock.acquire()
    assert path.stat().st_mode & 0o777 == 0o600
    lock.release()
    lock.release()
    assert not path.exists()
    assert is_free(path) is None


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    """The caller is told, and may try again later."""
    lock = FileLock(tmp_path / "later" / "a.lock")
    with pytest.raises(OSError):
        lock.acquire()
    (tmp_path / "later").mkdir()
    lock.acquire()
    assert is_free(tmp_path / "later" / "a.lock") is False
    lock.release()


def test_a_dead_holder_holds_nothing(tmp_path):
    """The kernel releases the lock; the file that it left is free."""
    path = tmp_path / "a.lock"
    code = (
        "import os, sys; from pathlib import Path\n"
        "from ldinstrument.delivery.file_lock import FileLock\n"
        "FileLock(Path(sys.argv[1])).acquire(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert is_free(path) is True
    lock = FileLock(path)
    lock.acquire()
    lock.release()


def test_a_forked_child_lets_go_of_its_copy_only(tmp_path):
    """The parent's file and lock stay, whatever the child calls."""
    path = tmp_path / "a.lock"
    lock = FileLock(path)
    lock.acquire()
    child = os.fork()
    if child == 0:
        lock.forked()
        lock.release()
        os._exit(0 if path.exists() and is_free(path) is False else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_free(path) is False
    lock.release()


def test_a_lock_that_was_let_go_holds_no_file_open(tmp_path):
    """A program may take and leave it for years."""
    held = FileLock(tmp_path / "a.lock")
    first = os.open(tmp_path, os.O_RDONLY)  # the lowest number that is free
    os.close(first)
    held.acquire()
    held.release()
    second = os.open(tmp_path, os.O_RDONLY)
    os.close(second)
    assert second == first
