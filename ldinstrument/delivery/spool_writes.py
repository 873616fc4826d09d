"""Writes to the spool: queued under a lock, done without it, and logged once when they fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..diagnostics import log_once
from .unlocked_calls import UnlockedCalls

if TYPE_CHECKING:
    from .spool import Spool

LONGEST_WAIT = 5.0
"""Seconds to wait for another thread at the disk; a signal handler may have interrupted that very
thread.
"""


class SpoolWrites:
    """Queue work at the spool and do it in order.

    Args:
        folder: the spool's folder.
        origin: where the events belong, see `memory_spool.origin_of`.
    """

    def __init__(self, folder: str | Path, origin: str) -> None:
        from .spool import Spool

        self._folder = folder
        self._spool = Spool(folder, origin)
        self._calls = UnlockedCalls(LONGEST_WAIT)
        self.run = self._calls.run
        """Do what is queued; when this returns, it is on disk, or it was logged why not."""
        self.pause = self._spool.pause
        self.resume = self._spool.resume
        self.forked = self._spool.forked

    def add(self, write: Callable[[Spool], None]) -> None:
        """Queue *write* for `run`."""
        self._calls.add(lambda: self._do(write))

    def _do(self, write: Callable[[Spool], None]) -> None:
        try:
            # What a late answer would still write, whoever takes over the file will find out.
            if not self._spool.ended:
                write(self._spool)
        except Exception as error:
            log_once(
                "spool",
                type(error).__name__,
                f"the spool {self._folder} cannot be used ({error}): events are kept in memory "
                "only; make room, or give spool= a folder that this process may write",
            )
