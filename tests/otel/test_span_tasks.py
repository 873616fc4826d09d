"""Agents and tools as tasks: each run once, whoever makes its spans, with the calls inside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from model_spans import model_span, told, values
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import ldinstrument as ld
from ldinstrument.otel import SpanBridge, span_tasks
from ldinstrument.otel.span_tasks import SpanTasks, adopt_conversation, note_model_call
from ldinstrument.testing import RecordingClient


def agent_run(tracer: Any, *, tools: int = 1, **attributes: Any) -> None:
    """An agent that calls its model, tools, and its model again."""
    with tracer.start_as_current_span(
        "invoke_agent shopper",
        attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "shopper"},
    ):
        for _ in range(2):
            with model_span(tracer, **attributes) as span:
                told(span)
        for _ in range(tools):
            with tracer.start_as_current_span(
                "execute_tool search",
                attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"},
            ):
                pass


def test_agents_and_tools_are_tasks(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """Runs of agents with their calls of models and tools, runs of tools, each once."""
    with ld.session("u-1"):
        agent_run(provider.get_tracer("x"), tools=3)
    found = values(ld_events)
    assert found["agent.success_rate"] == [1]
    assert (found["agent.inference_calls"], found["agent.tool_calls"]) == ([2], [3])
    assert found["tool.success_rate"] == [1, 1, 1]
    assert found["tokens.input"] == [20, 20]
    assert ld_events.of("gen_ai.tool.duration")[0].data == {"tool": "search"}
    assert ld_events.only("gen_ai.agent.tool_calls").data == {"agent": "shopper"}
    assert ld_events.only("session.interactions").value == 0
    assert "gen_ai.agent.inference_calls" in ld.catalog


def test_a_tool_that_fails_or_breaks_off(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """A failure with the kind of its error; a cancelled one is unfinished and no failure."""
    tracer = provider.get_tracer("x")
    kinds = ("ValueError", "asyncio.exceptions.CancelledError")
    with ld.session("u-1"):
        for kind in kinds:
            span = tracer.start_span(
                "execute_tool t", attributes={"gen_ai.operation.name": "execute_tool"}
            )
            span.set_attribute("error.type", kind)
            span.set_status(trace.StatusCode.ERROR)
            span.end()
    found = values(ld_events)
    assert found["tool.success_rate"] == [0]
    assert sorted(found["tool.unfinished"]) == [0, 1]
    assert ld_events.only("gen_ai.tool.duration").data["reason"] == "ValueError"


def test_a_tool_with_two_spans_counts_once(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """A framework's and an MCP client's, one inside the other; the same tool again is another."""
    frameworks, client = provider.get_tracer("framework"), provider.get_tracer("mcp-python-sdk")
    with ld.session("u-1"):
        for _ in range(2):
            with frameworks.start_as_current_span(
                "execute_tool search", attributes={"gen_ai.operation.name": "execute_tool"}
            ):
                with client.start_as_current_span(
                    "tools/call search", attributes={"mcp.method.name": "tools/call"}
                ):
                    pass
    assert values(ld_events)["tool.success_rate"] == [1, 1]


def test_the_conversation_is_the_session(
    provider: TracerProvider, bridge: SpanBridge, ld_events: RecordingClient
) -> None:
    """A session without an id of its own goes on under the conversation's."""
    tracer = provider.get_tracer("x")
    for id in (None, "mine"):
        with ld.session("u-1", id=id), model_span(tracer, gen_ai__conversation__id="talk-7"):
            pass
    ids = [event.data["sessionId"] for event in ld_events.of("session.duration")]
    assert ids == ["talk-7", "mine"]


def span(name: str, number: int = 1, *, scope: str = "x", **attributes: Any) -> Any:
    """A span as OpenTelemetry's SDK hands it to a processor."""
    return SimpleNamespace(
        name=name,
        attributes=attributes,
        context=SimpleNamespace(span_id=number),
        instrumentation_scope=SimpleNamespace(name=scope),
        status=None,
    )


