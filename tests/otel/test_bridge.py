"""Spans of model calls as values of the session: each call once, whoever made its spans."""

from __future__ import annotations

import asyncio
import logging
import sys
from types import ModuleType
from typing import Any

import pytest
from model_spans import model_span, told, values
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

import ldinstrument as ld
from ldinstrument.otel import SpanBridge, install_bridge
from ldinstrument.testing import RecordingClient

NEEDS_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="pydantic-ai needs Python 3.11")


# -- Anthropic's own spans -------------------------------------------------------------------------


def test_anthropic(
    models: Any, sdks: ModuleType, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Anthropic's SDK makes spans by itself: tokens, cost, attempts, without anything decorated."""
    with ld.session("u-1"):
        sdks.anthropic_message(models.url)
        models.behave(refuse=1)
        sdks.anthropic_message(models.url)
    found = values(ld_events)
    assert (found["success_rate"], found["unfinished"]) == ([1, 1], [0, 0])
    assert (found["tokens.input"], found["tokens.cached"]) == ([20, 20], [8, 8])
    assert (found["tokens.output"], found["attempts"]) == ([6, 6], [1, 2])
    assert ld_events.of("gen_ai.duration")[0].data["model"] == sdks.CLAUDE
    assert ld_events.only("session.interactions").value == 0


def test_anthropic_stream(
    models: Any, sdks: ModuleType, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """A stream to its end, and one closed after its first event: abandoned, its input known."""
    with ld.session("u-1"):
        list(sdks.anthropic_stream(models.url))
        stream = sdks.anthropic_stream(models.url)
        next(stream)
        stream.close()
    found = values(ld_events)
    assert (found["success_rate"], sorted(found["unfinished"])) == ([1], [0, 1])
    assert (found["tokens.input"], found["tokens.output"]) == ([20, 20], [6])
    assert len(found["time_to_first_token"]) == 1
    assert [event.data["usage"] for event in ld_events.of("gen_ai.tokens.input")] == [
        "known",
        "partial",
    ]


def test_anthropic_failure(
    models: Any, sdks: ModuleType, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Refused to the end: one failure, with its attempts and the kind of error."""
    models.behave(refuse=9)
    with ld.session("u-1"), pytest.raises(Exception):
        sdks.anthropic_message(models.url)
    found = values(ld_events)
    assert (found["success_rate"], found["attempts"]) == ([0], [3])
    assert ld_events.only("gen_ai.success_rate").data["reason"] == "rate_limit"


def test_inside_track_ai(
    models: Any, sdks: ModuleType, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Inside `track_ai` the spans feed that call, once; the bridge's own key stays silent."""

    @ld.track_ai("k")
    def text_only() -> str:
        return str(sdks.anthropic_message(models.url).content[0].text)

    @ld.track_ai("k2")
    def whole() -> Any:
        return sdks.anthropic_message(models.url)

    @ld.track_ai("k3")
    def two() -> Any:
        sdks.anthropic_message(models.url)
        return sdks.anthropic_message(models.url)

    with ld.session("u-1"):
        text_only()
        whole()
        two()
    assert values(ld_events) == {}
    assert values(ld_events, "k")["tokens.total"] == [26]
    assert values(ld_events, "k2")["tokens.total"] == [26]
    assert values(ld_events, "k3")["tokens.total"] == [52]


# -- two spans of one call -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["parent", "sibling", "other trace", "first to end"])
def test_two_spans_of_one_call(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient, shape: str
) -> None:
    """A native span and an instrumentor's, one inside the other, beside it, or in a trace of its own,
    are one call; the native one is believed.
    """
    native, instrumentor = (
        provider.get_tracer("com.anthropic.sdk.python"),
        provider.get_tracer("other"),
    )
    with ld.session("u-1"):
        if shape == "parent":
            with model_span(instrumentor) as outer:
                with model_span(native) as inner:
                    told(inner)
                told(outer, 9, 9)
        else:
            outer = instrumentor.start_span("chat m", attributes={"gen_ai.operation.name": "chat"})
            context = (
                trace.set_span_in_context(trace.INVALID_SPAN) if shape == "other trace" else None
            )
            inner = native.start_span(
                "chat m", context=context, attributes={"gen_ai.operation.name": "chat"}
            )
            told(inner)
            told(outer, 9, 9)
            for span in (outer, inner) if shape == "first to end" else (inner, outer):
                span.end()
    assert values(ld_events)["tokens.total"] == [26]
    assert values(ld_events)["success_rate"] == [1]


def test_span_that_never_ends(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """An instrumentor that never ends its span keeps nobody: the SDK's own end settles the call, and
    the next call, in this session or another, is one of its own.
    """
    native, instrumentor = provider.get_tracer("com.anthropic.x"), provider.get_tracer("other")
    attributes = {"gen_ai.operation.name": "chat"}
    for _ in range(2):
        with ld.session("u-1"):
            instrumentor.start_span("chat m", attributes=attributes)  # never ended
            with model_span(native) as inner:
                told(inner)
            with model_span(provider.get_tracer("third")) as span:
                told(span, 10, 10)
    assert values(ld_events)["tokens.total"] == [26, 20, 26, 20]


def test_only_the_sdks_span_ends(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """The last call of a session is not lost when an instrumentor never ends its span."""
    with ld.session("u-1"):
        provider.get_tracer("other").start_span(
            "chat m", attributes={"gen_ai.operation.name": "chat"}
        )
        with model_span(provider.get_tracer("com.anthropic.x")) as inner:
            told(inner)
    assert values(ld_events)["tokens.total"] == [26]


def test_stream_that_only_an_instrumentor_saw(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """A call whose only span never ends is nothing, and the next session's call is not lost in it."""
    instrumentor = provider.get_tracer("other")
    with ld.session("u-1"):
        instrumentor.start_span("chat m", attributes={"gen_ai.operation.name": "chat"})
    with ld.session("u-2"), model_span(provider.get_tracer("third")) as span:
        told(span)
    assert values(ld_events)["tokens.total"] == [26]


def test_calls_one_after_another(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Calls that follow each other, each with two spans, are as many calls."""
    native, instrumentor = provider.get_tracer("com.anthropic.x"), provider.get_tracer("other")
    with ld.session("u-1"):
        for _ in range(3):
            with model_span(instrumentor), model_span(native) as inner:
                told(inner)
    assert values(ld_events)["tokens.total"] == [26] * 3


def test_calls_side_by_side(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Asyncio tasks that call models at the same time are as many calls."""
    native, instrumentor = provider.get_tracer("com.anthropic.x"), provider.get_tracer("other")

    async def one() -> None:
        with model_span(instrumentor):
            await asyncio.sleep(0.01)
            with model_span(native) as inner:
                await asyncio.sleep(0.01)
                told(inner)

    async def main() -> None:
        async with ld.session("u-1"):
            await asyncio.gather(*(one() for _ in range(5)))

    asyncio.run(main())
    assert values(ld_events)["tokens.total"] == [26] * 5


def test_nested_calls_of_one_scope(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """A model call inside a model call, both by one scope, are two."""
    tracer = provider.get_tracer("other")
    with ld.session("u-1"), model_span(tracer) as outer:
        told(outer, 1, 1)
        with model_span(tracer) as inner:
            told(inner, 10, 10)
    assert sorted(values(ld_events)["tokens.total"]) == [2, 20]


# -- agents, conventions ---------------------------------------------------------------------------


@NEEDS_311
def test_pydantic_ai(
    models: Any, sdks: ModuleType, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """An agent's span and its model's are one call's tokens."""
    from pydantic_ai import Agent

    Agent.instrument_all()
    try:
        with ld.session("u-1"):
            sdks.pydantic_run(models.url)
    finally:
        Agent.instrument_all(False)
    found = values(ld_events)
    assert (found["tokens.total"], found["tokens.cached"], found["success_rate"]) == (
        [26],
        [8],
        [1],
    )
    assert ld_events.of("gen_ai.duration")[0].data["model"] == sdks.CHAT_MODEL


def test_agent_without_model_spans(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Where nobody makes spans of the model, the agent's own usage counts."""
    tracer = provider.get_tracer("agents")
    with ld.session("u-1"):
        attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 20}
        with tracer.start_as_current_span("invoke_agent a", attributes=attributes) as span:
            span.set_attribute("gen_ai.usage.output_tokens", 6)
    assert values(ld_events)["tokens.total"] == [26]


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "gen_ai.system": "openai", "llm.request.type": "chat", "gen_ai.usage.prompt_tokens": 20,
            "gen_ai.usage.completion_tokens": 6,
        },
        {"openinference.span.kind": "LLM", "llm.token_count.prompt": 20, "llm.token_count.completion": 6},
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 6},
        {"gen_ai.operation.name": "generate_content", "gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 6},
    ],
)  # fmt: skip
def test_generations_of_names(
    provider: TracerProvider,
    bridge: SpanBridge,
    ld_events: RecordingClient,
    attributes: dict[str, Any],
) -> None:
    """Several generations of attribute names are read."""
    with ld.session("u-1"):
        with provider.get_tracer("x").start_as_current_span("call", attributes=attributes):
            pass
    assert values(ld_events)["tokens.total"] == [26]


@pytest.mark.parametrize("name", ["chat gpt-4o", "openai.response"])
def test_operation_named_later(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient, name: str
) -> None:
    """A span that says only later what it is about is known by its name."""
    with ld.session("u-1"), provider.get_tracer("x").start_as_current_span(name) as span:
        told(span)
        span.set_attribute("gen_ai.operation.name", "chat")
    assert values(ld_events)["tokens.total"] == [26]


def test_other_spans(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Spans of anything else are in no metric, tools in none of a model."""
    tracer = provider.get_tracer("x")
    with ld.session("u-1"):
        for name, attributes in (
            ("GET", {}),
            ("execute_tool weather", {"gen_ai.operation.name": "execute_tool"}),
            ("embeddings m", {"gen_ai.operation.name": "embeddings"}),
        ):
            with tracer.start_as_current_span(name, attributes=attributes):
                pass
    assert set(values(ld_events)) == {"tool.success_rate", "tool.duration", "tool.unfinished"}


def test_doubled_and_sampled_spans_are_said(
    provider: TracerProvider,
    bridge: SpanBridge,
    ld_events: RecordingClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once each, and doctor knows both causes."""
    native, other = provider.get_tracer("com.anthropic.sdk"), provider.get_tracer("instrumentor")
    with ld.session("u-1"):
        for _ in range(2):
            with model_span(other), model_span(native) as span:
                told(span)
    assert [
        record.message for record in caplog.records if "each make a span" in record.message
    ] == [
        "gen_ai: instrumentor and com.anthropic.sdk each make a span of one model call; here it "
        "counts once, but whatever sums spans counts its tokens twice: switch one of them off"
    ]
    assert values(ld_events)["tokens.input"] == [20, 20]
    caplog.clear()
    for share, said in ((1.0, 0), (0.1, 1)):
        install_bridge(f"k{share}", provider=TracerProvider(sampler=TraceIdRatioBased(share)))
        assert caplog.text.count("TraceIdRatioBased{0.1}") == said


# -- the host --------------------------------------------------------------------------------------


def test_never_raises(
    provider: TracerProvider, bridge: SpanBridge, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an SDK hands it, or calls of it, nothing comes out."""
    with caplog.at_level(logging.CRITICAL):
        for odd in (None, object(), 5):
            bridge.on_start(odd)
            bridge.on_end(odd)
    bridge._on_ending(None)
    bridge._on_something_new(1, two=2)
    with pytest.raises(AttributeError):
        _ = bridge.something_else
    assert bridge.force_flush()
    bridge.shutdown()


def test_without_a_session(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Without a session nothing is recorded, and nothing is kept."""
    with model_span(provider.get_tracer("x")) as span:
        told(span)
    assert not ld_events.events


def test_no_provider_yet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Installed before a tracer provider is set up, it says so."""
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        assert install_bridge(provider=trace.NoOpTracerProvider()) is None
    assert "no tracer provider is set up yet" in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError, ValueError])
def test_a_model_call_that_was_cancelled_has_not_failed(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient, error: Any
) -> None:
    """Its span says ERROR, as of any exception: by its kind it is unfinished, not failed."""
    tracer = provider.get_tracer("an.instrumentor")
    with ld.session("u-1"), pytest.raises(error), model_span(tracer):
        raise error
    found = values(ld_events)
    cancelled = error is not ValueError
    assert found["unfinished"] == [int(cancelled)]
    assert found.get("success_rate") == (None if cancelled else [0])


def test_two_bridges_count_once(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Installed twice, by two libraries of a program, say, each span is still one call or task."""
    install_bridge("second")
    tracer = provider.get_tracer("an.instrumentor")
    with ld.session("u-1"):
        agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner"}
        with tracer.start_as_current_span("invoke_agent planner", attributes=agent):
            with model_span(tracer) as span:
                told(span)
            tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
            with tracer.start_as_current_span("execute_tool search", attributes=tool):
                pass
    assert values(ld_events)["tokens.total"] == [26]
    assert values(ld_events)["agent.inference_calls"] == [1]
    assert values(ld_events)["agent.tool_calls"] == [1]
    assert not values(ld_events, "second")
