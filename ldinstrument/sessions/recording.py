"""What a program says to a session: values, interactions, LaunchDarkly's recipe, whose they are.

Nothing here raises into the host.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..diagnostics import never_raises, withhold
from ..metrics.catalogs import catalog
from ..metrics.metric import Metric
from ..metrics.standard import (
    BUSINESS_CONVERSION,
    NEGATIVE_FEEDBACK,
    REVENUE_IMPACT,
    TASK_SUCCESS,
    USER_SATISFACTION,
)
from .accumulator import Sample
from .clock import clock
from .contexts import as_context, keys_of, kinds, knows_more, united
from .magnitudes import settled
from .outcomes import Outcome
from .task_definition import INTERACTION
from .validation import MAX_INT, discard, measurement, measures, number

if TYPE_CHECKING:
    from ldclient import Context


_UNKNOWN: tuple[int, Any, Any] = (-1, None, None)


class SampleRecorder:
    """Turns what a program says into samples."""

    __slots__ = ()

    def append(self, entry: Sample) -> None:
        """Take one sample."""
        raise NotImplementedError

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
        try:
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
                self.append((routing, value, None, clock(), None))
                return
            measured = measurement(metric, value, data)
            if measured is not None:
                self.append((*measured, clock(), None))
        except Exception as error:
            withhold("record", error)

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


_WIRE_NAMES = {"config_key": "configKey", "feedback_type": "feedbackType", "task_type": "taskType"}


def _wire_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Spell the data's keys as LaunchDarkly's recipe does on the wire."""
    return {_WIRE_NAMES.get(key, key): value for key, value in data.items()}


class OwnedRecorder(SampleRecorder):
    """A recorder that belongs to somebody: as given, identified or adopted; else as the session
    around it.

    Without an identity it takes one from the first exposure that is made in it. From then on an
    identity only widens, unless the program names somebody else.

    Args:
        context: whose it is, when it is known.
        outer: the session around it.
    """

    __slots__ = (
        "_context",
        "_inheriting",
        "_lock",
        "_named",
        "_said",
        "_seen_client",
        "ended",
        "outer",
    )

    def __init__(self, context: Context | None, outer: OwnedRecorder | None) -> None:
        self._lock = threading.RLock()
        self.ended = False
        self.outer: Any = outer
        self._context = self._named = context
        self._said: Collection[str] = ()
        """The kinds of its context that the program has named since; others were adopted."""
        self._inheriting: tuple[weakref.ref[OwnedRecorder], ...] = ()
        self._seen_client: weakref.ref[Any] | None = None
        if outer is not None and context is None:
            outer.add_inheriting(self)

    def add_inheriting(self, inner: OwnedRecorder) -> None:
        """Tell *inner*, a session inside this one, from now on whose this one is."""
        with self._lock:
            self._inheriting = (
                *[
                    reference
                    for reference in self._inheriting
                    if (known := reference()) is not None and not known.ended
                ],
                weakref.ref(inner),
            )

    @property
    def knows_who(self) -> bool:
        """Whether it has an identity of its own, given or adopted."""
        return self._context is not None

    @property
    def context(self) -> Context | None:
        """Whose it is: as given, identified or adopted; else that of the session around it."""
        if self._context is not None or self.outer is None:
            return self._context
        return cast("Context | None", self.outer.context)

    @never_raises
    def identify(self, context: Any) -> None:
        """Say whose session it is, once that is known.

        Another key for a known kind ends what belongs to the old key: its events leave, and its
        `session.*` events with them. What is recorded from now on is the new one's.
        """
        known = as_context(context)
        if known is not None:
            old = self.context
            self.become(known if old is None else united(old, known))
            self._said = {*self._said, *kinds(known)}

    def has_seen(self, context: Context, client: weakref.ref[Any] | None) -> bool:
        """Tell whether an exposure of *context* by *client* would change nothing here."""
        return self._context is context and self._seen_client is client and not self.ended

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
            self.become(context)
        elif context is known:
            return
        elif context.fully_qualified_key == known.fully_qualified_key:
            if self._context is not None and context != known and knows_more(context):
                self._context = united(known, context)
        elif (context.multiple or known.multiple) and self._is_widened_by(context, known):
            self.become(united(known, context))

    def _is_widened_by(self, context: Context, known: Context) -> bool:
        mine, theirs = keys_of(known), keys_of(context)
        agreeing = mine.items() & theirs.items()
        contradicted = mine.keys() & theirs.keys() - {kind for kind, _ in agreeing}
        return bool(agreeing) and contradicted.isdisjoint(self.said_kinds())

    def said_kinds(self) -> Collection[str]:
        """Return the kinds of its context that the program has named; others were adopted."""
        if self._context is not None or self.outer is None:
            return self._said if self._named is None else {*self._said, *kinds(self._named)}
        return cast("Collection[str]", self.outer.said_kinds())

    def become(self, new: Context) -> None:
        """Belong to *new* from now on, and so do the sessions inside that know no better."""
        raise NotImplementedError
