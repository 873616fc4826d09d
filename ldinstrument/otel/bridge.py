"""A span processor that turns spans of model calls into values of the session, whoever made them:
Anthropic's own, LaunchDarkly's AI SDK's, pydantic-ai's, instrumentors'.

One call often has two spans: its SDK's own and an instrumentor's. Neither parents nor ids tell
reliably, so the rule is about what is open: a starting span of a model call joins the newest call
that is open in its context and has no span of its scope yet, else a new call begins. Inside
`track_ai` the spans feed that call, where its result tells nothing, or several model calls ran;
elsewhere each model call is a call of its own, under the bridge's key.

Nothing here raises: an exception of a processor would come out of the user's model call.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..ai.calls import Call, current_call
from ..ai.decorators import track_ai
from ..ai.usage import Generation
from ..diagnostics import guard, warn_once
from ..sessions.current import current_session
from .conventions import FINISHED
from .span_processor import OURS, SpanHandler, scope_of
from .span_reading import aggregated, broken_off, failure_of, first_chunk_of, generation_of, kind_of
from .span_tasks import SpanTasks, adopt_conversation, note_model_call

MOST_OPEN = 10_000
_NATIVE_SCOPES = (
    "com.anthropic.",
    "launchdarkly",
    "pydantic-ai",
    "gcp.vertex.agent",
    "openai.agents",
)
_TELL_RETRIES = ("com.anthropic.",)


class _Told(NamedTuple):
    """What one span said at its end."""

    native: bool
    known: Generation
    first_chunk: float | None
    failure: str | None
    finished: bool


class _SpanCall:
    """One model call, or one run of an agent, and the spans that are about it."""

    __slots__ = ("call", "is_agent", "members", "own", "scopes", "seen_model", "settled", "told")

    def __init__(self, call: Call, *, own: bool, is_agent: bool) -> None:
        self.call = call
        self.own = own
        self.is_agent = is_agent
        self.members: set[int] = set()
        self.scopes: set[str] = set()
        self.told: list[_Told] = []
        self.seen_model = False
        self.settled = False


_open: ContextVar[tuple[_SpanCall, ...]] = ContextVar("ldinstrument_span_calls", default=())


class SpanBridge(SpanHandler):
    """A span processor for `TracerProvider.add_span_processor`; `install_bridge` adds one.

    Args:
        key: of the metrics of model calls outside `track_ai`: `<key>.tokens.total` and the like.
        cost: as of `track_ai`.
    """

    def __init__(self, key: str = "gen_ai", *, cost: Any = None) -> None:
        self._scope = track_ai(key, interaction=False, cost=cost)
        self._tasks = SpanTasks(key)
        self._by_span: dict[int, _SpanCall] = {}
        self._lock = threading.Lock()

    # -- what OpenTelemetry's SDK calls ------------------------------------------------------------
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Note a span that starts: here is its session, and the call around it."""
        with guard("the span bridge", strict=False):
            kind = kind_of(span.name, span.attributes or {})
            if kind == "other" or scope_of(span) == OURS:
                return
            adopt_conversation(span.attributes or {})
            if kind in ("model", "agent"):
                self._started(span, is_agent=kind == "agent")
            if kind in ("tool", "agent"):
                self._tasks.started(span, is_agent=kind == "agent")

    def on_end(self, span: Any) -> None:
        """Read a span that has ended, perhaps on another thread."""
        with guard("the span bridge", strict=False):
            with self._lock:
                found = self._by_span.pop(span.context.span_id, None)
            if found is not None:
                self._ended(found, span)
            self._tasks.ended(span)

    def shutdown(self) -> None:
        """Let go of what has not ended."""
        with self._lock:
            self._by_span.clear()
        self._tasks.forget()

    # -- calls -------------------------------------------------------------------------------------
    def _started(self, span: Any, *, is_agent: bool) -> None:
        scope = scope_of(span)
        opened = self._still_open()
        if any(span.context.span_id in record.members for record in opened):
            return  # another bridge has it
        record = None if is_agent else _without(opened, scope)
        if record is None:
            record = self._begun(is_agent)
            if record is None:
                return
            _open.set((*opened, record))
            if not is_agent:
                note_model_call()
        else:
            _warn_doubled(record, scope)
        if not is_agent:
            for around in opened:
                around.seen_model = True
        record.members.add(span.context.span_id)
        record.scopes.add(scope)
        with self._lock:
            if len(self._by_span) < MOST_OPEN:
                self._by_span[span.context.span_id] = record

    def _still_open(self) -> tuple[_SpanCall, ...]:
        """Return what is open in this context. A model call of another session, or of which a span
        has ended while another never did, is over: a new one is about to begin.
        """
        found, session = [], current_session()
        for record in _open.get():
            if record.settled or not record.members:
                continue
            if record.call.session is not session or (record.told and not record.is_agent):
                self._settle(record)
            else:
                found.append(record)
        return tuple(found)

    def _begun(self, is_agent: bool) -> _SpanCall | None:
        """Return a call that begins; None without a session, or `track_ai`, to feed."""
        around = current_call()
        if around is not None:
            return _SpanCall(around, own=False, is_agent=is_agent)
        if current_session() is None:
            return None
        return _SpanCall(self._scope.begin(), own=True, is_agent=is_agent)

    def _ended(self, record: _SpanCall, span: Any) -> None:
        scope, attributes = scope_of(span), dict(span.attributes or {})
        native = scope.startswith(_NATIVE_SCOPES)
        if record.is_agent:
            known = aggregated(attributes)
        else:
            known = generation_of(attributes, retries_told=scope.startswith(_TELL_RETRIES))
        first, failure = first_chunk_of(attributes), failure_of(span)
        finished = bool(attributes.get(FINISHED))
        record.told.append(_Told(native, known, first, failure, finished))
        record.members.discard(span.context.span_id)
        # Some instrumentors never end the span of a stream that was closed: the SDK's own is
        # enough.
        if native or not record.members:
            self._settle(record)

    def _settle(self, record: _SpanCall) -> None:
        """Tell the call what its spans said: the SDK's own is believed first."""
        if record.settled:
            return
        record.settled = True
        record.told.sort(key=lambda told: not told.native)
        known = Generation()
        for told in record.told:
            known = _completed(known, told.known)
        if record.is_agent and (record.seen_model or known.usage is None):
            # Its model calls have told already, or there was none that anybody knows of.
            if record.own:
                record.call.unstarted()
            return
        record.call.read_span(known)
        if record.own:
            _end_call(record.call, known, record.told)


