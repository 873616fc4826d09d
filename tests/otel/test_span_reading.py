"""Attributes of spans: read in every generation of names, and only where they are what they say."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ldinstrument.ai.usage import Generation, Usage
from ldinstrument.otel.span_reading import (
    agent_of,
    aggregated,
    broken_off,
    conversation_of,
    failure_of,
    first_chunk_of,
    generation_of,
    kind_of,
    tool_of,
)


@pytest.mark.parametrize(
    ("name", "attributes", "kind"),
    [
        ("x", {"openinference.span.kind": "LLM"}, "model"),
        ("invoke_agent", {"launchdarkly.operation.type": "gen_ai"}, "agent"),
        ("chatter m", {}, "other"),
        ("chat m", {"openinference.span.kind": "CHAIN"}, "other"),
        ("x", {"gen_ai.operation.name": "generate_content"}, "model"),
        ("x", {"gen_ai.operation.name": "invoke_agent"}, "agent"),
        ("x", {"traceloop.span.kind": "tool"}, "tool"),
        ("x", {"mcp.method.name": "tools/call"}, "tool"),
        ("chat m", {"gen_ai.operation.name": "embeddings"}, "other"),
        ("chat m", {}, "model"),
        ("openai.response", {}, "model"),
        ("invoke_agent a", {}, "agent"),
        ("execute_tool t", {}, "tool"),
        ("chatter", {}, "other"),
        ("GET /", {"gen_ai.operation.name": 7, "openinference.span.kind": 7}, "other"),
    ],
)
def test_what_a_span_is_about(name: str, attributes: dict[str, Any], kind: str) -> None:
    """What is told comes before the span's own name."""
    assert kind_of(name, attributes) == kind


def test_all_that_a_span_tells_of_its_call() -> None:
    """In the conventions' own names; the total is the sum of both."""
    found = generation_of(
        {
            "gen_ai.usage.input_tokens": 20,
            "gen_ai.usage.output_tokens": 6,
            "gen_ai.usage.cache_read.input_tokens": 8,
            "gen_ai.usage.cache_creation.input_tokens": 3,
            "gen_ai.usage.reasoning.output_tokens": 2,
            "gen_ai.response.model": "small-2026",
            "gen_ai.request.model": "small",
            "gen_ai.provider.name": "openai",
            "gen_ai.response.finish_reasons": ["STOP", "length"],
            "gen_ai.response.id": "r-1",
            "http.request.resend_count": 2,
        }
    )
    assert found == Generation(
        Usage(20, 6, 26, 8, 3, 2), "small-2026", "openai", "stop", None, 3, "r-1"
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.usage.prompt_tokens": 20, "gen_ai.usage.completion_tokens": 6},
        {"llm.token_count.prompt": 20, "llm.token_count.completion": 6},
        {"gen_ai.usage.input_tokens": 20, "gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.output_tokens": 6},
    ],
)  # fmt: skip
def test_older_names_mean_the_same(attributes: dict[str, Any]) -> None:
    """Where a span has several, the newest counts."""
    assert generation_of(attributes).usage == Usage(20, 6, 26)


@pytest.mark.parametrize("figure", ["20", 20.0, True, -1, None])
def test_what_is_no_whole_number_is_no_figure(figure: Any) -> None:
    """An unknown one is not 0, and there is no total of it."""
    assert generation_of({"gen_ai.usage.input_tokens": figure}).usage is None
    told = {"gen_ai.usage.input_tokens": figure, "gen_ai.usage.output_tokens": 6}
    assert generation_of(told).usage == Usage(output=6)


def test_requests_are_known_where_retries_are_told() -> None:
    """None told means one then; else it is unknown."""
    assert generation_of({}).attempts is None
    assert generation_of({}, retries_told=True).attempts == 1
    assert generation_of({"http.request.resend_count": 0}).attempts == 1


