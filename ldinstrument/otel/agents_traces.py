"""Traces of OpenAI's agents SDK, which makes no OpenTelemetry spans: its own trace processors are
public, and what they hear is given to the span bridge in the words of the conventions.

Nothing of that SDK is imported until it is asked for, and no OpenTelemetry SDK is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ..ai.results import read
from ..ai.usage import Generation, read_usage
from ..diagnostics import guard
from . import conventions as names
from .bridge import SpanBridge
from .span_tasks import adopt_conversation

SCOPE = "openai.agents"
_OPERATION_OF_TYPE = {
    "agent": "invoke_agent",
    "function": "execute_tool",
    "generation": "chat",
    "response": "chat",
}


class AgentsTraces:
    """A trace processor for `agents.add_trace_processor`; `install_agents_traces` adds one.

    Args:
        key, cost: as of `SpanBridge`.
    """

    def __init__(self, key: str = "gen_ai", *, cost: Any = None) -> None:
        self._bridge = SpanBridge(key, cost=cost)

    def on_trace_start(self, trace: Any) -> None:
        """Let the session go on under the group's id: a chat's, as that SDK advises."""
        with guard("traces of agents", strict=False):
            adopt_conversation({names.CONVERSATION_ID[0]: getattr(trace, "group_id", None)})

    def on_trace_end(self, trace: Any) -> None:
        """Do nothing: what counts are its spans."""

    def on_span_start(self, span: Any) -> None:
        """Hear of a run of an agent, a tool or a model that starts."""
        with guard("traces of agents", strict=False):
            if span.span_data.type in _OPERATION_OF_TYPE:
                self._bridge.on_start(_as_span(span, {}))

    def on_span_end(self, span: Any) -> None:
        """Hear of one that has ended."""
        with guard("traces of agents", strict=False):
            if span.span_data.type in _OPERATION_OF_TYPE:
                self._bridge.on_end(_as_span(span, _told_at_end(span)))

    def shutdown(self) -> None:
        """Let go of what has not ended."""
        self._bridge.shutdown()

    def force_flush(self) -> None:
        """Do nothing: nothing waits here."""


def _as_span(span: Any, more: Mapping[str, Any]) -> Any:
    """Return *span* as one of OpenTelemetry's."""
    operation = _OPERATION_OF_TYPE[span.span_data.type]
    named = {"invoke_agent": names.AGENT_NAME, "execute_tool": names.TOOL_NAME}.get(operation)
    attributes = {names.OPERATION_NAME: operation, **more}
    if named is not None:
        attributes[named[0]] = span.span_data.name
    failed = names.ERROR_TYPE in attributes
    return SimpleNamespace(
        name=operation,
        attributes=attributes,
        context=SimpleNamespace(span_id=span.span_id),
        instrumentation_scope=SimpleNamespace(name=SCOPE),
        status=SimpleNamespace(status_code=SimpleNamespace(name="ERROR" if failed else "UNSET")),
    )


def _told_at_end(span: Any) -> dict[str, Any]:
    """Return what *span* says at its end, as attributes; what is not known is left out."""
    known = _generation_of(span.span_data)
    usage = known.usage
    told = {
        names.MODEL[0]: known.model,
        names.PROVIDER[0]: known.provider,
        names.FINISH_REASONS[0]: known.finish_reason and [known.finish_reason],
        names.RESPONSE_ID[0]: known.id,
        names.INPUT_TOKENS[0]: usage and usage.input,
        names.OUTPUT_TOKENS[0]: usage and usage.output,
        names.CACHED_TOKENS[0]: usage and usage.cached,
        names.REASONING_TOKENS[0]: usage and usage.reasoning,
        names.FINISHED: getattr(span.span_data, "output", None) is not None,
        names.ERROR_TYPE: _failure_of(span),
    }
    return {name: value for name, value in told.items() if value is not None}


def _generation_of(data: Any) -> Generation:
    """Return what a span of a model call says of it."""
    if data.type == "response":
        return read(data.response) or Generation(usage=read_usage(data.usage))
    if data.type == "generation":
        return Generation(usage=read_usage(data.usage), model=data.model)
    return Generation()


def _failure_of(span: Any) -> str | None:
    """Return the kind of error that *span* ends with: the exception on its way, if there is one."""
    on_its_way = sys.exc_info()[0]
    if on_its_way is not None:
        return on_its_way.__name__
    return "error" if span.error else None


def install_agents_traces(key: str = "gen_ai", *, cost: Any = None) -> AgentsTraces:
    """Let runs of OpenAI's agents be values of the session, beside what that SDK does with them.

    Args:
        key, cost: as of `SpanBridge`.

    Raises:
        ImportError: openai-agents is not installed.
    """
    import agents

    processor = AgentsTraces(key, cost=cost)
    as_theirs: Any = processor
    agents.add_trace_processor(as_theirs)
    return processor
