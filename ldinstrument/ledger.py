"""The ledger: what became of every value and every event, in rows that add up.

* values: `recorded = emitted + open + discarded[reason]`
* events: `emitted = delivered + pending + unconfirmed + dropped[reason]`

A *value* is one measurement handed to us; an *event* is one `track` call. A session's rollup may
turn a thousand values into one event, so the two are counted apart.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .process import on_fork
from .values import Frozen

MOST_KEYS = 10_000
_NONE: Mapping[Any, Any] = MappingProxyType({})


class Values(Frozen):
    """What became of the values: `recorded == emitted + open + sum(discarded.values())`."""

    __slots__ = (
        "recorded",
        "emitted",
        "open",
        "discarded",
    )
    recorded: int
    emitted: int
    open: int
    discarded: Mapping[str, int]

    def __init__(
        self,
        recorded: int = 0,
        emitted: int = 0,
        open: int = 0,
        discarded: Mapping[str, int] = _NONE,
    ) -> None:
        self._fill(recorded, emitted, open, discarded)


class Events(Frozen):
    """What became of the events: `emitted == delivered + pending + unconfirmed +
    sum(dropped.values())`.

    `unconfirmed` left through a client that cannot tell whether LaunchDarkly took them.
    """

    __slots__ = (
        "emitted",
        "delivered",
        "pending",
        "unconfirmed",
        "dropped",
    )
    emitted: int
    delivered: int
    pending: int
    unconfirmed: int
    dropped: Mapping[str, int]

    def __init__(
        self,
        emitted: int = 0,
        delivered: int = 0,
        pending: int = 0,
        unconfirmed: int = 0,
        dropped: Mapping[str, int] = _NONE,
    ) -> None:
        self._fill(emitted, delivered, pending, unconfirmed, dropped)


NO_EVENTS = Events()


class Sessions(Frozen):
    """The sessions of one name whose `<name>.*` events have been made, counted once per identity.

    Args:
        ended: how many.
        exposed: those of them whose context this process has seen exposed to an experiment.
        diluted: those of the exposed ones that were active before their first exposure: an effect
            on their duration and rate shows thinner.
        milliseconds: how long the exposed ones lasted, all together.
        milliseconds_before: the part of that which lies before their first exposure.
        unseen: exposures that a store learned of only after values around them had been folded:
            those sums count as before it.
    """

    __slots__ = (
        "ended",
        "exposed",
        "diluted",
        "milliseconds",
        "milliseconds_before",
        "unseen",
    )
    ended: int
    exposed: int
    diluted: int
    milliseconds: float
    milliseconds_before: float
    unseen: int

    def __init__(
        self,
        ended: int = 0,
        exposed: int = 0,
        diluted: int = 0,
        milliseconds: float = 0.0,
        milliseconds_before: float = 0.0,
        unseen: int = 0,
    ) -> None:
        self._fill(ended, exposed, diluted, milliseconds, milliseconds_before, unseen)

    @property
    def share_before(self) -> float:
        """Which part of the time of the exposed ones lies before their exposure, 0 to 1."""
        return self.milliseconds_before / self.milliseconds if self.milliseconds else 0.0


class Stats(Frozen):
    """One reading of the ledger.

    Args:
        values: the values equation.
        events: the events equation.
        late: values that came after the end of their session (part of `values.recorded`).
        without_session: task runs that no session received, by metric key (their values are in
            `values.discarded["no_session"]`).
        suspended: task runs that go on elsewhere (a retry, a rerun, an interrupt), by task key;
            they are in no metric.
        unfinished: task runs that were cancelled or abandoned and that no metric tells of, by task
            key.
        evicted_sessions: sessions ended early because too many were open.
        sessions: those that have ended, by their name: how many were exposed, and how much of them
            lies before their exposure.
        exposures: the same equation for flag evaluations that are sent with full data, as in an
            experiment; `emitted` once they are written, `unconfirmed` always 0.
        warnings: how often each warning would have been logged, by (cause, subject).
    """

    __slots__ = (
        "values",
        "events",
        "late",
        "without_session",
        "suspended",
        "unfinished",
        "evicted_sessions",
        "sessions",
        "exposures",
        "warnings",
    )
    values: Values
    events: Events
    late: int
    without_session: Mapping[str, int]
    suspended: Mapping[str, int]
    unfinished: Mapping[str, int]
    evicted_sessions: int
    sessions: Mapping[str, Sessions]
    exposures: Events
    warnings: Mapping[tuple[str, str], int]

    def __init__(
        self,
        values: Values,
        events: Events,
        late: int = 0,
        without_session: Mapping[str, int] = _NONE,
        suspended: Mapping[str, int] = _NONE,
        unfinished: Mapping[str, int] = _NONE,
        evicted_sessions: int = 0,
        sessions: Mapping[str, Sessions] = _NONE,
        exposures: Events = NO_EVENTS,
        warnings: Mapping[tuple[str, str], int] = _NONE,
    ) -> None:
        self._fill(
            values,
            events,
            late,
            without_session,
            suspended,
            unfinished,
            evicted_sessions,
            sessions,
            exposures,
            warnings,
        )


class Ledger:
    """The process-wide counts. Rows that can be derived (`open`, `pending`) are, so the equations
    cannot drift.
    """

    def __init__(self) -> None:
        # Re-entrant: a finaliser that the garbage collector runs in here may count, too.
        self.lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Forget every count (tests, and a forked child)."""
        with self.lock:
            self._recorded = self._emitted_values = self._late = self._evicted = 0
            self._emitted = self._delivered = self._unconfirmed = 0
            self._exposures_emitted = self._exposures_delivered = 0
            self._discarded: Counter[str] = Counter()
            self._dropped: Counter[str] = Counter()
            self._exposures_dropped: Counter[str] = Counter()
            self._without_session: Counter[str] = Counter()
            self._suspended: Counter[str] = Counter()
            self._unfinished: Counter[str] = Counter()
            self._sessions: dict[str, list[float]] = {}
            self.newly_unconfirmed = 0
            """Events handed to clients that cannot tell, since a flush took them last."""

    def forked(self) -> None:
        """In a forked child: the parent's counts are the parent's, and its threads may have held
        the lock.
        """
        self.lock = threading.RLock()
        self.clear()

    # -- the rows that no reason divides ---------------------------------------------------------
    def count(
        self,
        *,
        recorded: int = 0,
        emitted_values: int = 0,
        emitted: int = 0,
        delivered: int = 0,
        exposures_emitted: int = 0,
        exposures_delivered: int = 0,
    ) -> None:
        """Add to several rows at once.

        Args:
            recorded: values; they are open until emitted or discarded.
            emitted_values: values that move from open to emitted.
            emitted: events; they are pending until their fate is known.
            delivered: events that move from pending to delivered: LaunchDarkly answered 202.
            exposures_emitted: flag evaluations with full data; they are pending, too.
            exposures_delivered: evaluations that move from pending to delivered.
        """
        with self.lock:
            self._recorded += recorded
            self._emitted_values += emitted_values
            self._emitted += emitted
            self._delivered += delivered
            self._exposures_emitted += exposures_emitted
            self._exposures_delivered += exposures_delivered

    # -- values ----------------------------------------------------------------------------------
    def discarded(self, reason: str, count: int = 1) -> None:
        """Move *count* values from open to `discarded[reason]`."""
        with self.lock:
            self._discarded[reason] += count

    def late(self, count: int = 1) -> None:
        """Count values that came after the end of their session."""
        with self.lock:
            self._late += count

    def without_session(self, key: str, runs: int, values: int) -> None:
        """Count *runs* of the task *key* that no session received, worth *values* values."""
        with self.lock:
            self._without_session[_bounded(key, self._without_session)] += runs
            self._recorded += values
            self._discarded["no_session"] += values

    def suspended(self, key: str, runs: int = 1) -> None:
        """Count *runs* runs of the task *key* that go on elsewhere."""
        with self.lock:
            key = key or "(an interaction)"
            self._suspended[_bounded(key, self._suspended)] += runs

    def suspended_runs(self) -> dict[str, int]:
        """Return how many runs went on elsewhere, by task key."""
        with self.lock:
            return dict(self._suspended)

    def unfinished(self, key: str, runs: int = 1) -> None:
        """Count *runs* runs of the task *key* that did not finish and that no metric tells of."""
        with self.lock:
            self._unfinished[_bounded(key, self._unfinished)] += runs

    def evicted(self) -> None:
        """Count a session that was ended because too many were open."""
        with self.lock:
            self._evicted += 1

    def session_ended(
        self,
        name: str,
        exposed: bool,
        milliseconds: float,
        before: float | None = None,
        recorded: int = 0,
    ) -> None:
        """Count a session whose events have been made.

        Args:
            name: of the session.
            exposed: whether its context was exposed to an experiment.
            milliseconds: how long it lasted.
            before: the part of that up to its last activity before its first exposure; None when
                it was not active before that.
            recorded: how many values were recorded by its events; they are open.
        """
        with self.lock:
            self._recorded += recorded
            found = self._sessions.get(name) or self._of_sessions(name)
            found[0] += 1
            if exposed:
                whole = max(0.0, milliseconds)
                found[1] += 1
                found[3] += whole
                found[4] += min(max(0.0, before or 0.0), whole)
            found[2] += before is not None

    def unseen_exposures(self, name: str, count: int) -> None:
        """Count exposures that were learned of after values of sessions around them had folded."""
        with self.lock:
            self._of_sessions(name)[5] += count

    def sessions(self, name: str) -> Sessions:
        """Return what was counted of the sessions called *name*."""
        with self.lock:
            return _sessions(self._of_sessions(name))

    def _of_sessions(self, name: str) -> list[float]:
        """Return the counts of the sessions called *name*, in the order of `Sessions`."""
        known = self._sessions.get(name)
        if known is None:
            name = name if len(self._sessions) < MOST_KEYS else "..."
            known = self._sessions.setdefault(name, [0, 0, 0, 0.0, 0.0, 0])
        return known

    # -- events ----------------------------------------------------------------------------------
    def unconfirmed(self, count: int = 1) -> None:
        """Move *count* events from pending to unconfirmed: handed to a client that cannot tell."""
        with self.lock:
            self._unconfirmed += count
            self.newly_unconfirmed += count

    def take_newly_unconfirmed(self) -> int:
        """Return `newly_unconfirmed`, and begin anew."""
        with self.lock:
            count, self.newly_unconfirmed = self.newly_unconfirmed, 0
            return count

    def dropped(self, reason: str, count: int = 1) -> None:
        """Move *count* events from pending to `dropped[reason]`."""
        with self.lock:
            self._dropped[reason] += count

    # -- exposures -------------------------------------------------------------------------------
    def exposures_dropped(self, reason: str, count: int) -> None:
        """Move *count* evaluations from pending to `dropped[reason]`."""
        with self.lock:
            self._exposures_dropped[reason] += count

    # -- reading ---------------------------------------------------------------------------------
    def stats(self) -> Stats:
        """One consistent reading."""
        with self.lock:
            still_open = self._recorded - self._emitted_values - sum(self._discarded.values())
            return Stats(
                Values(self._recorded, self._emitted_values, still_open, _frozen(self._discarded)),
                _events(self._emitted, self._delivered, self._unconfirmed, self._dropped),
                late=self._late,
                without_session=_frozen(self._without_session),
                suspended=_frozen(self._suspended),
                unfinished=_frozen(self._unfinished),
                evicted_sessions=self._evicted,
                sessions=MappingProxyType(
                    {name: _sessions(counts) for name, counts in self._sessions.items()}
                ),
                exposures=_events(
                    self._exposures_emitted, self._exposures_delivered, 0, self._exposures_dropped
                ),
            )


def _sessions(counts: list[float]) -> Sessions:
    ended, exposed, diluted, milliseconds, before, unseen = counts
    return Sessions(int(ended), int(exposed), int(diluted), milliseconds, before, int(unseen))


def _bounded(key: str, counter: Counter[str]) -> str:
    """Return *key*, or "..." for a new one in a full *counter*: a program may make keys up."""
    return key if key in counter or len(counter) < MOST_KEYS else "..."


def _events(emitted: int, delivered: int, unconfirmed: int, dropped: Counter[str]) -> Events:
    pending = emitted - delivered - unconfirmed - sum(dropped.values())
    return Events(emitted, delivered, pending, unconfirmed, _frozen(dropped))


def _frozen(counter: Counter[str]) -> Mapping[str, int]:
    return MappingProxyType({reason: count for reason, count in sorted(counter.items()) if count})


ledger = Ledger()
on_fork(in_child=ledger.forked)
