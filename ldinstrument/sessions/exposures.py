"""Which units were exposed to which flags, and when: one bounded table for the process.

An experiment counts what comes after a unit's first exposure. Whatever thread, session or
prerequisite an exposure came by, it is noted here once per flag, version of the flag, and unit; a
session looks its own units up when it folds, so that noting an exposure never walks the sessions.
A new version of a flag may be a new iteration of its experiment, and is noted anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..clock import clock
from .contexts import kinds

if TYPE_CHECKING:
    from ldclient import Context

MOST_NOTED = 20_000
"""Exposures noted before those of units that were not exposed lately are forgotten."""
MOST_PER_UNIT = 1_000


class Exposure(NamedTuple):
    """One unit's first exposure to one version of a flag.

    Args:
        read: the clock reading, in seconds of `time.perf_counter`.
        date: milliseconds since the epoch, as the exposure's own event carries it.
        name: of flag, version and unit, the same in every process.
        client: a weak reference to the client that evaluated; None when unknown.
    """

    read: float
    date: int
    name: str
    client: Any = None


class ExposureTable:
    """Exposures by unit, in two generations: when the young one is full, the old one goes.

    Noting what is noted already takes no lock.
    """

    def __init__(self, most: int = MOST_NOTED) -> None:
        self._most = most
        self._lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Forget everything (tests)."""
        with self._lock:
            self.changes = 0
            """How often something was noted: a session that has seen this many looks no further."""
            self.forgotten = float("-inf")
            """Exposures up to this clock reading may have been forgotten."""
            self._filled_since = float("-inf")
            self._known: set[tuple[str, int, str]] = set()
            self._known_before: set[tuple[str, int, str]] = set()
            self._young: dict[str, list[Exposure]] = {}
            self._old: dict[str, list[Exposure]] = {}

    def forked(self) -> None:
        """Begin with a lock of one's own in a forked child; what is known stays true."""
        self._lock = threading.RLock()

    def note(
        self, flag: str, version: int, context: Context, date: int, client: Any = None
    ) -> None:
        """Note that *context* was exposed to *version* of *flag* now, dated *date*."""
        whole = flag, version, context.fully_qualified_key
        if whole in self._known or whole in self._known_before:
            return
        read = clock()
        with self._lock:
            if whole in self._known:
                return
            if len(self._known) >= self._most:
                self._forget_old(read)
            self._known.add(whole)
            for part in kinds(context).values():
                self._note_unit(flag, version, part.fully_qualified_key, read, date, client)
            self.changes += 1

    def _note_unit(
        self, flag: str, version: int, unit: str, read: float, date: int, client: Any
    ) -> None:
        noted = self._young.get(unit)
        if noted is None:
            noted = self._young[unit] = self._old.get(unit, [])
        name = f"{flag} {version} {unit}"
        if any(exposure.name == name for exposure in noted):
            return
        self._known.add((flag, version, unit))
        noted = noted[-MOST_PER_UNIT + 1 :]
        self._young[unit] = [*noted, Exposure(read, date, name, client)]

    def _forget_old(self, read: float) -> None:
        self.forgotten, self._filled_since = self._filled_since, read
        self._known_before, self._known = self._known, set()
        self._old, self._young = self._young, {}

    def of(self, units: Iterable[str]) -> list[Exposure]:
        """Return the exposures of *units*, oldest first."""
        found = [
            exposure
            for unit in units
            for exposure in self._young.get(unit) or self._old.get(unit) or ()
        ]
        found.sort(key=_read)
        return found


def _read(exposure: Exposure) -> float:
    return exposure.read


exposures = ExposureTable()
