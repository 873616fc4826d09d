"""A session: one visit, conversation, request or invocation of one context. It accumulates, then
emits.

Nothing here raises into the host, and no event leaves while a lock of ours is held.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..clock import clock
from ..diagnostics import guard, never_raises, warn_user_code
from ..ids import random_id
from ..ledger import ledger
from ..metrics.catalogs import catalog
from ..metrics.metric import Metric
from ..metrics.standard import (
    BUSINESS_CONVERSION,
    NEGATIVE_FEEDBACK,
    REVENUE_IMPACT,
    TASK_SUCCESS,
    USER_SATISFACTION,
)
from . import emission, registry
from .accounts import (
    DEFAULT_METRICS,
    Accounts,
    SessionAccount,
    session_totals,
    totals_data,
)
from .accumulator import FOLD_AT, HELD_RUNS, Accumulator, Sample
from .clients import Tracker, check_client, exposures_are_seen, warn_unwatched
from .contexts import (
    as_context,
    context_of_keys,
    keys_of,
    kinds,
    knows_more,
    only_kinds,
    united,
    units_of,
)
from .dilution import EndedSession, note_ended
from .exposures import exposures
from .observers import SessionObserver
from .outcomes import NO_TALLIES, Outcome
from .parts import Segment, SessionPart
from .postponed import postpone
from .rollups import Emission, FinishedRuns, expanded
from .summaries import Summary, summarised
from .task_definition import INTERACTION
from .validation import copied, discard, measurement, number

if TYPE_CHECKING:
    from ldclient import Context

MAX_WAITING = 10_000
MOST_SINGLE = 32
"""Entries of a stored session that are kept apart, for exposures in other processes."""

Batch = tuple["Context | None", list[Emission | FinishedRuns]]
"""Events, and whose they are."""


def session_id(given: Any) -> str:
    """Return *given* as a session's id: a text of at most 256 characters; a random one when there
    is none, or none usable.
    """
    if given is None:
        return random_id()
    try:
        text = str(given).encode("utf-8", "replace").decode("utf-8")[:256]
    except Exception as error:
        warn_user_code(
            f"id= of a session, a {type(given).__name__},", error, "the session gets a random id"
        )
        text = ""
    return text or random_id()


class Session:
    """An open session; made by `session(...)`, never by hand."""

    __slots__ = (
        "__weakref__",
        "_accounts",
        "_context",
        "_data",
        "_given_id",
        "_given_kinds",
        "_held",
        "_inheriting",
        "_lock",
        "_metrics",
        "_partial",
        "_seen_client",
        "_segments",
        "_silent",
        "_stopped_at",
        "_waiting",
        "client",
        "detour",
        "ended",
        "entries",
        "fold_at",
        "id",
        "name",
        "observer",
        "outer",
        "store",
    )

    def __init__(
        self,
        context: Context | None,
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
        check_client(client)
        self.id = session_id(id)
        self.name = name
        self.client = client
        self.outer = outer
        self.observer: SessionObserver | None = None
        # Runs take the short way but where it has ended, or where somebody observes them.
        self.ended = self.detour = False
        # Outside a session, one call becomes a session of its own: no session.* metrics, but the
        # rate limit holds.
        self._held = Accumulator(limited=silent, single=0 if store is None else MOST_SINGLE)
        self.entries = self._held.entries
        self._lock = threading.RLock()
        self._given_id = id
        self._silent = silent
        self._metrics = metrics
        self._data = copied(data, f"{name}.*") or {}
        self.store = store
        self._context: Context | None = None
        self._given_kinds: frozenset[str] = frozenset()
        self._accounts: Accounts | None = None
        self._segments: list[Segment] = []
        self._waiting: list[Emission | FinishedRuns] = []
        self._inheriting: list[weakref.ref[Session]] = []
        self._seen_client: weakref.ref[Any] | None = None
        self._partial = False
        self._stopped_at: float | None = None
        self.fold_at = FOLD_AT if self.is_watched() else 1
        if context is not None:
            self._context = context
            self._held.belong_to(context)
            self._given_kinds = frozenset(self._held.keys)
        if outer is not None:
            self._begin_inside(outer)

    def _begin_inside(self, outer: Session) -> None:
        self._held.date_not_before(outer._held)
        if self._context is None:
            outer._add_inheriting(self)
            inherited = outer.context
            if inherited is not None:
                self._held.belong_to(inherited)

    def _add_inheriting(self, inner: Session) -> None:
        with self._lock:
            self._inheriting = [
                reference
                for reference in self._inheriting
                if (known := reference()) is not None and not known.ended
            ]
            self._inheriting.append(weakref.ref(inner))

    # -- recording -------------------------------------------------------------------------------
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
        with guard("record"):
            measured = measurement(metric, value, data)
            if measured is not None:
                self.append((*measured, clock(), None))

    @never_raises
    def interaction(self, success: bool | Outcome = True, *, at: float | None = None) -> None:
        """Count one interaction: something the user did that succeeded or failed.

        Args:
            success: whether it succeeded; an `Outcome` is taken as it is.
            at: when, as a reading of `time.perf_counter`; now when None.
        """
        outcome = (
            success
            if isinstance(success, Outcome)
            else Outcome.SUCCESS
            if success
            else Outcome.FAILURE
        )
        when = clock() if at is None else at
        self.append((INTERACTION, outcome, when, when, None))

    @never_raises
    def conversion(self, value: Any = 0.0, **data: Any) -> None:
        """Record `business.conversion`: *value* in dollars. `config_key=` becomes `configKey` in
        the data.
        """
        self.record(BUSINESS_CONVERSION, value, data=_wire_names(data))

    @never_raises
    def satisfaction(self, score: Any, **data: Any) -> None:
        """Record `user.satisfaction` (0 to 100), and `user.negative_feedback` below 50.

        `feedback_type=` becomes `feedbackType` in the data.
        """
        rated, wire = number(score), _wire_names({"feedback_type": "explicit", **data})
        if rated is not None and not 0 <= rated <= 100:
            discard(
                USER_SATISFACTION.event, "out_of_range", "a satisfaction score is between 0 and 100"
            )
            return
        self.record(USER_SATISFACTION, score, data=wire)
        if rated is not None and rated < 50:
            self.record(NEGATIVE_FEEDBACK, data=wire)

    @never_raises
    def revenue(self, value: Any, **data: Any) -> None:
        """Record `revenue.impact`: *value* in dollars, only when it is above 0."""
        amount = number(value)
        if amount is None or amount > 0:
            self.record(REVENUE_IMPACT, value, data=_wire_names(data))

    @never_raises
    def task_success(self, task_type: str, success: bool, **data: Any) -> None:
        """Record `task.success_rate`: 1 or 0, with *task_type* as `taskType` in the data."""
        self.record(
            TASK_SUCCESS, 1.0 if success else 0.0, data={**_wire_names(data), "taskType": task_type}
        )

    @never_raises
    def feedback(
        self,
        positive: bool,
        *,
        comment: str | None = None,
        send_comment: bool = False,
        **data: Any,
    ) -> None:
        """Record a thumb: satisfaction 100 or 0, and `user.negative_feedback` for a thumb down.

        *comment*, what the user wrote, stays here unless *send_comment* says that it may leave.
        """
        if comment is not None and send_comment:
            data["comment"] = comment
        self.satisfaction(100 if positive else 0, **{"feedback_type": "thumb", **data})

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
                self._data.update(added)

    def touch(self) -> None:
        """Note that the session is active now; its duration counts to here."""
        with self._lock:
            self._held.touch(clock())

    def stop_clock(self, at: float) -> None:
        """Let the session's time end *at* this reading of `time.perf_counter`, whatever was
        recorded later.
        """
        self._stopped_at = at

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

    # -- who observes it -------------------------------------------------------------------------
    def observe(self, observer: SessionObserver) -> None:
        """Let *observer* hear of its runs, and of its end."""
        self.observer, self.detour = observer, True

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
            self.id = session_id(id)

    # -- whose it is -----------------------------------------------------------------------------
    @property
    def knows_who(self) -> bool:
        """Whether it has an identity of its own, given or adopted."""
        return self._context is not None

    @property
    def context(self) -> Context | None:
        """Whose session it is: as given, identified or adopted; else that of the session around
        it.
        """
        if self._context is not None or self.outer is None:
            return self._context
        return self.outer.context

    def date_now(self) -> int:
        """Return the date of this moment, on the session's own time, which never runs backwards."""
        return self._held.date(clock())

    @property
    def started_at(self) -> float:
        """Its start, in seconds since the epoch."""
        return self._held.date(self._held.started) / 1000

    @property
    def visitor_key(self) -> str:
        """What a store knows it by: the id that was given, else its context, else its own id."""
        if self._given_id:
            return self._given_id
        known = self.context
        return self.id if known is None else str(known.fully_qualified_key)

    @never_raises
    def identify(self, context: Any) -> None:
        """Say whose session it is, once that is known.

        Another key for a known kind ends what belongs to the old key: its events leave, and its
        `session.*` events with them. What is recorded from now on is the new one's.
        """
        known = as_context(context)
        if known is not None:
            old = self.context
            self._set_context(known if old is None else united(old, known))
            self._given_kinds |= frozenset(kinds(known))

    def see_exposure(self, context: Context, client: weakref.ref[Any] | None = None) -> None:
        """Take notice of an exposure that was made in this session.

        Its client will take the session's events. Where nobody is known, its context is adopted;
        a context that shares a kind with the session's, and contradicts nothing that the program
        said, widens it. Whatever else is evaluated (another user, the items of a list) changes
        nothing.
        """
        if client is not None:
            self._seen_client = client
        known = self.context
        if known is None:
            self._set_context(context)
        elif context.fully_qualified_key == known.fully_qualified_key:
            if self._context is not None and context != known and knows_more(context):
                self._context = united(known, context)
        elif self._is_widened_by(context, known):
            self._set_context(united(known, context))

    def _is_widened_by(self, context: Context, known: Context) -> bool:
        mine, theirs = keys_of(known), keys_of(context)
        shared, said = mine.keys() & theirs.keys(), self._said_kinds()
        agreeing = {kind for kind in shared if mine[kind] == theirs[kind]}
        return bool(agreeing) and not (shared - agreeing) & said

    def _said_kinds(self) -> frozenset[str]:
        """Return the kinds of its context that the program has named; others were adopted."""
        if self._context is not None or self.outer is None:
            return self._given_kinds
        return self.outer._said_kinds()

    def _set_context(self, new: Context) -> None:
        with self._lock:
            old, self._context = self.context, new
            outgoing = self._change_identity(old, new)
        self._send(outgoing)
        self._tell_inheriting(old, new)

    def _inherit(self, old: Context | None, new: Context) -> None:
        """Go on as *new*, whom the session around belongs to now."""
        with self._lock:
            outgoing = self._change_identity(old, new)
        self._send(outgoing)
        self._tell_inheriting(old, new)

    def _tell_inheriting(self, old: Context | None, new: Context) -> None:
        for reference in list(self._inheriting):
            inner = reference()
            if inner is not None and not inner.ended and not inner.knows_who:
                inner._inherit(old, new)

    def _change_identity(self, old: Context | None, new: Context) -> list[Batch]:
        """Fold what is *old*'s, and end the accounts whose key changes. The lock is held."""
        before, after = {} if old is None else keys_of(old), keys_of(new)
        if before == after:
            return []
        if old is None:  # what waited for an identity is the new one's, from the start
            self._held.belong_to(new)
            waiting, self._waiting = self._waiting, []
            if self._counts_itself:
                self._accounts_of(after).identify(after, self._held.started)
            return [(new, waiting + self._fold())]
        events = self._fold() + self._last_events()
        self._held.belong_to(new)
        outgoing: list[Batch] = [(old, events)]
        if self.store is not None:
            self._segments.append(self._held.empty_segment())  # tells the store when it was
        if self._counts_itself:
            ended = self._accounts_of(before).identify(after, clock())
            outgoing += [
                self._totals(account, old, "identified")
                for account in ended
                if account.last is not None or self._was_exposed(account, old)
            ]
        return outgoing

    def _was_exposed(self, account: SessionAccount, context: Context) -> bool:
        """Whether an experiment may miss the events of an account to which nothing has happened."""
        return bool(exposures.of(units_of(only_kinds(context, account.keys))))

    @property
    def _counts_itself(self) -> bool:
        """Whether its `session.*` events are its own business, not a store's."""
        return not self._silent and self.store is None

    def _accounts_of(self, keys: Mapping[str, str]) -> Accounts:
        if self._accounts is None:
            self._accounts = Accounts(keys, self._held.started)
        return self._accounts

    # -- folding ---------------------------------------------------------------------------------
    def fold_up(self) -> None:
        """Fold the entries; emit what came late, or what has become too much to hold."""
        with guard("fold"):
            with self._lock:
                events = self._fold(at_last=self.ended)
                hold = HELD_RUNS if self.fold_at > 1 else 0
                events += self._last_events() if self.ended else self._held.take_loose(hold=hold)
                late = self._held.values if self.ended else 0
                context = self.context
            if late:
                ledger.late(late)
            self._send([(context, events)])

    def _fold(
        self, *, at_last: bool = False, for_store: bool = False
    ) -> list[Emission | FinishedRuns]:
        """Fold; returns what exposures have divided off. The lock is held."""
        seen = self.is_watched()
        if not self.ended:
            # Where nobody sees exposures, no value may wait: it is dated to when it leaves.
            self.fold_at = FOLD_AT if seen else 1
        ended = self._held.fold(folds=seen, at_last=at_last, for_store=for_store)
        return [event for segment in ended for event in self._absorb(segment)]

    def is_watched(self) -> bool:
        """Tell whether the exposures that its client makes are seen."""
        taker = emission.taker_of(self.client, self._seen_client)
        seen = exposures_are_seen(taker)
        if not seen:
            warn_unwatched(taker)
        return seen

    def _absorb(self, segment: Segment) -> list[Emission]:
        """SessionAccount for a segment that is over; returns its events, unless a store wants them
        whole.
        """
        if self.store is not None and not self.ended:
            if segment.active is not None or segment.groups:
                self._segments.append(segment)
            return []
        if self._counts_itself:
            self._accounts_of(segment.keys).add(segment)
        return [event for routing, group in segment.groups for event in group.events(routing)]

    def _last_events(self) -> list[Emission | FinishedRuns]:
        """End the segment; returns its events and the loose ones. The lock is held."""
        segment = self._held.close()
        return [*([] if segment is None else self._absorb(segment)), *self._held.take_loose()]

    # -- sending ---------------------------------------------------------------------------------
    def _send(self, outgoing: Iterable[Batch]) -> None:
        for context, events in outgoing:
            if not events:
                continue
            if context is None and (heir := self._may_learn_who()) is not None:
                heir._wait(events)
            else:
                emission.emit_all(events, context, self.client, self._seen_client)

    def _may_learn_who(self) -> Session | None:
        """Who may still learn whose values these are: this session, or after its end one around it,
        for its client.
        """
        session: Session | None = self
        while session is not None and (session.ended or session.client is not self.client):
            session = session.outer
        return session

    def _wait(self, events: list[Emission | FinishedRuns]) -> None:
        with self._lock:
            self._waiting.extend(events)
            surplus, self._waiting = self._waiting[:-MAX_WAITING], self._waiting[-MAX_WAITING:]
        if surplus:
            ledger.discarded("no_context", sum(event.values for event in surplus))

    # -- the end ---------------------------------------------------------------------------------
    def end(self, reason: str = "ended") -> None:
        """End the session and emit its metrics; ending twice is harmless.

        Its `session.*` events are dated to now; its duration counts to the last activity.
        """
        with guard("end"):
            if self.store is not None:  # the session goes on in there; this was one stay
                self.store.end_request(self)
                return
            reason = str(reason)
            with self._lock:
                if self.ended:
                    return
                outgoing = self._end(reason)
            self._send(outgoing)
            if self.entries:
                self.fold_up()
            emission.settle()
            if self.observer is not None:
                self.observer.ended(self, reason)

    def _end(self, reason: str) -> list[Batch]:
        context = self.context
        events = self._waiting + self._fold(at_last=True) + self._last_events()
        self._waiting = []
        outgoing: list[Batch] = [(context, events)]
        if self._counts_itself:
            for account in self._accounts_of(self._held.keys).open:
                whose, totals = self._totals(account, context, reason)
                if whose is context:
                    events += totals
                else:
                    outgoing.append((whose, totals))
        self._stop()
        return outgoing

    def _totals(self, account: SessionAccount, context: Context | None, reason: str) -> Batch:
        """Make the `session.*` events of *account*, which is over now."""
        if self._partial:
            return context, []
        now = clock()
        last = account.last if account.last is not None else now
        if self._stopped_at is not None:
            last = self._stopped_at
        if context is not None:
            self._note_ended(account, context, last)
        events = session_totals(
            self.name,
            self._metrics_of(account),
            account.tallies,
            (last - account.began) * 1000,
            account.pieces,
            self._held.date(now),
            totals_data(self.id, account.tallies, self._data, reason),
        )
        ledger.recorded(len(events))
        if context is not None and account.keys.keys() != self._held.keys.keys():
            context = only_kinds(context, account.keys)
        return context, list(events)

    def _note_ended(self, account: SessionAccount, context: Context, last: float) -> None:
        before = None if account.before is None else (account.before - account.began) * 1000
        exposed = before is not None or self._was_exposed(account, context)
        note_ended(EndedSession(self.name, exposed, (last - account.began) * 1000, before))

    def _metrics_of(self, account: SessionAccount) -> list[str]:
        """Return which metrics *account* feeds: not those analysed by a kind that another has."""
        others = self._held.keys.keys() - account.keys.keys()
        if not others:
            return list(self._metrics)
        wanted = {
            suffix: catalog.routing(f"{self.name}.{suffix}").analysis_units
            for suffix in self._metrics
        }
        return [
            suffix
            for suffix, units in wanted.items()
            if not units or not units.isdisjoint(account.keys) or units.isdisjoint(others)
        ]

    def _stop(self) -> None:
        """Take no more; what is around was active as long as this one was."""
        # What comes late comes one by one.
        self.ended = self.detour = self._held.limited = True
        self.fold_at = 0
        registry.forget(self)
        if self.outer is not None:
            self.outer._held.touch(self._held.last)

    def hand_over(self) -> SessionPart | None:
        """End this stay in a session that a store keeps.

        Returns:
            What it adds, for the store to merge; None when it has ended already. The store then
            calls `merged_into`.
        """
        with self._lock:
            if self.ended:
                return None
            loose = [(event, self.context) for event in expanded(self._waiting)]
            loose += [
                (event, self.context)
                for event in expanded(self._fold(at_last=True, for_store=True))
            ]
            segments = self._segments if self.store is not None else self._past_segments()
            segment = self._held.close()
            if segment is not None:
                segments.append(segment)
            loose += [(event, self.context) for event in expanded(self._held.take_loose())]
            part = self._part(tuple(segments), tuple(loose))
            self._stop()
        return part

    def _past_segments(self) -> list[Segment]:
        """Return what a session that was not opened for a store has counted by itself."""
        if self._accounts is None or self._accounts.open[0].last is None:
            return []
        account, date = self._accounts.open[0], self._held.date
        first, last = date(account.began), date(account.last or account.began)
        return [
            Segment(
                account.keys,
                first,
                last,
                account.tallies,
                (),
                account.began,
                account.last,
                exposed=True,
            )
        ]

    def _part(
        self, segments: tuple[Segment, ...], loose: tuple[tuple[Emission, Context | None], ...]
    ) -> SessionPart:
        held, now, context = self._held, clock(), self.context
        last = held.last if held.last > held.started else now
        if self._stopped_at is not None:
            last = self._stopped_at
        units = set(held.units)
        for segment in segments:
            if segment.keys != held.keys and (bare := context_of_keys(segment.keys)) is not None:
                units.update(units_of(bare))
        return SessionPart(
            id=self.id,
            given_id=self._given_id,
            name=self.name,
            metrics=self._metrics,
            started=held.date(held.started),
            last=held.date(last),
            over=held.date(now),
            context=context,
            data=self._data,
            exposures={exposure.name: exposure.date for exposure in exposures.of(units)},
            # A forked child tells nothing that it cannot tell from its parent's.
            segments=tuple(
                replace(segment, tallies=NO_TALLIES) if self._partial else segment
                for segment in segments
            ),
            loose=loose,
        )

    def merged_into(self, part: SessionPart, id: str, keys: Mapping[str, str]) -> None:
        """Go on as a part of the stored session *id*, and emit what does not fold.

        Args:
            part: what `hand_over` returned.
            id: of the session that it was merged into; its own, when the store did not answer.
            keys: whose that is, by context kind, as far as the store knows.
        """
        self.id = id
        stored = context_of_keys(keys)
        for event, context in part.loose:
            whose = stored if context is None else context
            emission.emit_all([event], whose, self.client, self._seen_client)
        if self.entries:
            self.fold_up()
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
        self._held.clear()
        self._waiting.clear()
        self._segments.clear()
        self._accounts = None
        self._partial = True
        self.observer = None
        self.detour = self.ended

    def forget(self) -> None:
        """End without a word (tests): nothing of it is emitted."""
        self.ended = self.detour = True


_WIRE_NAMES = {"config_key": "configKey", "feedback_type": "feedbackType", "task_type": "taskType"}


def _wire_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Spell the data's keys as LaunchDarkly's recipe does on the wire."""
    return {_WIRE_NAMES.get(key, key): value for key, value in data.items()}
