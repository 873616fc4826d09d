"""Sessions and the runs of their tasks as OpenTelemetry spans, and what model calls used as its
GenAI instruments. Without a tracer provider, and without `install_observer`, there is nothing here.

A session's span is never the current one: a server's span that starts inside it must find its
remote parent. It begins with the first task, in the trace that is current there, dated back to the
start of the session. A task's span is current while the task's code runs, so that what the code
does is inside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

from opentelemetry import context as contexts
from opentelemetry import metrics, trace

from ..diagnostics import guard, warn_once
from ..sessions.clock import clock
from ..sessions.outcomes import Outcome
from ..sessions.postponed import postpone
from ..sessions.scopes import observe_sessions
from .conventions import (
    CHAT,
    ERROR_TYPE,
    OPERATION_NAME,
    SESSION_ID,
    WRITTEN_CONVERSATION_ID,
    WRITTEN_FINISH_REASONS,
    Conventions,
    conventions,
)
from .span_processor import OURS, SpanHandler, scope_of
from .span_reading import kind_of

OUTCOME = "ldinstrument.outcome"
END_REASON = "ldinstrument.session.end_reason"

_heard: WeakSet[Any] = WeakSet()
_running: ContextVar[tuple[TaskSpan, ...]] = ContextVar("ldinstrument_running", default=())


class SpanObserver:
    """Makes the spans; `install_observer` returns it.

    Args:
        tracer: makes them.
        meter: makes the instruments of model calls.
        names: of attributes and instruments.
        trace_ids: whether events carry `traceId`.
    """

    def __init__(
        self, tracer: trace.Tracer, meter: metrics.Meter, names: Conventions, trace_ids: bool
    ) -> None:
        self.tracer = tracer
        self.names = names
        self.trace_ids = trace_ids
        self._instruments = {
            instrument: _histogram(meter, instrument) for instrument in names.instruments
        }

    def uninstall(self) -> None:
        """Make no spans of sessions that are opened from now on."""
        observe_sessions(None)

    def measure(self, values: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        """Give the instruments what a model call used; durations in seconds."""
        for instrument, histogram in self._instruments.items():
            value = values.get(instrument.value)
            if value is not None:
                histogram.record(value, {**attributes, **instrument.attributes})


def _histogram(meter: metrics.Meter, instrument: Any) -> Any:
    name, unit, description = instrument.name, instrument.unit, instrument.description
    try:
        return meter.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=instrument.boundaries
        )
    except TypeError:  # an OpenTelemetry that knows no advice
        return meter.create_histogram(name, unit, description)


# -- a session -------------------------------------------------------------------------------------


class SessionSpan:
    """The span of one session, from its first task on. It does not hold the session."""

    def __init__(self, observer: SpanObserver, session: Any) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._outside = contexts.get_current()
        around = session.outer.observer if session.outer is not None else None
        if isinstance(around, SessionSpan):
            self._outside = around.inside(session.outer, self._outside)
        self._span: trace.Span | None = None
        self._around = 0
        """The id of the span that was current when this one began."""

    def begin_run(self, session: Any, key: str) -> TaskSpan:
        """Return the span of a run of the task *key*."""
        with guard("a task's span", strict=False):
            parent = self.inside(session, contexts.get_current())
            attributes = {} if session.store is not None else {SESSION_ID: session.id}
            span = self._observer.tracer.start_span(key, parent, attributes=attributes)
            conversation = session.id if session.id_is_given else None
            return TaskSpan(self._observer, span, conversation)
        return TaskSpan(self._observer, trace.INVALID_SPAN, None)

    def here(self, session: Any) -> None:
        """Begin the span, in the trace that is current here."""
        with guard("a session's span", strict=False):
            self.inside(session, contexts.get_current())

    def inside(self, session: Any, current: contexts.Context) -> contexts.Context:
        """Return *current*, or the session's span in its place where nothing was begun since."""
        if session.silent or session.ended:
            return current
        with self._lock:  # tasks of several threads may be its first
            if self._span is None:
                self._begin(session, current)
            span = self._span
        if span is None or _span_id(current) != self._around:
            return current
        return trace.set_span_in_context(span, current)

    def _begin(self, session: Any, current: contexts.Context) -> None:
        self._around = _span_id(current)
        within = current if self._around else self._outside
        self._span = self._observer.tracer.start_span(
            session.name, within, start_time=int(session.started_at * 1e9)
        )
        if self._observer.trace_ids:
            session.merge_data(_trace_id(self._span))

    def ended(self, session: Any, reason: str) -> None:
        """End the span."""
        with guard("a session's span", strict=False):
            if session.silent:
                return
            if self._span is None:
                self._begin(session, self._outside)
            span, self._span = self._span, None
            assert span is not None
            span.set_attributes({SESSION_ID: session.id, END_REASON: reason})
            if reason == "error":
                span.set_status(trace.StatusCode.ERROR)
            span.end()


def _span_id(context: contexts.Context) -> int:
    return trace.get_current_span(context).get_span_context().span_id


def _trace_id(span: trace.Span) -> dict[str, str]:
    known = span.get_span_context()
    return {"traceId": trace.format_trace_id(known.trace_id)} if known.is_valid else {}


# -- a run of a task -------------------------------------------------------------------------------


