"""Chains and graphs that return something else than messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.ai import capture_langchain
from ldinstrument.testing import RecordingClient


@pytest.fixture(autouse=True)
def _captured() -> Iterator[None]:
    capture_langchain()
    capture_langchain()  # again: harmless
    yield
    capture_langchain(False)


def chain(sdks: ModuleType, url: str) -> Any:
    """A chain that returns a text."""
    from langchain_core.output_parsers import StrOutputParser

    return sdks.chat_openai(url) | StrOutputParser()


def test_chain_that_returns_a_text(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """The model call inside a chain is read, plain and streamed, once."""
    with ld.session("u-1"):
        ld.track_ai("k")(chain(sdks, models.url).invoke)("Will it rain?")
        assert "".join(ld.track_ai("s")(chain(sdks, models.url).stream)("Will it rain?"))
    assert ld_events.values("k.tokens.total") == [26]
    assert ld_events.values("s.tokens.total") == [26]
    assert ld_events.only("k.tokens.total").data["model"] == sdks.CHAT_MODEL


def test_async_chain(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """Asynchronous runs are read into the call that they run in, also side by side."""

    @ld.track_ai("k")
    async def ask(times: int) -> str:
        made = chain(sdks, models.url)
        return "".join([str(await made.ainvoke("Will it rain?")) for _ in range(times)])

    async def main() -> None:
        async with ld.session("u-1"):
            await asyncio.gather(ask(1), ask(2))

    asyncio.run(main())
    assert sorted(ld_events.values("k.tokens.total")) == [26, 52]  # type: ignore[type-var]


def test_messages_that_are_returned_too(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """A message, a stream of chunks or a graph's state that is returned as well counts once."""
    models.behave(tool_call=True)
    question = {"messages": [("user", "Will it rain?")]}
    with ld.session("u-1"):
        ld.track_ai("graph")(sdks.graph(models.url).invoke)(question)
        models.behave()
        ld.track_ai("message")(sdks.langchain_message)(models.url)
        list(ld.track_ai("stream")(sdks.langchain_stream)(models.url))
    assert ld_events.values("graph.tokens.total") == [52]
    assert ld_events.values("graph.tool_calls") == [1]
    assert ld_events.values("message.tokens.total") == [26]
    assert ld_events.values("stream.tokens.total") == [26]


def test_switched_off(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """Switched off, a chain's model calls are read no more."""
    capture_langchain(False)
    with ld.session("u-1"):
        ld.track_ai("k")(chain(sdks, models.url).invoke)("Will it rain?")
    assert ld_events.values("k.tokens.total") == []


def test_outside_of_a_call(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """Outside `track_ai` nothing is read."""
    with ld.session("u-1"):
        chain(sdks, models.url).invoke("Will it rain?")
    assert not [key for key in ld_events.keys() if "tokens" in key]  # noqa: SIM118


def test_threads_of_a_chain(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """LangChain's threads are given the context of the call, and what they read is the call's."""
    with ld.session("u-1"):
        ld.track_ai("k")(lambda: chain(sdks, models.url).batch(["a", "b", "c"]))()
    assert ld_events.values("k.tokens.total") == [78]
