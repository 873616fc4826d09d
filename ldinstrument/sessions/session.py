"""A session: one visit, conversation, request or invocation of one context. It accumulates, then
emits.

Nothing here raises into the host, and no event leaves while a lock of ours is held.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec

from ..clock import clock, wall_offset
from ..diagnostics import log_internal_error, never_raises, warn_once, warn_user_code
from ..errors import StrictError
from ..ledger import ledger
from ..metrics.catalogs import EventRouting, catalog
from ..metrics.metric import Metric
from ..metrics.standard import (
    BUSINESS_CONVERSION,
    NEGATIVE_FEEDBACK,
    REVENUE_IMPACT,
    SESSION_METRICS,
    TASK_SUCCESS,
    USER_SATISFACTION,
    session_metrics,
)
from . import emission, registry
from .accumulator import Accumulator, Sample
from .contexts import agree, as_context, evaluated_context, united
from .emission import Tracker, emit
from .outcomes import OUTCOMES, Outcome
from .rollups import Emission, Group
from .summaries import Summary, summarised
from .task_definition import INTERACTION
from .validation import copied, discard, measurement, number

if TYPE_CHECKING:
    from ldclient import Context


P = ParamSpec("P")

MAX_WAITING = 10_000
MAX_EXPOSURES = 1_000


def session_id(given: Any) -> str:
    """*given* as a session's id: a text of at most 256 characters; a random one when there is none,
    or none usable.
    """
    if given is None:
        return uuid.uuid4().hex
    try:
        text = str(given).encode("utf-8", "replace").decode("utf-8")[:256]
    except Exception as error:
        warn_user_code(
            f"id= of a session, a {type(given).__name__},", error, "the session gets a random id"
        )
        text = ""
    return text or uuid.uuid4().hex


class Session(Accumulator):
    """An open session; made by `session(...)`, never by hand."""

    __slots__ = (
        "__weakref__",
        "_between",
        "_context",
        "_data",
        "_exposed_flags",
        "_given_id",
        "_partial",
        "_silent",
        "_started",
        "_started_ms",
        "_store",
        "client",
        "ended",
        "id",
        "name",
        "outer",
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
    ) -> None:
        # Outside a session, one call becomes a session of its own: no session.* metrics, but the
        # rate limit holds.
        super().__init__(limited=silent)
        self._silent = silent
        self.id = session_id(id)
        self._given_id = id
        self.name = name
        self.client = client
        self._context = context
        emission.check_client(client)
        self._data = copied(data, f"{name}.*") or {}
        self.outer = outer
        self._between: list[weakref.ref[Session]] = []
        self._store = store
        self._exposed_flags: set[str] = set()
        self.ended = False
        self._partial = False
        self._started = self._last
        if (
            outer is not None
        ):  # a wall clock set back must not date us before exposures that what is around us saw
            self._offset_ms = max(self._offset_ms, outer._offset_ms)
        self._started_ms = self._started * 1000 + self._offset_ms

    # -- recording -------------------------------------------------------------------------------
    def record(
        self, metric: Metric | str, value: Any = None, *, data: Mapping[str, Any] | None = None
    ) -> None:
        """Record a value of *metric* (a `Metric`, or the key of a declared one).

        Args:
            metric: what is measured. A `Metric` that the catalog lacks is added to it.
            value: a finite number for a `value` metric, how many for a `count` (1 when left out),
                nothing for an `occurrence`. Other values cost themselves: said once, counted, never
                    sent.
            data: goes with the event; JSON types, at most 16 KiB, copied now.
        """
        try:
            measured = measurement(metric, value, data)
            if measured is not None:
                self.append((*measured, clock(), None))
        except StrictError:
            raise
        except Exception as error:
            log_internal_error("record", error)

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
        """The same from a mapping, whose keys need not be names."""
        added = copied(data, f"{self.name}.*")
        if added:
            with self._lock:
                self._data.update(added)

    def touch(self) -> None:
        """Note that the session is active now; its duration counts to here."""
        self._last = max(self._last, clock())

    def stop_clock(self, at: float) -> None:
        """Let the session's time end *at* this reading of `time.perf_counter`, whatever was
        recorded later.
        """
        with self._lock:
            self._fold()
            self._last = at

    def append(self, entry: Sample) -> None:
        """Take one sample; fold when there are many."""
        self.entries.append(entry)
        if len(self.entries) >= self.fold_at:
            self.fold_up()

    def append_from_finalizer(self, entry: Sample) -> None:
        """Append from a finaliser: no lock, no emission; what comes after the end is left for the
        next safe moment.
        """
        self.entries.append(entry)
        if self.ended:
            emission.postpone(self.fold_up)

    # -- who it is -------------------------------------------------------------------------------
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

    @never_raises
    def identify(self, context: Any) -> None:
        """Say whose session it is, once that is known.

        Another key for a known kind first emits what was recorded under the old one.
        """
        known = as_context(context)
        if known is not None:
            self._set_context(known)

    def _set_context(self, new: Context) -> None:
        with self._lock:
            old, outgoing = self.context, []
            changes = old is not None and not agree(old, new)
            if old is None:
                outgoing, self._waiting = self._waiting, []
            elif changes:
                outgoing = self._take()
            heirs = [one._emit_as(old) for one in anonymous_children(self)] if changes else []
            self._context = new if old is None else united(old, new)
        self._send(outgoing, new if old is None else old)
        for emit_held in heirs:
            emit_held()

    def _emit_as(self, old: Context | None) -> Callable[[], None]:
        """Take what this session inside another holds, to be sent under the identity that it
        inherited until now.
        """
        with self._lock:
            outgoing = self._take()
        return lambda: self._send(outgoing, old)

    def before_evaluation(self, flag_key: str, context: Any) -> None:
        """Emit what is held before *flag_key*'s first evaluation: no fold crosses an exposure."""
        seen = evaluated_context(context)
        if seen is None:
            return
        exposure = f"{flag_key} {seen.fully_qualified_key}"
        known = self.context
        if exposure in self._exposed_flags or not (known is None or agree(known, seen)):
            return
        with self._lock:
            outgoing = self._take()
            if len(self._exposed_flags) >= MAX_EXPOSURES:
                self._exposed_flags.clear()
            self._exposed_flags.add(exposure)
            # The exposure is dated by the wall clock of this moment; what follows must not be dated
            # before it, nor before an earlier exposure when the wall clock was set back.
            self._offset_ms = max(self._offset_ms, wall_offset())
        self._send(outgoing, known)

    def adopt(self, context: Any) -> None:
        """Take identity from an exposure: widen what agrees, adopt where nothing is known, ignore
        what disagrees.
        """
        seen = evaluated_context(context)
        if seen is None or seen is self._context:
            return
        known = self._context
        if known is None:
            inherited = self.context
            if inherited is None or agree(inherited, seen):
                self._set_context(seen)
        elif agree(known, seen):
            self._context = united(known, seen)

    # -- what is around it, and in between -------------------------------------------------------
    def joined_from(self, inner: Session) -> None:
        """Note that a block in *inner*, a session inside this one, is a stay in this one again."""
        with self._lock:
            known = self.between()
            if inner not in known:
                self._between = [weakref.ref(one) for one in (*known, inner)]

    def between(self) -> list[Session]:
        """The open sessions inside this one in which somebody has joined it again."""
        if not self._between:
            return []
        return [
            one
            for one in (reference() for reference in self._between)
            if one is not None and not one.ended
        ]

    # -- folding ---------------------------------------------------------------------------------
    def fold_up(self) -> None:
        """Fold the entries; emit what came late, or what has become too much to hold."""
        try:
            with self._lock:
                self._fold()
                outgoing = self._take_folded() if self.ended else self._take_loose()
                late = sum(one.values for one in outgoing) + self._withheld if self.ended else 0
                self._withheld = 0
            if late:
                ledger.late(late)
            self._send(outgoing, self.context)
        except StrictError:
            raise
        except Exception as error:
            log_internal_error("fold", error)

    def _send(self, outgoing: list[Emission], context: Context | None) -> None:
        if not outgoing:
            return
        if context is None and (heir := self._may_learn_who()) is not None:
            heir._wait(outgoing)
            return
        sent = 0
        try:
            for one in outgoing:
                sent += 1
                emit(one, context, self.client)
        finally:
            if left := sum(one.values for one in outgoing[sent:]):  # KeyboardInterrupt, or strict
                ledger.discarded("interrupted", left)

    def _may_learn_who(self) -> Session | None:
        """Who may still learn whose values these are: this session, or after its end one around it,
        for its client.
        """
        one: Session | None = self
        while one is not None and (one.ended or one.client is not self.client):
            one = one.outer
        return one

    def _wait(self, outgoing: list[Emission]) -> None:
        with self._lock:
            self._waiting.extend(outgoing)
            surplus, self._waiting = self._waiting[:-MAX_WAITING], self._waiting[-MAX_WAITING:]
        if surplus:
            ledger.discarded("no_context", sum(one.values for one in surplus))
            warn_once(
                "no_context",
                self.name,
                f"{self.name}: too many values wait for an identity; call identify()",
            )

    # -- the end ---------------------------------------------------------------------------------
    def end(self, reason: str = "ended") -> None:
        """End the session and emit its metrics; ending twice is harmless.

        The end is dated, and the duration counted, to the last activity.
        """
        try:
            if self._store is not None:  # the session goes on in there; this was one stay
                self._store.end_request(self)
                return
            reason = str(reason)
            with self._lock:
                if self.ended:
                    return
                outgoing = self._take()
                if (
                    self._last == self._started
                ):  # nothing was noted in between: to be left is its only activity
                    self._last = clock()
                self.ended, self.fold_at, self._limited = (
                    True,
                    0,
                    True,
                )  # what comes late comes one by one
                outgoing += self._totals(reason)
            self._leave()
            self._send(outgoing, self.context)
            if self.entries:
                self.fold_up()
            emission.settle()
        except StrictError:
            raise
        except Exception as error:
            log_internal_error("end", error)

    def hand_over(self) -> tuple[list[tuple[EventRouting, Group]], list[Emission]] | None:
        """End this stay in a session that a store keeps: what folds, for the store to merge, and
        what leaves at once.

        None when it has ended already. Tallies, dates and data stay readable; nothing changes them
        any more.
        """
        with self._lock:
            if self.ended:
                return None
            self._fold()
            loose = self._take_loose()
            folded = [
                (fold.routing, group)
                for fold in self._folds.values()
                for group in fold.groups.values()
            ]
            self._folds.clear()
            if (
                self._partial
            ):  # a forked child counts only what it saw: nothing that it can tell from its parent's
                self._tallies = dict.fromkeys(OUTCOMES, 0)
            if self._last == self._started:
                self._last = clock()
            self.ended, self.fold_at, self._limited = True, 0, True
        self._leave()
        return folded, loose

    def _leave(self) -> None:
        """Open no more; what is around it was active as long as it was."""
        registry.forget(self)
        if self.outer is not None:
            self.outer._last = max(self.outer._last, self._last)

    def _totals(self, reason: str) -> list[Emission]:
        """The `session.*` events; an abandoned session's duration and rate would be censored, so it
        has only counts.
        """
        if self._silent or self._partial:
            return []
        seen, at, data = self._summary(), self._date(self._last), self.totals_data(reason)
        totals: list[tuple[str, float]] = [("interactions", seen.interactions)]
        if reason != "abandoned":
            if seen.success_rate is not None:
                totals.insert(0, ("success_rate", seen.success_rate))
            totals.insert(0, ("duration", seen.duration_ms))
        ledger.recorded(len(totals))
        return [Emission(f"{self.name}.{suffix}", value, data, at) for suffix, value in totals]

    def totals_data(self, reason: str) -> dict[str, Any]:
        """The data of this session's `session.*` events."""
        tallies = self._tallies
        return {
            **self._data,
            "sessionId": self.id,
            "interactions": tallies[Outcome.SUCCESS] + tallies[Outcome.FAILURE],
            "successes": tallies[Outcome.SUCCESS],
            "failures": tallies[Outcome.FAILURE],
            "cancelled": tallies[Outcome.CANCELLED],
            "abandoned": tallies[Outcome.ABANDONED],
            "endReason": reason,
        }

    def summary(self) -> Summary:
        """What the session has seen so far."""
        with self._lock:
            self._fold()
            return self._summary()

    def _summary(self) -> Summary:
        return summarised((self._last - self._started) * 1000, self._tallies, self._tasks)

    def __repr__(self) -> str:
        return f"<Session {self.name} {self.id}{' ended' if self.ended else ''}>"

    def __del__(self) -> None:
        # A dropped session is abandoned. Here is no place to emit (see emission.postpone), so it
        # lives once more.
        if not getattr(self, "ended", True) and emission is not None:
            emission.postpone(self._abandon)

    def _abandon(self) -> None:
        self.end("abandoned")

    def _forked(self) -> None:
        """In a forked child: what the parent recorded is the parent's to send."""
        self._lock = threading.RLock()
        self._folding = False
        self.entries.clear()
        self._folds.clear()
        self._waiting.clear()
        self._partial = True


_WIRE_NAMES = {"config_key": "configKey", "feedback_type": "feedbackType", "task_type": "taskType"}


def _wire_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data's keys as LaunchDarkly's recipe spells them on the wire."""
    return {_WIRE_NAMES.get(key, key): value for key, value in data.items()}


def anonymous_children(around: Session) -> list[Session]:
    """The open sessions inside *around* that have no identity but its."""
    found = []
    for one in registry.open_sessions():
        inside = one
        while inside.outer is not None and inside._context is None:
            inside = inside.outer
            if inside is around:
                found.append(one)
                break
    return found


def declare_session_metrics(name: str) -> None:
    """Declare the metrics of the sessions called *name*, but for those that the program has defined
    itself.
    """
    keys = [f"{name}.{suffix}" for suffix in SESSION_METRICS]
    catalog.declare_implied(name, keys, lambda: session_metrics(name))