class TaskSpan:
    """The span of one run of a task, current while the user's code runs.

    It is put there and taken away by value, never by token: generators are resumed in other
    contexts.
    """

    __slots__ = ("_before", "_began", "_inside", "_observer", "_outer", "_span", "_talk", "doubled")

    def __init__(self, observer: SpanObserver, span: trace.Span, conversation: str | None) -> None:
        self._observer = observer
        self._span = span
        self._talk = conversation
        self._began = clock()
        self._inside: contexts.Context | None = None
        self._before: contexts.Context | None = None
        self._outer: tuple[TaskSpan, ...] = ()
        self.doubled = False
        """Whether somebody else makes spans of its model calls."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Return the trace's id for the data of events, where that was asked for."""
        return _trace_id(self._span) if self._observer.trace_ids else {}

    def resume(self) -> None:
        """Make the span the current one, or what the code had made current when it stopped."""
        with guard("a task's span", strict=False):
            self._before = contexts.get_current()
            if self._inside is None:
                self._inside = trace.set_span_in_context(self._span, self._before)
            contexts.attach(self._inside)
            self._outer = _running.get()
            _running.set((*self._outer, self))

    def pause(self) -> None:
        """Make current what was before; in a foreign context, where ours is not, do nothing."""
        with guard("a task's span", strict=False):
            if self._before is not None and self in _running.get():
                self._inside = contexts.get_current()
                contexts.attach(self._before)
                _running.set(self._outer)
                self._before = None

    def ended(
        self,
        outcome: Outcome | None,
        error: BaseException | None,
        values: Mapping[str, Any],
        *,
        later: bool,
    ) -> None:
        """End the span; a model call's also feeds the instruments."""
        at, seconds = time.time_ns(), clock() - self._began
        kind = None if error is None else type(error).__qualname__

        def end() -> None:
            with guard("a task's span", strict=False):
                self._end(outcome, kind, {**values, "duration": seconds} if values else {}, at)

        postpone(end) if later else end()

    def _end(
        self, outcome: Outcome | None, kind: str | None, values: Mapping[str, Any], at: int
    ) -> None:
        span = self._span
        if outcome is not None:
            span.set_attribute(OUTCOME, outcome.value)
        failed = outcome is Outcome.FAILURE
        if failed:
            kind = kind or "failure"
            span.set_attribute(ERROR_TYPE, kind)
            span.set_status(trace.StatusCode.ERROR)
        if values and not self.doubled:
            self._tell(values, {ERROR_TYPE: kind} if failed and kind else {})
        span.end(at)

    def _tell(self, values: Mapping[str, Any], error: Mapping[str, Any]) -> None:
        """Say on the span, and to the instruments, what the model call used."""
        names = self._observer.names
        known = {**values, **_in_seconds(values)}
        told = {
            attribute: known[name]
            for name, attribute in names.attributes.items()
            if known.get(name) is not None
        }
        common = {OPERATION_NAME: CHAT, **error}
        self._span.set_attributes({**common, **told})
        if "finishReason" in known:
            self._span.set_attribute(WRITTEN_FINISH_REASONS, [known["finishReason"]])
        if self._talk is not None:
            self._span.set_attribute(WRITTEN_CONVERSATION_ID, self._talk)
        whose = {name: told[name] for name in (names.model, names.provider) if name in told}
        self._observer.measure(known, {**common, **whose})


def _in_seconds(values: Mapping[str, Any]) -> dict[str, float]:
    timed = ("time_to_first_token", "time_per_chunk")
    return {name: values[name] / 1000 for name in timed if values.get(name) is not None}


class _ModelSpans(SpanHandler):
    """Hears when somebody else makes spans of model calls: then ours says nothing of them."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Note a span of a model call inside a task's."""
        with guard("the observer", strict=False):
            around = _running.get()
            theirs = around and scope_of(span) != OURS
            if theirs and kind_of(span.name, span.attributes or {}) == "model":
                for task in around:
                    task.doubled = True


# -- in and out ------------------------------------------------------------------------------------


def install_observer(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    trace_ids: bool = False,
) -> SpanObserver | None:
    """Make each session that is opened from now on, and each run of its tasks, an OpenTelemetry
    span.

    Call it once, after the tracer provider was set up; twice replaces the first. What `track_ai`
    knows of a model call is on its span and in the instruments `gen_ai.client.*`, unless an SDK or
    an instrumentor makes a span of that call already.

    Args:
        tracer_provider: the global one when None.
        meter_provider: the global one when None.
        trace_ids: whether the data of events carry `traceId`, the trace that they were recorded in.

    Returns:
        The observer; None, with a line in the log, when no tracer provider is set up.
    """
    provider = tracer_provider or trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        warn_once(
            "observer",
            "",
            "otel.install_observer: no tracer provider is set up yet, so there are no spans: call "
            "it after trace.set_tracer_provider(...)",
        )
        return None
    observer = SpanObserver(
        trace.get_tracer(OURS, tracer_provider=provider),
        metrics.get_meter(OURS, meter_provider=meter_provider),
        conventions(),
        trace_ids,
    )
    add = getattr(provider, "add_span_processor", None)
    if add is not None and provider not in _heard:
        _heard.add(provider)
        add(_ModelSpans())
    observe_sessions(lambda session: SessionSpan(observer, session))
    return observer
