"""A session: one visit, conversation, request or invocation of one context. It accumulates, then
emits.

Nothing here raises into the host, and no event leaves while a lock of ours is held.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..diagnostics import never_raises, withhold
from ..ledger import ledger
from ..metrics.catalogs import catalog
from ..metrics.metric import Metric
from . import clock as clocks
from . import emission, open_table
from .accounts import (
    DEFAULT_METRICS,
    SUMS,
    Accounts,
    SessionAccount,
    fed_metrics,
)
from .accumulator import FOLD_AT, HELD_RUNS, Accumulator, Sample
from .clients import (
    Tracker,
    check_client,
    client_for,
    direct,
    exposures_are_seen,
    warn_unwatched,
)
from .clock import STEP, clock, forward_offset
from .contexts import as_context, context_class, context_of_keys, only_kinds, units_of
from .dilution import EndedSession, note_ended
from .exposures import exposures
from .identity import Batch, OwnedRecorder
from .ids import as_text, random_bits, session_id
from .magnitudes import settled
from .open_table import before_opening, open_references
from .parts import Segment, SessionPart, units_in
from .postponed import later, postpone
from .rollups import Emission, FinishedRuns
from .summaries import Summary, summarised
from .validation import MAX_INT, copied, measures

if TYPE_CHECKING:
    from ldclient import Context

    from .observers import SessionObserver

MOST_SINGLE = 32
"""Entries of a stored session that are kept apart, for exposures in other processes."""

_identity = id  # which in a signature is a session's

_UNKNOWN: tuple[int, Any, Any] = (-1, None, None)
"""What `measures` would tell of a metric, if it were known there."""

_NO_DATA: dict[str, Any] = {}
"""Of a session that has none: never changed."""

observers: list[Callable[[Session], SessionObserver]] = []
"""What makes the observer of each session that opens; see `scopes.observe_sessions`."""


class Session(OwnedRecorder):
    """An open session; made by `session(...)`, never by hand."""

    is_inert = False
    """Whether it only looks like one: it is never open, and nothing leaves."""

    __slots__ = (
        "__weakref__",
        "_accumulator",
        "_began",
        "_data",
        "_given_id",
        "_id",
        "_metrics",
        "_number",
        "_offset",
        "_partial",
        "_watched",
        "before",
        "entries",
        "fold_at",
        "name",
        "observer",
        "open_entries",
        "stopped_at",
    )

    def __init__(
        self,
        who: Any,
        *,
        id: str | None = None,
        name: str = "session",
        data: Mapping[str, Any] | None = None,
        client: Tracker | None = None,
        outer: Session | None = None,
        silent: bool = False,
        store: Any = None,
        metrics: tuple[str, ...] = DEFAULT_METRICS,
    ) -> None:
        if (later or emission.held_events) and not self.is_inert:
            emission.settle()

        # Mostly a valid context, or a key of kind `user`; `as_context` knows what else there is.
        kind = context_class()
        context = kind.create(who) if type(who) is str else who
        if context is not None and not (type(context) is kind and context.valid):
            context = as_context(who)
        self.own_context = self._named = context
        self._said, self._inheriting = (), ()
        self._id = None if id is None else session_id(id)
        self._number = random_bits(128)
        self._given_id = id
        self.name = name
        self._data = _NO_DATA if data is None else copied(data, f"{name}.*") or _NO_DATA
        self._silent = silent
        self._metrics = metrics
        self.store = store
        self.stopped_at: float | None = None
        """A reading of `time.perf_counter` at which its time has ended, whatever comes later."""

        # What it is given: many sessions are given nothing.
        self._lock = threading.RLock()
        self.entries: list[Sample] = []
        # Those that a run may append to without asking: None once it has ended, or is observed.
        self.open_entries: list[Sample] | None = self.entries
        self._accumulator: Accumulator | None = None
        self._accounts: Accounts | None = None
        self._segments: tuple[Segment, ...] = ()
        self._waiting: Sequence[Emission | FinishedRuns] = ()
        self._partial = False

        self.client = client
        self._seen_client: weakref.ref[Any] | None = None
        known = direct.get(_identity(client))
        self._watched = known is not None and known() is client
        if not self._watched:
            check_client(client)
        self.fold_at = FOLD_AT if self._watched or self.is_watched() else 1

        began = self._began = clock()
        self._offset: float = (clocks.wall.time() - began) * 1000
        self.before: Session | None = None
        """What was current where a scope opened it."""
        self.outer = outer
        if outer is not None:  # it dates nothing earlier than the one around it would
            around = outer._accumulator
            self._offset = max(self._offset, outer._offset if around is None else around.offset)
            if context is None:
                outer.add_inheriting(self)

        self.ended = False
        self.observer: SessionObserver | None = None
        if self.is_inert:
            return
        for prepare in before_opening:
            prepare()
        open_references[weakref.ref(self)] = None
        if len(open_references) > open_table.MAX_OPEN:
            open_table.evict()
        for make in observers:
            self.observe(make(self))

    @property
    def _held(self) -> Accumulator:
        """What it has been given, made when that is first asked for: many sessions are given
        nothing.
        """
        if self._accumulator is not None:
            return self._accumulator
        with self._lock:
            if self._accumulator is None:
                # Outside a session, one call becomes a session of its own: no session.* metrics,
                # but the rate limit holds. What comes late comes one by one.
                held = Accumulator(
                    self.entries,
                    context=self.context if self.own_context is None else self.own_context,
                    started=self._began,
                    offset=self._offset,
                    limited=self._silent or self.ended,
                    single=0 if self.store is None else MOST_SINGLE,
                )
                self._accumulator = held
            return self._accumulator

    # -- samples ---------------------------------------------------------------------------------
    def record(
        self, metric: Metric | str, value: Any = None, *, data: Mapping[str, Any] | None = None
    ) -> None:
        """Record a value of *metric* (a `Metric`, or the key of a declared one).

        Args:
            metric: what is measured. A `Metric` that the catalog lacks is added to it.
            value: a finite number for a `value` metric, how many for a `count` (1 when left out),
                nothing for an `occurrence`. A bad value is dropped, counted, and logged once.
            data: goes with the event; JSON types, at most 16 KiB, copied now.
        """
        # Mostly a number for a metric that has got many.
        key = metric.key if type(metric) is Metric else metric if type(metric) is str else ""
        version, known, routing = measures.get(key, _UNKNOWN)
        if (
            version == catalog.version
            and (known is metric or type(metric) is str)
            and (type(value) is float or type(value) is int)
            and -MAX_INT <= value <= MAX_INT
            and data is None
            and key in settled
        ):
            self.entries.append((routing, value, None, clock(), None))
            if len(self.entries) >= self.fold_at:
                self.fold_up()
        else:
            super().record(metric, value, data=data)

    def append(self, entry: Sample) -> None:
        """Take one sample; fold when there are many."""
        self.entries.append(entry)
        if len(self.entries) >= self.fold_at:
            self.fold_up()

    def append_from_finalizer(self, entry: Sample) -> None:
        """Take one sample from a finalizer: no lock, no emission; what comes after the end is left
        for the next safe moment.
        """
        self.entries.append(entry)
        if self.ended:
            postpone(self.fold_up)

    @never_raises
    def add_data(self, **data: Any) -> None:
        """Add to the data of the session's own `<name>.*` events: what is known only later, such as
        a status.
        """
        self.merge_data(data)

    @never_raises
    def merge_data(self, data: Mapping[str, Any]) -> None:
        """Add to the data from a mapping, whose keys need not be names."""
        added = copied(data, f"{self.name}.*")
        if added:
            with self._lock:
                self._data = {**self._data, **added}

    def touch(self) -> None:
        """Note that the session is active now; its duration counts to here."""
        with self._lock:
            self._held.touch(clock())

    # -- who observes it -------------------------------------------------------------------------
    def observe(self, observer: SessionObserver) -> None:
        """Let *observer* hear of its runs, and of its end."""
        self.observer, self.open_entries = observer, None

    @property
    def id(self) -> str:
        """What it is called in its events: as given, else random."""
        return self._id or f"{self._number:032x}"

    @property
    def silent(self) -> bool:
        """Whether it is one call's alone, without metrics of its own."""
        return self._silent

    @property
    def id_is_given(self) -> bool:
        """Whether the program gave its id."""
        return self._given_id is not None

    def adopt_id(self, id: str) -> None:
        """Take the id of the session that it goes on for, which another process has told; an id
        that the program gave stays, and a stored visit keeps its own.
        """
        if self._given_id is None and self.store is None:
            self._id = session_id(id)

    def date_now(self) -> int:
        """Return the date of this moment, on the session's own time, which never runs backwards."""
        return self._date(clock())

    def _date(self, reading: float) -> int:
        held = self._accumulator
        return int(reading * 1000 + self._offset) if held is None else held.date(reading)

    @property
    def started_at(self) -> float:
        """Its start, in seconds since the epoch."""
        return self._date(self._began if self._accumulator is None else self._held.started) / 1000

    @property
    def visitor_key(self) -> str:
        """What a store knows it by: the id that was given, else its context, else its own id."""
        if self._given_id:
            return self._given_id
        known = self.context
        return self.id if known is None else str(known.fully_qualified_key)

    # -- folding ---------------------------------------------------------------------------------
    def fold_up(self) -> None:
        """Fold the entries; emit what came late, or what has become too much to hold."""
        try:
            with self._lock:
                if self.ended:
                    events = self._fold(at_last=True) + self._last_events()
                    outgoing = [(self.context, events), *self._counted("late")]
                    if self._held.values:
                        ledger.late(self._held.values)
                else:
                    events = self._fold()
                    hold = HELD_RUNS if self.fold_at > 1 else 0
                    events += self._held.take_loose(hold=hold)
                    outgoing = [(self.context, events)] if events else []
            if outgoing:
                self._send(outgoing)
        except Exception as error:
            withhold("fold", error)

    def _fold(
        self, *, at_last: bool = False, for_store: bool = False
    ) -> list[Emission | FinishedRuns]:
        """Fold; returns what exposures have divided off. The lock is held."""
        # Where nobody sees exposures, no value may wait: it is dated to when it leaves. Nor in a
        # forked child, which may end without a word, nor in its parent, which hears of none there.
        alone = not self._partial and exposures.forked_at < self._began
        folds = alone and (self._watched or self.is_watched())
        if not self.ended:
            self.fold_at = FOLD_AT if folds else 1
        held = self._accumulator or self._held
        segments = held.fold(folds=folds, at_last=at_last, for_store=for_store)
        return (
            [event for segment in segments for event in self._absorb(segment)] if segments else []
        )

    def is_watched(self) -> bool:
        """Tell whether the exposures that its client makes are seen."""
        taker = client_for(self.client, self._seen_client)
        seen = exposures_are_seen(taker)
        if not seen:
            warn_unwatched(taker)
        return seen

    def _absorb(self, segment: Segment) -> list[Emission]:
        """Account for a segment that is over; returns its events, unless a store wants them
        whole.
        """
        if self.store is not None and not self.ended:
            if segment.active is not None or segment.groups:
                exposures.note_left(self._held.units, segment.last)
                self._segments += (segment,)
            return []
        if not self._silent and (self.store is None or self.ended):
            self._accounts_of(segment.keys).add(segment)
        return emission.events_of(segment.groups) if segment.groups else []

    def _last_events(self) -> list[Emission | FinishedRuns]:
        """End the segment; returns its events and the loose ones. The lock is held."""
        segment, loose = self._held.close(), self._held.take_loose()
        return loose if segment is None else [*self._absorb(segment), *loose]

    # -- sending ---------------------------------------------------------------------------------
    def _send(self, outgoing: Iterable[Batch]) -> None:
        for context, events in outgoing:
            if not events:
                continue
            if context is not None:
                units = units_of(context) if context.multiple else (context.fully_qualified_key,)
                held, now = self._accumulator, clock()
                date = int(now * 1000 + self._offset) if held is None else held.date(now)
                exposures.note_left(units, date)
            elif (heir := self.may_learn_who()) is not None:
                heir.wait(events)
                continue
            emission.emit_all(events, context, self.client, self._seen_client)

    # -- the end ---------------------------------------------------------------------------------
    def end(self, reason: str = "ended") -> None:
        """End the session and emit its metrics; ending twice is harmless.

        Its `session.*` events are dated to now; its duration counts to the last activity.
        """
        try:
            if self.store is not None:  # the session goes on in there; this was one stay
                self.store.end_request(self)
                return
            if type(reason) is not str:
                reason = as_text(reason, "reason of an end", "it is 'ended'") or "ended"
            with self._lock:
                if self.ended:
                    return
                outgoing = self._end(reason)
            self._send(outgoing)
            if self.entries:  # another thread was late
                self.fold_up()
            if later or emission.held_events:
                emission.settle()
            if self.observer is not None:
                self.observer.ended(self, reason)
        except Exception as error:
            withhold("end", error)

    def leave(self) -> None:
        """Note that a block which had joined it is over: in a forked child, where nothing else may
        end it, what it counted leaves.
        """
        if self._partial and not self.ended:
            with self._lock:
                events = self._fold() + self._last_events()
                outgoing = [(self.context, events), *self._counted("forked")]
            self._send(outgoing)

    def _counted(self, reason: str) -> list[Batch]:
        """Return what adds up of what is no longer, or not here, told as a whole."""
        context, accounts, self._accounts = self.context, self._accounts, None
        if context is None or accounts is None:
            return []
        return [self._totals(account, context, reason) for account in accounts.open]

    def _end(self, reason: str) -> list[Batch]:
        """Stop, and return the events that are left. The lock is held."""
        context = self.context if self.own_context is None else self.own_context
        units: tuple[str, ...] = ()
        if context is not None:
            units = units_of(context) if context.multiple else (context.fully_qualified_key,)

        events: list[Emission | FinishedRuns] = []
        accounts = [SessionAccount({}, self._began)]
        given = self._accumulator is not None or self.entries or self._waiting
        if given or exposures.of(units, lost=True):
            events = [*self._waiting, *self._fold(at_last=True)]
            self._waiting = ()
            if self._accounts is None:  # nobody else, and no exposure in the middle
                held = self._accumulator or self._held
                groups, loose, accounts[0].tallies, accounts[0].last = held.finish()
                events += emission.events_of(groups) + loose if groups else loose
            else:
                events += self._last_events()
                accounts = self._accounts.open
        else:  # nothing was, and none of them is exposed
            units = ()
            if (clocks.wall.time() - clock()) * 1000 - self._offset >= STEP:
                self._offset = forward_offset(self._offset)

        outgoing = [(context, events)]
        for account in () if self._silent else accounts:
            whose, totals = self._totals(account, context, reason, units)
            if whose is context:
                events += totals
            else:
                outgoing.append((whose, totals))
        self._stop()
        return outgoing

    def _totals(
        self,
        account: SessionAccount,
        context: Context | None,
        reason: str,
        units: tuple[str, ...] | None = None,
    ) -> Batch:
        """Make the `session.*` events of *account*, which is over now, for the kinds it is of.

        Of what comes late, and in a forked child, only what adds up: the session is told elsewhere.

        Args:
            account: what has been counted.
            context: whose, with all kinds of the session.
            reason: why it is over.
            units: of *context*, as far as they may have been exposed; all of them when None.
        """
        now, metrics = clock(), self._metrics
        if account.keys and account.keys.keys() != (keys := self._held.keys).keys():
            metrics = fed_metrics(self.name, metrics, account.keys, keys)
            context = None if context is None else only_kinds(context, account.keys)
            units = None
        length = ((self.stopped_at or account.last or now) - account.began) * 1000
        is_part = self._partial or self.ended
        if is_part:
            metrics = tuple([suffix for suffix in metrics if suffix in SUMS])
        held = self._accumulator
        over = int(now * 1000 + self._offset) if held is None else held.date(now)
        events = emission.session_totals(
            self.name, metrics, account.tallies, length, account.pieces, over,
            id=self._id or f"{self._number:032x}", data=self._data, reason=reason,
        )  # fmt: skip
        if is_part:
            events = [event for event in events if event.value]
        if is_part or context is None:
            ledger.count(recorded=len(events))
            return context, [*events]

        if units is None:
            units = units_of(context)
        known = exposures.of(units) if units else []
        if account.before is None or (known and known[0].read <= account.began):
            # Exposed before it began, or not in it: nothing of it lies before that.
            ledger.session_ended(self.name, bool(known), length, recorded=len(events))
        else:
            ledger.count(recorded=len(events))
            note_ended(EndedSession(self.name, bool(known), length, account.before_ms))
        return context, [*events]

    def _stop(self) -> None:
        """Take no more; what is around was active as long as this one was."""
        self.ended, self.open_entries = True, None
        held = self._accumulator
        if held is not None:
            held.limited = True
        self.fold_at = 0
        self._accounts = None
        open_references.pop(weakref.ref(self), None)
        if self.outer is not None:
            self.outer._held.touch(self._began if held is None else held.last)

    # -- a stay in a store -----------------------------------------------------------------------
    def hand_over(self) -> SessionPart | None:
        """End this stay in a session that a store keeps.

        Returns:
            What it adds, for the store to merge; None when it has ended already. The store then
            calls `merged_into`.
        """
        with self._lock:
            if self.ended:
                return None
            held = self._accumulator or self._held
            loose = [*self._waiting, *self._fold(at_last=True, for_store=True)]
            segments, last_segment = self._segments, held.close()
            if self.store is None and self._accounts is not None:
                segments = self._accounts.past(held.date)
            if last_segment is not None:
                segments = (*segments, last_segment)
            loose += held.take_loose()

            # Whoever it belonged to before may have been exposed, too.
            known = exposures.of(held.units)
            if any(segment.keys != held.keys for segment in segments):
                known = exposures.of(units_in(segments, held.units))

            now = clock()
            last = self.stopped_at or (held.last if held.last > held.started else now)
            over = held.date(now)
            offset = max(held.offset, over - now * 1000)
            part = SessionPart(
                id=self._id or f"{self._number:032x}",
                given_id=self._given_id,
                name=self.name,
                metrics=self._metrics,
                started=held.date(held.started),
                last=held.date(last),
                over=over,
                age=over - int(held.started * 1000 + offset),
                idle=over - int(last * 1000 + offset),
                offset=offset,
                context=self.context if self.own_context is None else self.own_context,
                data=self._data,
                exposures={exposure.name: exposure.date for exposure in known},
                segments=segments,
                loose=tuple(loose),
            )
            self._stop()
        return part

    def merged_into(self, part: SessionPart, id: str, keys: Mapping[str, str]) -> None:
        """Go on as a part of the stored session *id*, and emit what does not fold.

        Args:
            part: what `hand_over` returned.
            id: of the session that it was merged into; its own, when the store did not answer.
            keys: whose that is, by context kind, as far as the store knows.
        """
        self._id = id
        exposures.note_left(self._held.units, part.over)
        if part.loose:
            whose = context_of_keys(keys) if part.context is None else part.context
            emission.emit_all(part.loose, whose, self.client, self._seen_client)
        if self.entries:
            self.fold_up()
        if later or emission.held_events:
            emission.settle()
        if self.observer is not None:
            self.observer.ended(self, "merged")

    def summary(self) -> Summary:
        """Tell what the session has seen so far."""
        with self._lock:
            events, context = self._fold(), self.context
            seen = summarised(
                (self._held.last - self._held.started) * 1000, self._held.tallies, self._held.tasks
            )
        self._send([(context, events)])
        return seen

    def __repr__(self) -> str:
        return f"<Session {self.name} {self.id}{' ended' if self.ended else ''}>"

    def __del__(self) -> None:
        # A dropped session is abandoned. Do not emit from here: resurrect it and end it later.
        if not getattr(self, "ended", True) and postpone is not None:
            postpone(self._abandon)

    def _abandon(self) -> None:
        self.end("abandoned")

    def forked(self) -> None:
        """Begin afresh in a forked child: what the parent recorded is the parent's to send."""
        self._lock = threading.RLock()
        if self._accumulator is not None:
            self._accumulator.clear()
        self.entries.clear()
        self._waiting, self._segments = (), ()
        self._accounts = None
        self._partial = True
        self.store = None  # whose visit it is part of, only the parent's boundary knows
        self.fold_at = min(self.fold_at, 1)
        self.observer = None
        self.open_entries = None if self.ended else self.entries

    def forget(self) -> None:
        """End without a word (tests): nothing of it is emitted."""
        self.ended, self.open_entries = True, None