def _end_call(call: Call, known: Generation, told: list[_Told]) -> None:
    """End a call of the bridge's own as its spans say that it ended."""
    first = next((span.first_chunk for span in told if span.first_chunk is not None), None)
    if first is not None:
        call.first_token_after(first)
    failure = next((span.failure for span in told if span.failure is not None), None)
    error = broken_off(failure)
    answered = known.finish_reason or (known.usage is not None and known.usage.output is not None)
    if failure is None and not (answered or any(span.finished for span in told)):
        error = GeneratorExit()  # neither an end nor an output: it broke off
    if error is not None:
        call.raised(error)
        return
    if failure is not None:
        call.fail(failure)
    call.returned(None)


def _warn_doubled(record: _SpanCall, scope: str) -> None:
    """Say once that two make spans of the same model calls."""
    first = min(record.scopes, default="?")
    warn_once(
        "doubled_spans",
        record.call.key,
        f"{record.call.key}: {first} and {scope} each make a span of one model call; here it "
        "counts once, but whatever sums spans counts its tokens twice: switch one of them off",
    )


def _without(opened: tuple[_SpanCall, ...], scope: str) -> _SpanCall | None:
    """Return the newest open model call that has no span of *scope* yet."""
    calls = (record for record in reversed(opened) if not record.is_agent)
    return next((record for record in calls if scope not in record.scopes), None)


def _completed(known: Generation, more: Generation) -> Generation:
    """Return *known*, with what only *more* knows."""
    return Generation(
        known.usage or more.usage,
        known.model or more.model,
        known.provider or more.provider,
        known.finish_reason or more.finish_reason,
        known.tool_calls if known.tool_calls is not None else more.tool_calls,
        known.attempts or more.attempts,
        known.id or more.id,
    )


def install_bridge(
    key: str = "gen_ai", *, cost: Any = None, provider: Any = None
) -> SpanBridge | None:
    """Add a `SpanBridge` to the tracer provider; call it after the provider was set up.

    Args:
        key, cost: as of `SpanBridge`.
        provider: a `TracerProvider` of OpenTelemetry's SDK; the global one when None.

    Returns:
        The bridge; None, said once, when the provider takes no processors: none was set up yet.
    """
    from opentelemetry import trace

    provider = provider or trace.get_tracer_provider()
    add = getattr(provider, "add_span_processor", None)
    if add is None:
        warn_once(
            "span_bridge",
            "",
            "otel.install_bridge: no tracer provider is set up yet, so no span is read: call "
            "it after trace.set_tracer_provider(...)",
        )
        return None
    _warn_sampled(provider, key)
    bridge = SpanBridge(key, cost=cost)
    add(bridge)
    return bridge


def _warn_sampled(provider: Any, key: str) -> None:
    """Say once that a sampler will hide spans."""
    description = getattr(getattr(provider, "sampler", None), "get_description", None)
    told = description() if description is not None else ""
    root = told.partition("root:")[2] or told
    if root.startswith("AlwaysOff") or (
        root.startswith("TraceIdRatioBased") and not root.startswith("TraceIdRatioBased{1.0}")
    ):
        warn_once(
            "sampled_spans",
            key,
            f"{key}: the tracer provider samples ({root.partition(',')[0]}), so the bridge sees "
            "a part of the model calls only: decorate them with track_ai, which needs no spans",
        )