def test_an_agent_tells_the_usage_of_all_its_calls() -> None:
    """Under names of their own; its other attributes stay."""
    found = aggregated(
        {
            "gen_ai.aggregated_usage.input_tokens": 40,
            "gen_ai.aggregated_usage.output_tokens": 12,
            "gen_ai.usage.input_tokens": 20,
            "gen_ai.request.model": "m",
        }
    )
    assert (found.usage, found.model) == (Usage(40, 12, 52), "m")


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [(["Stop"], "stop"), (("a", "b"), "a"), ("MAX", "max"), ([], None), ([7], None), (7, None)],
)
def test_why_a_call_ended(reasons: Any, expected: str | None) -> None:
    """A list or one text, in lower case."""
    assert generation_of({"gen_ai.response.finish_reasons": reasons}).finish_reason == expected
    later = {"gen_ai.response.finish_reasons": [], "anthropic.message.stop_reason": "end_turn"}
    assert generation_of(later).finish_reason == "end_turn"


def test_names_of_agents_and_tools() -> None:
    """As an attribute, else behind the operation in the span's own name."""
    assert agent_of("invoke_agent a", {"gen_ai.agent.name": "shopper"}) == "shopper"
    assert agent_of("invoke_agent a", {"gen_ai.agent.name": ""}) == "a"
    assert agent_of("run", {}) is None
    assert tool_of("execute_tool t", {}) == tool_of("tools/call t", {}) == "t"
    assert tool_of("x", {"traceloop.entity.name": "search"}) == "search"


def test_the_rest_of_what_is_read() -> None:
    """The conversation, and the seconds to the first chunk."""
    assert conversation_of({"session.id": "s", "gen_ai.conversation.id": "c"}) == "c"
    assert conversation_of({"session.id": 7}) is None
    assert first_chunk_of({"gen_ai.response.time_to_first_chunk": 2}) == 2.0
    assert first_chunk_of({"gen_ai.response.time_to_first_chunk": "2"}) is None


@pytest.mark.parametrize(
    ("status", "attributes", "failure"),
    [
        ("ERROR", {"error.type": "ValueError"}, "ValueError"),
        ("ERROR", {}, "error"),
        ("ERROR", None, "error"),
        ("OK", {"error.type": "ValueError"}, None),
        ("UNSET", {"error.type": "ValueError"}, None),
    ],
)
def test_a_failure_is_one_by_its_status(status: str, attributes: Any, failure: str | None) -> None:
    """Then its kind is told, where it is known."""
    code = SimpleNamespace(status_code=SimpleNamespace(name=status))
    assert failure_of(SimpleNamespace(status=code, attributes=attributes)) == failure
    assert failure_of(SimpleNamespace(attributes=attributes)) is None


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("launchdarkly.run.cancelled", "CancelledError"),
        ("launchdarkly.stream.abandoned", "GeneratorExit"),
    ],
)
def test_launchdarkly_says_what_broke_off(name: str, failure: str) -> None:
    """By an attribute, on a span that is no error."""
    assert failure_of(SimpleNamespace(attributes={name: True})) == failure
    assert failure_of(SimpleNamespace(attributes={name: False})) is None


def test_an_exception_that_was_recorded_names_the_failure() -> None:
    """Where the span has no `error.type` (OpenInference's have none), the last one counts."""
    code = SimpleNamespace(status_code=SimpleNamespace(name="ERROR"))
    events = [
        SimpleNamespace(name="exception", attributes={"exception.type": "ValueError"}),
        SimpleNamespace(name="exception", attributes={"exception.type": "KeyError"}),
        SimpleNamespace(name="retry", attributes=None),
    ]
    span = SimpleNamespace(status=code, attributes={}, events=events)
    assert failure_of(span) == "KeyError"
    span.attributes = {"error.type": "TimeoutError"}
    assert failure_of(span) == "TimeoutError"
    assert failure_of(SimpleNamespace(status=code, attributes={}, events=events[2:])) == "error"


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (None, None),
        ("ValueError", None),
        ("GeneratorExit", GeneratorExit),
        ("CancelledError", asyncio.CancelledError),
        ("asyncio.exceptions.CancelledError", asyncio.CancelledError),
    ],
)
def test_who_leaves_has_not_failed(failure: str | None, kind: Any) -> None:
    """A span that a cancellation or a consumer has ended is nobody's failure."""
    error = broken_off(failure)
    assert error is None if kind is None else isinstance(error, kind)


def test_no_tokens_at_all_are_unknown_ones() -> None:
    """0 and 0 is how some say that nothing was told."""
    told = {"gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0}
    assert generation_of(told).usage is None
    assert generation_of({**told, "gen_ai.usage.output_tokens": 3}).usage is not None
