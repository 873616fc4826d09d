"""Streams above the providers' SDKs: LangChain's, LangGraph's, and answers among texts."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest

from ldinstrument.ai.chunks import StreamReader


@pytest.mark.parametrize("mode", ["messages", "values", "updates"])
def test_graph_modes(models: Any, sdks: ModuleType, mode: str) -> None:
    """However a graph streams, a turn with a tool is two calls of the model, each once."""
    models.behave(tool_call=True)
    reader = StreamReader()
    for chunk in sdks.langgraph_stream(models.url, mode):
        reader.add(chunk)
    found = reader.generation(complete=True)
    assert found is not None
    assert found.usage is not None
    assert (found.usage.input, found.usage.output, found.tool_calls) == (40, 12, 1)


def test_events_of_langchain(models: Any, sdks: ModuleType) -> None:
    """`astream_events()` tells of chains and models: the models' chunks are read."""

    async def events() -> list[Any]:
        client = sdks.async_openai_client(models.url)
        model = sdks.chat_openai(models.url, async_client=client.chat.completions)
        found = [event async for event in model.astream_events("Will it rain?", version="v2")]
        await client.close()
        return found

    reader = StreamReader()
    assert sum(reader.add(event) for event in asyncio.run(events())) == 4
    known = reader.generation(complete=True)
    assert known is not None
    assert known.usage is not None
    assert (known.usage.total, known.finish_reason) == (26, "stop")


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize(
    "mode", [["messages", "updates"], ["values", "messages"], ["values", "updates"]]
)
def test_several_modes_of_a_graph(
    models: Any, sdks: ModuleType, mode: list[str], subgraphs: bool
) -> None:
    """Each part says its mode: what several of them tell counts once."""
    models.behave(tool_call=True)
    asked = {"messages": [("user", "Will it rain?")]}
    stream = sdks.graph(models.url).stream(asked, stream_mode=mode, subgraphs=subgraphs)
    reader = StreamReader()
    written = sum(reader.add(part) for part in stream)
    known = reader.generation(complete=True)
    assert known is not None
    assert known.usage is not None
    assert (known.usage.total, known.finish_reason) == (52, "stop")
    assert written == (5 if "messages" in mode else 0)


def test_answers_among_the_items_of_a_generator() -> None:
    """Figures told with each item are those so far; two answers are two; half a bill is none."""
    reader = StreamReader()
    for item in (
        {"step": 1, "input": 7},
        {"text": "Tents", "usage": {"input_tokens": 20, "output_tokens": 1}},
        {"text": " dry", "usage": {"input_tokens": 20, "output_tokens": 6}},
        {"id": "another", "usage": {"input_tokens": 3, "output_tokens": 1}},
        {"step": 2, "output": 9},
    ):
        reader.add(item)
    known = reader.generation(complete=True)
    assert known is not None
    assert known.usage is not None
    assert (known.usage.input, known.usage.output) == (23, 7)
