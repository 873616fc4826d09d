"""What was decided under a lock, and is told without it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..diagnostics import log_internal_error, log_once

if TYPE_CHECKING:
    from .spool import Spool


PATIENCE = 5.0
"""Seconds to wait for another thread at the disk; a signal handler may have interrupted that very
thread.
"""


class Chores:
    """What is to be written to the spool; without a spool, nothing.

    Args:
        folder: the spool's folder, or None.
        origin: where the events belong, see `orphans.origin_of`.
    """

    def __init__(self, folder: str | Path | None, origin: str) -> None:
        self._folder = folder
        self._spool = _spool(folder, origin) if folder else None
        self._noted: deque[Callable[[Spool], None]] = deque()
        self._at_work = threading.Lock()

    def __bool__(self) -> bool:
        return self._spool is not None

    def note(self, chore: Callable[[Spool], None]) -> None:
        """Leave *chore* for `do`."""
        if self._spool is not None:
            self._noted.append(chore)

    def do(self) -> None:
        """Do what was noted; when this returns, it is on disk. Says once when it cannot be: memory
        still works.
        """
        if self._spool is None or not self._at_work.acquire(timeout=PATIENCE):
            return
        try:
            while self._noted:
                self._try(self._noted.popleft(), self._spool)
        finally:
            self._at_work.release()

    def _try(self, chore: Callable[[Spool], None], spool: Spool) -> None:
        try:
            if (
                not spool.ended
            ):  # what a late answer would still write, whoever takes over the file will find out
                chore(spool)
        except Exception as error:
            log_once(
                "spool", type(error).__name__, f"the spool {self._folder} cannot be used ({error})"
            )

    def pause(self) -> None:
        """Before a fork."""
        if self._spool is not None:
            self._spool.pause()

    def resume(self) -> None:
        """After it, in the parent."""
        if self._spool is not None:
            self._spool.resume()


def _spool(folder: str | Path, origin: str) -> Spool:
    from .spool import Spool

    return Spool(folder, origin)


class Verdicts:
    """Calls that must not be made under the engine's lock: entries into the ledger, and the release
    of whoever waits.

    A signal handler may have interrupted a thread that holds the ledger's lock, and then want the
    engine's: so nobody may wait for the one while holding the other. They are made in the order in
    which they were noted, so that whoever is released finds the ledger as it should be.
    """

    def __init__(self) -> None:
        self._noted: deque[Callable[[], object]] = deque()
        self._speaking = threading.Lock()

    def note(self, call: Callable[[], object]) -> None:
        """Leave *call* for `pronounce`."""
        self._noted.append(call)

    def pronounce(self) -> None:
        """Make the calls, unless somebody is at it, who then makes these, too. Never waits."""
        while self._noted and self._speaking.acquire(blocking=False):
            try:
                while self._noted:
                    _guarded(self._noted.popleft())
            finally:
                self._speaking.release()


def _guarded(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:
        log_internal_error("delivery", error)
