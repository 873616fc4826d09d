"""Which units were exposed to which flags, and when: one bounded table for the process.

An experiment counts what comes after a unit's first exposure. Whatever thread, session or
prerequisite an exposure came by, it is noted here once per flag, version of the flag, and unit; a
session looks its own units up when it folds, so that noting an exposure never walks the sessions.
A new version of a flag may be a new iteration of its experiment, and is noted anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..values import Fields
from .clock import STEP, clock
from .contexts import units_of

if TYPE_CHECKING:
    from ldclient import Context

MOST_NOTED = 20_000
"""Exposures noted before those of units that were not exposed lately are forgotten."""
MOST_PER_UNIT = 1_000
READING = 2.0
"""Milliseconds by which two readings of one moment differ: of clock and wall clock, rounded."""
MOST_LEFT = 2_000
"""Units of which something left that are remembered at least; twice as many at most."""


class Exposure(Fields):
    """One unit's first exposure to one version of a flag.

    Args:
        read: the clock reading, in seconds of `time.perf_counter`.
        date: milliseconds since the epoch, as the exposure's own event carries it.
        name: of flag, version and unit; where clients are of one environment, the same in every
            process.
        client: a weak reference to the client that evaluated; None when unknown.
        lost: whether its event was dropped, so that no experiment knows of it. What was recorded
            since is dated after it all the same, and so must be the exposure that follows.
    """

    __slots__ = ("read", "date", "name", "client", "lost")

    def __init__(
        self,
        read: float,
        date: int,
        name: str,
        client: Any = None,
        lost: bool = False,
    ) -> None:
        self.read = read
        self.date = date
        self.name = name
        self.client = client
        self.lost = lost


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
            self._left: dict[str, int] = {}
            """By unit, the latest date of what has left, and so can no longer be dated before an
            exposure."""
            self._left_before: dict[str, int] = {}
            self._left_by_others = 0
            """The latest date of what left for units that are no longer remembered."""
            self.changes = 0
            """How often something was noted: a session that has seen this many looks no further."""
            self.forgotten = float("-inf")
            """Exposures up to this clock reading may have been forgotten."""
            self._filled_since = float("-inf")
            self.forked_at = float("-inf")
            """The clock reading of the latest fork: exposures in its child are not noted here."""
            self.noted: dict[tuple[str, int, str], int] = {}
            """The date of the first exposure by flag, version and whole context or unit."""
            self._noted_before: dict[tuple[str, int, str], int] = {}
            self._young: dict[str, list[Exposure]] = {}
            self._old: dict[str, list[Exposure]] = {}

    def note_fork(self) -> None:
        """Note that this process has just forked."""
        self.forked_at = clock()

    def forked(self) -> None:
        """Begin with a lock of one's own in a forked child; what is known stays true."""
        self._lock = threading.RLock()

    def note(
        self,
        flag: str,
        version: int,
        context: Context,
        date: int,
        client: Any = None,
        present: int = 0,
    ) -> int:
        """Note that *context* was exposed to *version* of *flag* now.

        Args:
            flag: its key.
            version: of the flag.
            context: whom it was evaluated for.
            date: of the exposure, by the wall clock.
            client: a weak reference to the client that evaluated.
            present: the date of this moment by the session in which it happens; 0 outside one.

        Returns:
            The date of the first such exposure, or *date*, whichever is later: when the wall clock
            was set back since, a repetition must not become the first.
        """
        whole = flag, version, context.fully_qualified_key
        known = self.noted.get(whole) or self._noted_before.get(whole)
        if known is not None:
            return known if known > date else date
        read, lag = _reading_of(date)
        with self._lock:
            if len(self.noted) >= self._most:
                self._forget_old(read)
            units = units_of(context)
            latest = max(self._latest_left(units), present)
            given, set_back = date, latest - date > lag + READING
            if set_back:  # the wall clock was: what has left must stay before this exposure
                date = latest + 1
            for exposure in self.of(units, lost=True):
                # Never before an earlier exposure, nor before what was recorded since.
                expected = exposure.date + int((read - exposure.read) * 1000) + set_back
                date = max(date, exposure.date)
                if set_back or expected - given > READING:
                    date = max(date, expected)
            for unit in units:
                self._note_unit(flag, version, unit, read, date, client)
            self.noted[whole] = date
            self.changes += 1
        return date

    def _note_unit(
        self, flag: str, version: int, unit: str, read: float, date: int, client: Any
    ) -> None:
        noted = self._young.get(unit)
        if noted is None:
            noted = self._young[unit] = self._old.get(unit, [])
        name = f"{flag} {version} {unit}"
        if any(exposure.name == name and not exposure.lost for exposure in noted):
            return
        self.noted[flag, version, unit] = date
        noted = noted[-MOST_PER_UNIT + 1 :]
        self._young[unit] = [*noted, Exposure(read, date, name, client)]

    def note_left(self, units: Iterable[str], date: int) -> None:
        """Note that something of *units* has left, dated *date* at the latest."""
        left = self._left
        for unit in units:
            if date > left.get(unit, 0):
                left[unit] = date
        if len(left) > MOST_LEFT:
            self._forget_left(left)

    def _forget_left(self, full: dict[str, int]) -> None:
        with self._lock:
            if self._left is full:  # no other thread was faster
                forgotten = list(self._left_before.values())  # a thread may still add to it
                self._left_by_others = max(self._left_by_others, *forgotten, 0)
                self._left_before, self._left = full, {}

    def _latest_left(self, units: Iterable[str]) -> int:
        """Return the latest date of what may have left for *units*."""
        known = [left.get(unit, 0) for unit in units for left in (self._left, self._left_before)]
        return max(self._left_by_others, *known)

    def lost(self, flag: str, version: int, context: Context) -> None:
        """Note that the event of an exposure was dropped: the next one is the first that counts."""
        with self._lock:
            units = units_of(context)
            for unit in (context.fully_qualified_key, *units):
                self.noted.pop((flag, version, unit), None)
                self._noted_before.pop((flag, version, unit), None)
            for unit in units:
                name = f"{flag} {version} {unit}"
                noted = self._young.get(unit) or self._old.get(unit, [])
                self._young[unit] = [
                    exposure.replace(lost=True) if exposure.name == name else exposure
                    for exposure in noted
                    if exposure.name != name or not exposure.lost
                ]

    def _forget_old(self, read: float) -> None:
        self.forgotten, self._filled_since = self._filled_since, read
        self._noted_before, self.noted = self.noted, {}
        self._old, self._young = self._young, {}

    def of(self, units: Iterable[str], *, lost: bool = False) -> list[Exposure]:
        """Return the exposures of *units*, oldest first; with *lost*, also those that count for no
        experiment.
        """
        found: list[Exposure] = []
        for unit in units:
            noted = self._young.get(unit) or self._old.get(unit)
            if noted:
                found += [exposure for exposure in noted if lost or not exposure.lost]
        if len(found) > 1:
            found.sort(key=_read)
        return found


def _reading_of(date: int) -> tuple[float, float]:
    """Return the clock reading at *date*, which was a moment ago, and how many milliseconds ago.

    This thread may have been interrupted since the event was dated.
    """
    reading = clock()
    lag = time.time() * 1000 - date
    return (reading - (lag - 1) / 1000, lag) if 1 < lag < STEP else (reading, 0.0)


def _read(exposure: Exposure) -> float:
    return exposure.read


exposures = ExposureTable()
