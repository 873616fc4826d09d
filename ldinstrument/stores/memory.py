"""MemoryStore: sessions in this process, the default. Bounded; what does not fit ends early and is
counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from ..diagnostics import log_once, warn_once
from ..ledger import ledger
from .compaction import compact
from .protocol import Delta, Ended, Holdings, Merged, Rules, Sealed, today
from .records import PLACES_PER_WINDOW, Record, close, merge, readable
from .replay import events_of

MAX_SESSIONS = 10_000
MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class _Waiting:
    """An ended session: from when on, in milliseconds, it may be handed out, and its last owner."""

    due: int
    text: str
    owner: str = ""


@dataclass(slots=True)
class _Outgoing:
    """A sealed payload, likewise."""

    due: int
    sealed: Sealed
    sealed_at: int


class MemoryStore:
    """A store within one process.

    Sessions are kept as texts in the order of their last activity, so the next to fall silent is
    always the first.

    Args:
        rules: when a session is over.
        max_sessions: how many may be open; beyond, the one silent for longest ends as abandoned. As
            many may wait to be reported.
        clock: milliseconds since the epoch; by default one that nobody sets back.
    """

    shared = False

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        max_sessions: int = MAX_SESSIONS,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self._max = max(1, max_sessions)
        self._clock = clock or _steady_ms()
        self._inherited = False
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._open: dict[str, str] = {}
        self._gone: dict[str, tuple[str, int]] = {}
        self._ended: dict[str, _Waiting] = {}
        self._sealed: dict[str, _Outgoing] = {}
        self._taken: dict[str, int] = {}
        self._places = count()

    # -- open sessions ---------------------------------------------------------------------------
    def merge(self, key: str, delta: Delta) -> Merged | None:
        """Add *delta* to the open session of *key*, or open the next one when that is over."""
        if self._inherited:
            self._inherited = False
            _warn_several_workers()
        with self._lock:
            now = self._clock()
            held, began = self._open.get(key), now - delta.started_ago
            if held is None and key in self._gone:
                text, until = self._gone[key]
                held = text if until > now else None
            result = merge(held, delta, now, self.rules, self._waiting_at)
            if result is None:
                return None

            if result.ended is not None:
                result.follow(self._add_ended(result.ended, now), began)
            if result.keeps_place:
                # A sweeper that claimed it will lose the claim when it seals.
                self._ended[result.place] = _Waiting(0, result.record.text())
                return result.answer
            if result.place:
                del self._ended[result.place]

            # Out, and in again at the end: the order is that of the last activity.
            self._open.pop(key, None)
            record = result.record
            if record.reason:
                self._add_ended(record, now, key, began)
                return result.answer
            for part in compact(record) if result.is_long else ():
                self._add_ended(part, now)
            self._open[key] = record.text()
            self._gone.pop(key, None)
            if len(self._open) > self._max:
                self._evict(now)
            return result.answer

    def _waiting_at(self, place: str) -> str | None:
        waiting = self._ended.get(place)
        return None if waiting is None else waiting.text

    def end(
        self, key: str, reason: str, *, over: int | None = None, active: bool = False
    ) -> str | None:
        """End the open session of *key* now; return its record, None when none is open."""
        with self._lock:
            now, held = self._clock(), self._open.pop(key, None)
            record, was_open = close(held, now, reason, over, active, self.rules)
            if record is not None:
                self._add_ended(record, now, key)
            return record.text() if record is not None and was_open else None

    def _add_ended(
        self, record: Record, now: int, key: str | None = None, began: int | None = None
    ) -> str:
        """Let *record* wait to be sealed; return its place.

        Args:
            record: of a session that has ended, or of a part that leaves early.
            now: the time.
            key: whose session it is that ends: a tombstone takes its place.
            began: when the end began, if that was earlier.
        """
        number, tombstone = record.place_and_tombstone(next(self._places), now, self.rules, began)
        place = str(number)
        self._ended[place] = _Waiting(0, record.text())
        while len(self._ended) > self._max:
            self._lose(readable(self._ended.pop(next(iter(self._ended))).text))
        if key is not None:
            self._gone.pop(key, None)
            self._gone[key] = (tombstone, now + int(self.rules.remember * 1000))
            for oldest in list(islice(self._gone, max(0, len(self._gone) - MAX_REMEMBERED))):
                del self._gone[oldest]
        return place

    def _lose(self, record: Record | None) -> None:
        """Drop the oldest ended session, and count its events: nobody reported for so long that
        memory is full.
        """
        events = 0
        if record is not None:
            lost = events_of(record, self.rules)
            events = len(lost.values) + len(lost.totals)
        ledger.count(emitted=events)
        ledger.dropped("store_full", events)
        warn_once(
            "store_full",
            "MemoryStore",
            f"more than {self._max} ended sessions wait in memory to be reported: the oldest are "
            "dropped; is there a LaunchDarkly client, and does it reach LaunchDarkly?",
        )

    def _evict(self, now: int) -> None:
        while len(self._open) > self._max:
            key = next(iter(self._open))
            record = readable(self._open.pop(key))
            if record is not None:
                record.end("abandoned", today())
                self._add_ended(record, now, key)
            ledger.evicted()
            warn_once(
                "evicted",
                "MemoryStore",
                f"more than {self._max} open sessions in memory: the one silent for longest ended "
                "early; raise max_sessions=, or use sqlite:/// or redis://",
            )

    # -- ended sessions --------------------------------------------------------------------------
    def claim(self, limit: int, lease: float, owner: str, *, early: bool = True) -> list[Ended]:
        """Hand out sessions that are over, of one batch; nobody else is handed them for *lease*
        seconds.
        """
        with self._lock:
            now = self._clock()
            self._retire(limit, now)
            window = now // int(self.rules.window * 1000) * PLACES_PER_WINDOW
            end = window + PLACES_PER_WINDOW if early else window
            due = sorted(
                number
                for place, held in self._ended.items()
                if held.due <= now and (number := int(place)) < end
            )
            first = due[0] // PLACES_PER_WINDOW if due else 0
            claimed = [str(place) for place in due if place // PLACES_PER_WINDOW == first][:limit]
            for place in claimed:
                self._ended[place].due = now + int(lease * 1000)
                self._ended[place].owner = owner
            return [Ended(place, self._ended[place].text) for place in claimed]

    def _retire(self, limit: int, now: int) -> None:
        """Move on what has fallen silent: at the front, for the order is that of the last
        activity.
        """
        silent = []
        for key, text in islice(self._open.items(), limit):
            record = readable(text)
            if record is not None and record.deadline(self.rules) > now:
                break
            silent.append((key, record))
        for key, record in silent:
            del self._open[key]
            if record is not None:
                self._add_ended(record, now, key)

    def end_silent(self) -> int:
        """End every session that is over; return how many."""
        with self._lock:
            before = len(self._open)
            self._retire(before, self._clock())
            return before - len(self._open)

    def seal(
        self, places: Sequence[str], sealed: Sequence[Sealed], lease: float, owner: str
    ) -> list[str]:
        """Put *sealed* in the place of the claimed sessions *places*, all or nothing; return those
        that were lost.
        """
        with self._lock:
            lost = [
                place
                for place in places
                if place not in self._ended or self._ended[place].owner != owner
            ]
            if not lost:
                for place in places:
                    del self._ended[place]
                self._keep(sealed, lease)
            return lost

    # -- sealed payloads -------------------------------------------------------------------------
    def _keep(self, payloads: Sequence[Sealed], lease: float) -> None:
        now = self._clock()
        until = now + int(lease * 1000)
        for payload in payloads:
            sealed_at = now - int(payload.age * 1000)
            self._sealed[payload.id] = _Outgoing(until, replace(payload, attempts=1), sealed_at)

    def claim_sealed(self, limit: int, lease: float, owner: str) -> list[Sealed]:
        """Hand out up to *limit* sealed payloads whose time has come."""
        with self._lock:
            now = self._clock()
            due = (held for held in self._sealed.values() if held.due <= now)
            claimed = list(islice(due, limit))
            for held in claimed:
                held.due = now + int(lease * 1000)
                age = (now - held.sealed_at) / 1000
                held.sealed = replace(held.sealed, attempts=held.sealed.attempts + 1, age=age)
            return [held.sealed for held in claimed]

    def acknowledge(self, payload_id: str) -> None:
        """Forget a payload."""
        with self._lock:
            self._sealed.pop(payload_id, None)

    def postpone(self, payload_id: str, delay: float) -> None:
        """Let a payload be claimed again after *delay* seconds."""
        with self._lock:
            if found := self._sealed.get(payload_id):
                found.due = self._clock() + int(delay * 1000)

    def replace(self, payload_id: str, halves: Sequence[Sealed]) -> None:
        """Put *halves* in the place of a payload that was too large."""
        with self._lock:
            if self._sealed.pop(payload_id, None) is not None:
                self._keep(halves, 0.0)

    # -- what may happen once --------------------------------------------------------------------
    def once(self, key: str, ttl: float) -> bool:
        """Take *key* for *ttl* seconds; False when somebody has it already.

        When as many are taken as sessions may be open, the one taken first is free again.
        """
        with self._lock:
            now = self._clock()
            if self._taken.get(key, 0) > now:
                return False
            self._taken.pop(key, None)
            if len(self._taken) >= self._max:
                self._taken = {held: until for held, until in self._taken.items() if until > now}
            if len(self._taken) >= self._max:
                del self._taken[next(iter(self._taken))]
            self._taken[key] = now + int(ttl * 1000)
            return True

    # -- life ------------------------------------------------------------------------------------
    def holdings(self) -> Holdings:
        """Return what the store holds now."""
        with self._lock:
            return Holdings(len(self._open), len(self._ended), len(self._sealed))

    def check(self) -> None:
        """Do nothing: memory is always there."""

    def refuses(self, error: BaseException) -> bool:
        """Return True: what fails in memory fails again."""
        return True

    def end_unshared(self, reason: str) -> int:
        """End every open session: the process is going, and nobody else can see them."""
        with self._lock:
            keys = list(self._open)
            for key in keys:
                self.end(key, reason, over=today())
            return len(keys)

    def pause(self) -> None:
        """Wait before a fork until no other thread is halfway."""
        self._lock.acquire()

    def resume(self) -> None:
        """Go on in the parent after a fork."""
        self._lock.release()

    def forked(self) -> None:
        """Begin afresh in the child: what the parent holds is the parent's to report."""
        self._begin()
        self._inherited = True

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


def _warn_several_workers() -> None:
    log_once(
        "several_workers",
        "memory",
        "several workers keep sessions in memory, each its own: a visitor who meets two of them "
        "has two sessions; use open_store('sqlite:///path') on one host, 'redis://...' in a fleet",
    )


def _steady_ms() -> Callable[[], int]:
    """Return a clock that begins at the wall clock's time and does not follow its corrections."""
    offset = time.time() - time.monotonic()
    return lambda: int((time.monotonic() + offset) * 1000)
