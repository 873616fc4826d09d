"""Streams of the providers' SDKs: tool calls, what was not asked for, helpers, agents."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from ldinstrument.ai.chunks import StreamReader


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
