"""A lock on a file that tells other processes whether its holder lives.

Process numbers say nothing across containers, and SQLite's own lock is given up around a fork. This
one belongs to the open file: it lives through forks, and the kernel releases it when its holder
dies.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where processes do not fork and see each other's numbers
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """Hold an exclusive lock on the file *path*, which is made when it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock; harmless when it is held.

        Raises:
            OSError: another process has it, or the file cannot be made.
        """
        if fcntl is None or self._file is not None:
            return
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def release(self) -> None:
        """Let go, and remove the file; harmless when it is not held."""
        file, self._file = self._file, None
        if file is not None:
            self._path.unlink(missing_ok=True)
            os.close(file)

    def forked(self) -> None:
        """Close a forked child's copy; the parent keeps the lock."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)


def is_free(path: Path) -> bool | None:
    """Tell whether nobody holds the lock on *path*; None when there is no such file, or no
    locks.
    """
    if fcntl is None:
        return None
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:  # another user's
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(file)