def test_an_agent_whose_model_nobody_sees_tells_no_numbers(ld_events: RecordingClient) -> None:
    """How many calls it made is unknown then, not 0."""
    tasks = SpanTasks("k")
    with ld.session("u-1"):
        tasks.started(span("invoke_agent a"), is_agent=True)
        tasks.ended(span("invoke_agent a"))
    assert set(values(ld_events, "k")) == {
        "agent.success_rate",
        "agent.duration",
        "agent.unfinished",
    }


def test_calls_count_in_every_agent_around_them(ld_events: RecordingClient) -> None:
    """In no tool, and in nothing that is over."""
    tasks = SpanTasks("k")
    outer, inner = span("invoke_agent a", 1), span("invoke_agent b", 2)
    tool = span("execute_tool t", 3)
    with ld.session("u-1"):
        tasks.started(outer, is_agent=True)
        note_model_call()
        tasks.started(inner, is_agent=True)
        note_model_call()
        tasks.started(tool, is_agent=False)
        note_model_call()
        for over in (tool, inner):
            tasks.ended(over)
        note_model_call()
        tasks.ended(outer)
        note_model_call()
    assert values(ld_events, "k")["agent.inference_calls"] == [2, 4]
    assert values(ld_events, "k")["agent.tool_calls"] == [1, 1]


def test_a_name_that_is_told_at_the_end_is_in_the_data(ld_events: RecordingClient) -> None:
    """Of who tells it later, and of who puts it into the span's name."""
    tasks = SpanTasks("k")
    with ld.session("u-1"):
        tasks.started(span("run"), is_agent=True)
        tasks.ended(span("run", **{"gen_ai.agent.name": "shopper"}))
        tasks.started(span("execute_tool search", 2), is_agent=False)
        tasks.ended(span("execute_tool search", 2))
    assert ld_events.only("k.agent.duration").data == {"agent": "shopper"}
    assert ld_events.only("k.tool.duration").data == {"tool": "search"}


def test_the_same_tool_again_is_another_run(ld_events: RecordingClient) -> None:
    """Inside itself by the same library, and by another one when the first run is over."""
    tasks = SpanTasks("k")
    with ld.session("u-1"):
        spans = [span("execute_tool t", 1), span("execute_tool t", 2)]
        for nested in spans:
            tasks.started(nested, is_agent=False)
        for nested in reversed(spans):
            tasks.ended(nested)
        assert ld.current_session().summary().tasks["k.tool"].successes == 2
        tasks.started(span("execute_tool t", 3, scope="y"), is_agent=False)
        tasks.ended(span("execute_tool t", 3, scope="y"))
    assert values(ld_events, "k")["tool.success_rate"] == [1, 1, 1]


def test_without_a_session_nothing_is_begun(ld_events: RecordingClient) -> None:
    """And a span that ends without a beginning is nobody's."""
    tasks = SpanTasks("k")
    tasks.started(span("invoke_agent a"), is_agent=True)
    with ld.session("u-1"):
        tasks.ended(span("invoke_agent a"))
        tasks.ended(span("execute_tool t", 9))
    assert values(ld_events, "k") == {}


def test_spans_that_never_end_are_bounded_and_can_be_forgotten(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound a run is not seen to its end."""
    monkeypatch.setattr(span_tasks, "MOST_OPEN", 2)
    tasks = SpanTasks("k")
    with ld.session("u-1"):
        for number in range(3):
            tasks.started(span(f"execute_tool t{number}", number), is_agent=False)
        tasks.ended(span("execute_tool t2", 2))
        tasks.ended(span("execute_tool t0", 0))
        tasks.forget()
        tasks.ended(span("execute_tool t1", 1))
    assert values(ld_events, "k")["tool.success_rate"] == [1]


def test_a_span_without_a_conversation_changes_no_id(ld_events: RecordingClient) -> None:
    """Nor does one outside a session."""
    adopt_conversation({"gen_ai.conversation.id": "talk-7"})
    with ld.session("u-1") as s:
        before = s.id
        adopt_conversation({})
        adopt_conversation({"gen_ai.conversation.id": 7})
        assert s.id == before
        adopt_conversation({"session.id": "talk-8"})
        assert s.id == "talk-8"
