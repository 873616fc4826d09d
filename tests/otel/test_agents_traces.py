"""Runs of OpenAI's agents as values of the session, by that SDK's own trace processors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import agents
import pytest
from model_spans import values

import ldinstrument as ld
from ldinstrument.otel import AgentsTraces, install_agents_traces
from ldinstrument.testing import RecordingClient

AGENT, TOOL, MODEL = "gen_ai.agent", "gen_ai.tool", "gen_ai"


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentsTraces]:
    """The only processor, with tracing on, which the clients of the tests switch off."""
    agents.set_trace_processors([])
    monkeypatch.setattr(agents, "set_tracing_disabled", lambda disabled: None)
    agents.tracing.set_tracing_disabled(False)
    yield install_agents_traces()
    agents.set_trace_processors([])
    agents.tracing.set_tracing_disabled(True)


async def run(
    agent: Any, *, streamed: bool = False, leave: int | None = None, **config: Any
) -> None:
    """One run in a session."""
    settings = agents.RunConfig(**config)
    async with ld.session("u-1"):
        if not streamed:
            await agents.Runner.run(agent, "Will it rain?", run_config=settings)
            return
        result = agents.Runner.run_streamed(agent, "Will it rain?", run_config=settings)
        number = 0
        async for _ in result.stream_events():
            number += 1
            if number == leave:
                result.cancel()


@pytest.mark.parametrize("streamed", [False, True])
def test_agents_models_and_tools(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, traces: Any, streamed: bool
) -> None:
    """An agent with a tool: it, the tool and both model calls are tasks, with tokens and counts."""
    models.behave(tool_call=True)
    asyncio.run(run(sdks.agents_agent(models.url), streamed=streamed))
    found = values(ld_events, MODEL)
    assert found["success_rate"] == [1, 1]
    assert (found["tokens.input"], found["tokens.output"]) == ([20, 20], [6, 6])
    assert (found["tokens.cached"], found["tokens.reasoning"]) == ([8, 8], [2, 2])
    assert ld_events.of("gen_ai.duration")[0].data["model"] == sdks.CHAT_MODEL
    assert values(ld_events, AGENT)["inference_calls"] == [2]
    assert values(ld_events, AGENT)["tool_calls"] == [1]
    assert ld_events.only("gen_ai.agent.duration").data["agent"] == "weather"
    assert ld_events.only("gen_ai.tool.duration").data["tool"] == "weather"
    assert values(ld_events, TOOL)["success_rate"] == [1]


def test_chat_completions_as_the_agents_model(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, traces: Any
) -> None:
    """Its chat model makes spans of another kind: the same figures; none told is an answer, too."""

    def agent() -> Any:
        client = sdks.async_openai_client(models.url)
        model = agents.OpenAIChatCompletionsModel(model=sdks.CHAT_MODEL, openai_client=client)
        return agents.Agent(name="plain", model=model)

    asyncio.run(run(agent()))
    models.behave(usage=False)
    asyncio.run(run(agent()))
    found = values(ld_events, MODEL)
    assert (found["success_rate"], found["unfinished"]) == ([1, 1], [0, 0])
    assert found["tokens.total"] == [26]


def test_refused(models: Any, sdks: ModuleType, ld_events: RecordingClient, traces: Any) -> None:
    """A model that refuses is a failure of the call and of the agent; the exception comes out."""
    models.behave(refuse=99)
    with pytest.raises(Exception, match="slow down"):
        asyncio.run(run(sdks.agents_agent(models.url)))
    assert values(ld_events, MODEL)["success_rate"] == [0]
    assert values(ld_events, AGENT)["success_rate"] == [0]


def test_cancelled(models: Any, sdks: ModuleType, ld_events: RecordingClient, traces: Any) -> None:
    """A run that is cancelled is unfinished, and no failure: the model's call and the agent's."""
    models.behave(pause=5.0)

    async def main() -> None:
        running = asyncio.create_task(run(sdks.agents_agent(models.url)))
        while not models.requests:  # the model's call is on its way
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    for key in (MODEL, AGENT):
        found = values(ld_events, key)
        assert (found["unfinished"], found.get("success_rate")) == ([1], None)


def test_a_tool_that_fails(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, traces: Any
) -> None:
    """A tool that raises has failed, although the agent goes on."""

    @agents.function_tool
    def weather(city: str) -> str:
        """Tell the weather in a city."""
        raise ValueError("no weather here")

    models.behave(tool_call=True)
    agent = sdks.agents_agent(models.url).clone(tools=[weather])
    asyncio.run(run(agent))
    assert values(ld_events, TOOL)["success_rate"] == [0]
    assert values(ld_events, AGENT)["success_rate"] == [1]


def test_inside_track_ai(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, traces: Any
) -> None:
    """Where `track_ai` has the call already, the bridge's own key is silent, and nothing is twice."""

    @ld.track_ai("k")
    async def ask() -> str:
        result = await agents.Runner.run(sdks.agents_agent(models.url), "Will it rain?")
        return str(result.final_output)

    async def main() -> None:
        async with ld.session("u-1"):
            await ask()

    asyncio.run(main())
    assert values(ld_events, "k")["tokens.total"] == [26]
    assert "success_rate" not in values(ld_events, MODEL)


def test_the_group_is_the_session(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, traces: Any
) -> None:
    """A group's id, that of a chat, becomes the session's."""
    asyncio.run(run(sdks.agents_agent(models.url), group_id="chat-7"))
    assert ld_events.only("session.duration").data["sessionId"] == "chat-7"


def test_never_raises(traces: AgentsTraces) -> None:
    """Whatever it is given, the run of the agent goes on."""
    for strange in (None, object()):
        for hear in (
            traces.on_trace_start,
            traces.on_trace_end,
            traces.on_span_start,
            traces.on_span_end,
        ):
            hear(strange)
    traces.force_flush()
    traces.shutdown()


def test_no_model_was_asked(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, traces: Any
) -> None:
    """A guardrail stops the agent before its model is asked: the agent has failed, no model call."""

    @agents.input_guardrail
    async def never(context: Any, agent: Any, given: Any) -> Any:
        return agents.GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    agent = sdks.agents_agent(models.url).clone(input_guardrails=[never])
    with pytest.raises(agents.InputGuardrailTripwireTriggered):
        asyncio.run(run(agent))
    assert not models.requests
    assert values(ld_events, AGENT)["success_rate"] == [0]
    assert "success_rate" not in values(ld_events, MODEL)
