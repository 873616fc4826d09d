"""Streams of the real SDKs, read chunk by chunk: to their end, and broken off."""

from __future__ import annotations

import asyncio
import itertools
from types import ModuleType
from typing import Any

import pytest

from ldinstrument.ai.chunks import StreamReader
from ldinstrument.ai.usage import Usage

STREAMS = [
    "openai chat", "openai responses", "anthropic", "google", "bedrock", "langchain", "langgraph", "litellm",
    "openai agents",
]  # fmt: skip
# What is known when a stream breaks off after its second word.
KNOWN_EARLY = {
    "anthropic": Usage(input=20, cached=8, cache_written=3, state="partial"),
    "google": Usage(input=20, cached=8, state="partial"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_whole_stream(models: Any, sdks: ModuleType, name: str) -> None:
    """A stream read to its end tells what a plain call does, and its text."""
    client, reader = sdks.CLIENTS[name], StreamReader(keep_text=True)
    written = [reader.add(chunk) for chunk in client.stream(models.url)]
    found = reader.generation(complete=True)
    assert found is not None
    assert found.usage is not None
    assert (found.usage.input, found.usage.output, found.usage.total, found.usage.cached) == (
        20,
        6,
        26,
        8,
    )
    assert found.usage.state == "known"
    if client.provider:
        assert (found.provider, found.model, found.finish_reason) == (
            client.provider,
            client.model,
            client.finish_reason,
        )
    assert (reader.finished, reader.text, sum(written)) == (True, "Tents keep you dry.", 4)


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "openai agents"])
def test_broken_off(models: Any, sdks: ModuleType, name: str) -> None:
    """Broken off after two words, a stream has told what its provider tells early; the rest is unknown."""
    reader = StreamReader(keep_text=True)
    words = 0
    for chunk in sdks.CLIENTS[name].stream(models.url):
        words += reader.add(chunk)
        if words == 2:
            break
    found = reader.generation(complete=False)
    assert found is not None
    assert found.usage == KNOWN_EARLY.get(name)
    assert found.finish_reason is None
    assert (reader.finished, reader.text) == (False, "Tents keep ")


def test_usage_not_asked_for(models: Any, sdks: ModuleType) -> None:
    """OpenAI's stream tells its tokens only when asked: else they are unknown."""
    reader = StreamReader()
    for chunk in sdks.openai_chat_stream(models.url, usage=False):
        reader.add(chunk)
    found = reader.generation(complete=True)
    assert found is not None
    assert (found.usage, found.finish_reason) == (None, "stop")


@pytest.mark.parametrize("name", ["openai chat", "anthropic", "langchain", "litellm"])
def test_tool_call(models: Any, sdks: ModuleType, name: str) -> None:
    """A streamed call of a tool counts once, and its first piece is the first thing written."""
    models.behave(tool_call=True)
    reader = StreamReader()
    written = [reader.add(chunk) for chunk in sdks.CLIENTS[name].stream(models.url)]
    found = reader.generation(complete=True)
    assert found is not None
    assert (found.tool_calls, sum(written)) == (1, 1)


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


def test_agent_events(models: Any, sdks: ModuleType) -> None:
    """The events of an agent's run tell both calls of its model."""
    models.behave(tool_call=True)
    reader = StreamReader()
    for event in sdks.agents_stream(models.url):
        reader.add(event)
    found = reader.generation(complete=True)
    assert found is not None
    assert found.usage is not None
    assert (found.usage.input, found.usage.output, found.tool_calls) == (40, 12, 1)


def test_cut_in_the_middle(models: Any, sdks: ModuleType) -> None:
    """A connection that breaks leaves what was told before."""
    models.behave(cut_after=4)
    reader = StreamReader(keep_text=True)
    with pytest.raises(Exception):
        for chunk in sdks.anthropic_stream(models.url):
            reader.add(chunk)
    found = reader.generation(complete=False)
    assert found is not None
    assert (found.usage, reader.text) == (KNOWN_EARLY["anthropic"], "Tents keep ")


def test_plain_texts() -> None:
    """A stream of texts tells none of its figures; an empty text is nothing written."""
    reader = StreamReader(keep_text=True)
    assert [reader.add(piece) for piece in ("", "Tents ", "keep")] == [False, True, True]
    assert (reader.generation(complete=True), reader.text) == (None, "Tents keep")


def test_odd_chunks() -> None:
    """Chunks of no known shape are something written, and harm nobody."""

    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    reader = StreamReader()
    assert [reader.add(chunk) for chunk in (Hostile(), {"a": 1}, 5)] == [True, True, True]
    assert reader.generation(complete=True) is None


def test_only_the_needed_memory(models: Any, sdks: ModuleType) -> None:
    """The text is not kept unless it is wanted."""
    reader = StreamReader()
    for chunk in itertools.islice(sdks.openai_chat_stream(models.url), 3):
        reader.add(chunk)
    assert reader.text is None


def test_helper_of_chat_completions(models: Any, sdks: ModuleType) -> None:
    """The events of `chat.completions.stream()` hold the chunks: each is read once."""
    models.behave(tool_call=True)
    for written, calls in ((1, 1), (4, 0)):
        reader = StreamReader()
        asked = sdks.openai_client(models.url).chat.completions.stream(
            model="m", messages=sdks.ASK, stream_options={"include_usage": True}
        )
        with asked as events:
            assert sum(reader.add(event) for event in events) == written
        known = reader.generation(complete=True)
        assert known is not None
        assert known.usage is not None
        assert (known.usage.total, known.tool_calls, known.model) == (26, calls, "m")
        models.behave()


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
