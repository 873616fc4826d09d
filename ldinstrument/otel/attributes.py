"""Names of span attributes, of several generations: OpenTelemetry's GenAI conventions, still in
development, those before them, OpenLLMetry's and OpenInference's. This is the one place that knows
them; none is written by us.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..ai.usage import Generation, Usage

Kind = Literal["model", "agent", "tool", "other"]
Attributes = Mapping[str, Any]

_OPERATION = ("gen_ai.operation.name", "llm.request.type", "traceloop.span.kind")
_KIND_OF_OPERATION: dict[str, Kind] = {
    "chat": "model",
    "completion": "model",
    "text_completion": "model",
    "generate_content": "model",
    "invoke_agent": "agent",
    "agent": "agent",
    "execute_tool": "tool",
    "tool": "tool",
}
_KIND_OF_OPENINFERENCE: dict[str, Kind] = {"LLM": "model", "AGENT": "agent", "TOOL": "tool"}
_PREFIXES: tuple[tuple[str, Kind], ...] = (
    ("chat ", "model"),
    ("openai.response", "model"),  # OpenLLMetry's, of the responses API
    ("invoke_agent ", "agent"),
    ("execute_tool ", "tool"),
)
_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
)
_CACHED = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.details.cache_read_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_CACHE_WRITTEN = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)
_REASONING = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
)
_MODEL = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider")
_FINISH_REASONS = (
    "gen_ai.response.finish_reasons",
    "anthropic.message.stop_reason",
    "llm.response.finish_reason",
    "llm.response.stop_reason",
)
_ID = ("gen_ai.response.id", "llm.response.id")
_RESENT = "http.request.resend_count"
_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
_AGGREGATED = "gen_ai.aggregated_usage."


def kind_of(name: str, attributes: Attributes) -> Kind:
    """Return what a span is about; LaunchDarkly's handlers and OpenLLMetry name the operation only
    later, so the span's own name counts, too.
    """
    kind = attributes.get("openinference.span.kind")
    if isinstance(kind, str):
        return _KIND_OF_OPENINFERENCE.get(kind, "other")
    operation = _text(attributes, _OPERATION)
    if operation is not None:
        return _KIND_OF_OPERATION.get(operation, "other")
    return next((kind for prefix, kind in _PREFIXES if name.startswith(prefix)), "other")


def generation_of(attributes: Attributes, *, retries_told: bool = False) -> Generation:
    """Return what a span says of its model call.

    Args:
        attributes: of the span, at its end.
        retries_told: whether this scope tells its retries, so that none told means none.
    """
    usage = Usage(
        input=_figure(attributes, _INPUT),
        output=_figure(attributes, _OUTPUT),
        cached=_figure(attributes, _CACHED),
        cache_written=_figure(attributes, _CACHE_WRITTEN),
        reasoning=_figure(attributes, _REASONING),
    )
    resent = _figure(attributes, (_RESENT,))
    return Generation(
        usage=None if usage.input is None and usage.output is None else _with_total(usage),
        model=_text(attributes, _MODEL),
        provider=_text(attributes, _PROVIDER),
        finish_reason=_finish_reason(attributes),
        attempts=resent + 1 if resent is not None else 1 if retries_told else None,
        id=_text(attributes, _ID),
    )


def aggregated(attributes: Attributes) -> Generation:
    """Return what an agent's span says of all its model calls together."""
    renamed = {
        f"gen_ai.usage.{name.removeprefix(_AGGREGATED)}": value
        for name, value in attributes.items()
        if name.startswith(_AGGREGATED)
    }
    return generation_of({**attributes, **renamed})


def first_chunk_of(attributes: Attributes) -> float | None:
    """Return the seconds to the first chunk, as the provider's client saw it."""
    seconds = attributes.get(_FIRST_CHUNK)
    return float(seconds) if isinstance(seconds, (int, float)) else None


def _with_total(usage: Usage) -> Usage:
    if usage.input is None or usage.output is None:
        return usage
    return Usage(
        usage.input,
        usage.output,
        usage.input + usage.output,
        usage.cached,
        usage.cache_written,
        usage.reasoning,
    )


def _figure(attributes: Attributes, names: tuple[str, ...]) -> int | None:
    found = (attributes.get(name) for name in names)
    return next((figure for figure in found if type(figure) is int and figure >= 0), None)


def _text(attributes: Attributes, names: tuple[str, ...]) -> str | None:
    found = (attributes.get(name) for name in names)
    return next((value for value in found if isinstance(value, str) and value), None)


def _finish_reason(attributes: Attributes) -> str | None:
    for name in _FINISH_REASONS:
        found = attributes.get(name)
        if isinstance(found, (list, tuple)) and found:
            found = found[0]
        if isinstance(found, str) and found:
            return found.lower()
    return None
