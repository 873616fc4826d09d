"""Streams of the real SDKs, read chunk by chunk: to their end, and broken off."""

from __future__ import annotations

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
