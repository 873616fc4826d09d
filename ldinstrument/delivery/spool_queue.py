"""Writes to the spool: queued under a lock, done without it, and logged once when they fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..diagnostics import log_once
from .deferred import DeferredCalls

if TYPE_CHECKING:
    from .spool import Spool

LONGEST_WAIT = 5.0
"""Seconds to wait for another thread at the disk; a signal handler may have interrupted that very
thread.
"""


class SpoolQueue:
    """Queue work at the spool and do it in order; without a spool, do nothing.

    Args:
        folder: the spool's folder, or None.
        origin: where the events belong, see `undelivered.origin_of`.
    """

    def __init__(self, folder: str | Path | None, origin: str) -> None:
        self._folder = folder
        self._spool = _spool(folder, origin) if folder else None
        self._calls = DeferredCalls(LONGEST_WAIT)

    def __bool__(self) -> bool:
        return self._spool is not None

    def add(self, write: Callable[[Spool], None]) -> None:
        """Queue *write* for `run`."""
        spool = self._spool
        if spool is not None:
            self._calls.add(lambda: self._do(write, spool))

    def run(self) -> None:
        """Do what is queued; when this returns, it is on disk, or it was logged why not."""
        if self._spool is not None:
            self._calls.run()

    def pause(self) -> None:
        """Close the file before a fork."""
        if self._spool is not None:
            self._spool.pause()

    def resume(self) -> None:
        """Go on after a fork, in the parent."""
        if self._spool is not None:
            self._spool.resume()

    def forked(self) -> None:
        """Let go of the parent's file in a forked child; takes no lock."""
        if self._spool is not None:
            self._spool.forked()

    def _do(self, write: Callable[[Spool], None], spool: Spool) -> None:
        try:
            # What a late answer would still write, whoever takes over the file will find out.
            if not spool.ended:
                write(spool)
        except Exception as error:
            log_once(
                "spool",
                type(error).__name__,
                f"the spool {self._folder} cannot be used ({error}): events are kept in memory "
                "only; make room, or give spool= a folder that this process may write",
            )


def _spool(folder: str | Path, origin: str) -> Spool:
    from .spool import Spool

    return Spool(folder, origin)
