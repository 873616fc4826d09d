"""OpenTelemetry's names for model calls, agents and tools: all generations that are read, and, by
version, the ones that are written. This is the one place that knows them; none is our own.

The conventions are in development: what most backends know is version 1.36, and the newest are
asked for as OpenTelemetry's own instrumentors do, by `OTEL_SEMCONV_STABILITY_OPT_IN`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..settings import variable

Kind = Literal["model", "agent", "tool", "other"]

# -- what is read ----------------------------------------------------------------------------------
# OpenTelemetry's now, those before them, OpenLLMetry's, OpenInference's; the first found counts.

OPERATION = ("gen_ai.operation.name", "llm.request.type", "traceloop.span.kind", "mcp.method.name")
KIND_OF_OPERATION: dict[str, Kind] = {
    "chat": "model",
    "completion": "model",
    "text_completion": "model",
    "generate_content": "model",
    "invoke_agent": "agent",
    "agent": "agent",
    "execute_tool": "tool",
    "tool": "tool",
    "tools/call": "tool",
}
OPENINFERENCE_KIND = "openinference.span.kind"
KIND_OF_OPENINFERENCE: dict[str, Kind] = {"LLM": "model", "AGENT": "agent", "TOOL": "tool"}
KIND_OF_PREFIX: tuple[tuple[str, Kind], ...] = (
    ("chat ", "model"),
    ("openai.response", "model"),  # OpenLLMetry's, of the responses API
    ("invoke_agent ", "agent"),
    ("execute_tool ", "tool"),
    ("tools/call ", "tool"),
)
INPUT_TOKENS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
)
OUTPUT_TOKENS = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
)
CACHED_TOKENS = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.details.cache_read_tokens",
    "llm.token_count.prompt_details.cache_read",
)
CACHE_WRITTEN_TOKENS = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)
REASONING_TOKENS = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
)
MODEL = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
FINISH_REASONS = (
    "gen_ai.response.finish_reasons",
    "anthropic.message.stop_reason",
    "llm.response.finish_reason",
    "llm.response.stop_reason",
)
RESPONSE_ID = ("gen_ai.response.id", "llm.response.id")
AGENT_NAME = ("gen_ai.agent.name", "traceloop.entity.name", "agent.name")
TOOL_NAME = ("gen_ai.tool.name", "traceloop.entity.name", "tool.name")
CONVERSATION_ID = ("gen_ai.conversation.id", "session.id")
RESENT = "http.request.resend_count"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
EXCEPTION_TYPE = "exception.type"
AGGREGATED = "gen_ai.aggregated_usage."
FINISHED = "ldinstrument.finished"
"""Never on a span: told inside by what is no span and knows that the model has answered."""
BROKEN_OFF_BY = {
    "launchdarkly.run.cancelled": "CancelledError",
    "launchdarkly.stream.abandoned": "GeneratorExit",
}
"""What LaunchDarkly's AI SDK says of a run that broke off, whose span is no error."""
BROKEN_OFF = ("CancelledError", "asyncio.exceptions.CancelledError", "GeneratorExit")
"""Kinds of errors that are nobody's failure."""

# -- what is written -------------------------------------------------------------------------------

SESSION_ID = "session.id"
ERROR_TYPE = "error.type"
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
LATEST = "gen_ai_latest_experimental"
CHAT = "chat"
OPERATION_NAME = OPERATION[0]
WRITTEN_FINISH_REASONS = FINISH_REASONS[0]
WRITTEN_CONVERSATION_ID = CONVERSATION_ID[0]


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """A histogram, by name.

    Args:
        name: of the instrument.
        value: the suffix of the metric of `track_ai` that it is given.
        unit: of the instrument; metrics in milliseconds become seconds.
        description: of the instrument.
        boundaries: of its buckets.
        attributes: beside those of every instrument.
    """

    name: str
    value: str
    unit: str
    description: str
    boundaries: tuple[float, ...]
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conventions:
    """What one version of the conventions calls things.

    Args:
        version: of the conventions.
        attributes: attribute of a span by what `track_ai` knows it as.
        instruments: which instruments a call feeds.
    """

    version: str
    attributes: dict[str, str]
    instruments: tuple[Instrument, ...]

    @property
    def model(self) -> str:
        """Return the attribute that names the model."""
        return self.attributes["model"]

    @property
    def provider(self) -> str:
        """Return the attribute that names the provider."""
        return self.attributes["provider"]


_SECONDS = tuple(0.01 * 2**power for power in range(14))
_TOKENS = tuple(float(4**power) for power in range(14))
_DURATION = Instrument(
    "gen_ai.client.operation.duration", "duration", "s", "GenAI operation duration.", _SECONDS
)
_SHARED = {
    "model": "gen_ai.response.model",
    "tokens.input": "gen_ai.usage.input_tokens",
    "tokens.output": "gen_ai.usage.output_tokens",
}


def _token_usage(kind: str) -> Instrument:
    return Instrument(
        "gen_ai.client.token.usage",
        f"tokens.{kind}",
        "{token}",
        "Number of input and output tokens used.",
        _TOKENS,
        {"gen_ai.token.type": kind},
    )


def _usage(kind: str) -> Instrument:
    return Instrument(
        f"gen_ai.client.inference.usage.{kind}_tokens",
        f"tokens.{kind}",
        "{token}",
        f"The number of {kind} tokens used per inference operation.",
        _TOKENS,
    )


def _chunks(name: str, value: str, description: str) -> Instrument:
    return Instrument(
        f"gen_ai.client.operation.{name}", value, "s", description, tuple(s / 10 for s in _SECONDS)
    )


STABLE = Conventions(
    "1.36.0",
    {**_SHARED, "provider": "gen_ai.system"},
    (_DURATION, _token_usage("input"), _token_usage("output")),
)
NEWEST = Conventions(
    "1.44.0",
    {
        **_SHARED,
        "provider": "gen_ai.provider.name",
        "tokens.cached": "gen_ai.usage.cache_read.input_tokens",
        "tokens.reasoning": "gen_ai.usage.reasoning.output_tokens",
        "time_to_first_token": "gen_ai.response.time_to_first_chunk",
    },
    (
        _DURATION,
        _usage("input"),
        _usage("output"),
        _chunks("time_to_first_chunk", "time_to_first_token", "Time to receive the first chunk."),
        _chunks(
            "time_per_output_chunk",
            "time_per_chunk",
            "Time to receive each output chunk after the first.",
        ),
    ),
)


def conventions() -> Conventions:
    """Return what the environment asks for: the newest when it opts in, else version 1.36."""
    asked = (variable(OPT_IN) or "").split(",")
    return NEWEST if LATEST in [name.strip() for name in asked] else STABLE
