"""Streams of the real SDKs, followed at their consumer: `callables/stream_objects.py` beside every
SDK that this folder has a server for.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from types import ModuleType
from typing import Any

import pytest

from ldinstrument.callables.stream_objects import follow, is_stream

SYNC = ["openai chat", "openai responses", "anthropic", "bedrock", "litellm"]


class Heard:
    """A follower that writes down what it hears."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.ends: list[str] = []

    def item(self, chunk: Any) -> None:
        self.items.append(chunk)

    def exhausted(self) -> None:
        self.ends.append("exhausted")

    def failed(self, error: BaseException) -> None:
        self.ends.append(f"failed {type(error).__name__}")

    def closed(self, error: BaseException | None) -> None:
        self.ends.append(f"closed {type(error).__name__}" if error else "closed")

    def dropped(self) -> None:
        self.ends.append("dropped")


def followed(stream: Any) -> Heard:
    heard = Heard()
    assert follow(stream, heard)
    return heard


@pytest.mark.parametrize("name", SYNC)
def test_to_the_end(models: Any, sdks: ModuleType, name: str) -> None:
    """Each chunk that the consumer gets is heard, then the end; the object and its type stay."""
    stream = sdks.CLIENTS[name].stream(models.url)
    kind, number = type(stream), id(stream)
    heard = followed(stream)
    got = list(stream)
    assert heard.items == got
    assert heard.ends == ["exhausted"]
    assert isinstance(stream, kind)
    assert (id(stream), type(stream).__name__, type(stream).__module__) == (
        number, kind.__name__, kind.__module__,
    )  # fmt: skip


@pytest.mark.parametrize("name", SYNC)
def test_closed(models: Any, sdks: ModuleType, name: str) -> None:
    """A consumer that closes after two chunks had enough."""
    stream = sdks.CLIENTS[name].stream(models.url)
    heard = followed(stream)
    iterator = iter(stream)
    got = [next(iterator), next(iterator)]
    stream.close()
    assert (heard.items, heard.ends) == (got, ["closed"])
    del iterator, stream
    gc.collect()
    assert heard.ends == ["closed"]


@pytest.mark.parametrize("name", [name for name in SYNC if name != "litellm"])  # it keeps its own
def test_dropped(models: Any, sdks: ModuleType, name: str) -> None:
    """A consumer that breaks and forgets the stream dropped it."""
    stream = sdks.CLIENTS[name].stream(models.url)
    heard = followed(stream)
    next(iter(stream))
    del stream
    gc.collect()
    assert (len(heard.items), heard.ends) == (1, ["dropped"])


@pytest.mark.parametrize("name", ["openai chat", "anthropic", "bedrock", "litellm"])
def test_two_loops(models: Any, sdks: ModuleType, name: str) -> None:
    """A consumer may leave one loop and go on in another: the stream has one end."""
    stream = sdks.CLIENTS[name].stream(models.url)
    heard = followed(stream)
    first = list(itertools.islice(stream, 2))
    assert heard.ends == []
    rest = list(stream)
    assert heard.items == first + rest
    assert heard.ends[-1:] == ["exhausted"]


@pytest.mark.parametrize("name", ["openai chat", "anthropic"])
def test_with_block(models: Any, sdks: ModuleType, name: str) -> None:
    """Left by an exception, a `with` block closes the stream while that exception is handled."""
    stream = sdks.CLIENTS[name].stream(models.url)
    heard = followed(stream)
    with pytest.raises(ZeroDivisionError), stream as same:
        assert same is stream
        next(stream)
        1 / 0
    assert heard.ends == ["closed ZeroDivisionError"]


@pytest.mark.parametrize("name", ["openai chat", "anthropic", "litellm"])
def test_cut(models: Any, sdks: ModuleType, name: str) -> None:
    """A connection that breaks fails the stream, with the SDK's own exception for the consumer."""
    models.behave(cut_after=3)
    stream = sdks.CLIENTS[name].stream(models.url)
    heard = followed(stream)
    with pytest.raises(Exception) as failed:
        list(stream)
    assert heard.ends == [f"failed {failed.type.__name__}"]


def test_async_stream(models: Any, sdks: ModuleType) -> None:
    """Asynchronous streams likewise: to the end, closed, and in an `async with`."""

    async def streams() -> list[Heard]:
        client, told = sdks.async_openai_client(models.url), []
        for leave in ("end", "close", "with"):
            stream = await client.chat.completions.create(model="m", messages=sdks.ASK, stream=True)
            heard = followed(stream)
            told.append(heard)
            if leave == "with":
                async with stream:
                    await stream.__anext__()
            else:
                async for _ in stream:
                    if leave == "close":
                        break
                await stream.close()
        await client.close()
        return told

    told = asyncio.run(streams())
    assert [heard.ends for heard in told] == [["exhausted"], ["closed"], ["closed"]]
    assert [len(heard.items) for heard in told] == [6, 1, 1]


def test_async_timeout(models: Any, sdks: ModuleType) -> None:
    """A consumer that is timed out cancels the stream."""
    models.behave(pause=5.0)

    async def stream_briefly() -> Heard:
        async with sdks.async_openai_client(models.url) as client:
            stream = await client.chat.completions.create(model="m", messages=sdks.ASK, stream=True)
            heard = followed(stream)

            async def consume() -> None:
                async for _ in stream:
                    pass

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(consume(), 0.3)
            await stream.close()
            return heard

    assert asyncio.run(stream_briefly()).ends == ["failed CancelledError"]


def test_helpers_of_anthropic(models: Any, sdks: ModuleType) -> None:
    """What Anthropic's helpers read is heard, too: its texts, its final message."""
    client = sdks.anthropic_client(models.url)
    for read in (
        lambda stream: list(stream.text_stream),
        lambda stream: stream.get_final_message(),
    ):
        manager = client.messages.stream(model=sdks.CLAUDE, max_tokens=9, messages=sdks.ASK)
        heard = followed(manager)
        with manager as stream:
            assert is_stream(stream)
            read(stream)
        assert heard.ends == ["exhausted"]
        assert {"message_start", "message_delta"} <= {event.type for event in heard.items}


def test_helper_of_openai(models: Any, sdks: ModuleType) -> None:
    """OpenAI's streaming helper is a manager as well."""
    manager = sdks.openai_client(models.url).chat.completions.stream(model="m", messages=sdks.ASK)
    heard = followed(manager)
    with manager as stream:
        list(stream)
    assert heard.ends == ["exhausted"]


@pytest.mark.parametrize("thing", [None, 5, "x", [1], iter([1]), (x for x in [1]), object()])
def test_left_alone(thing: Any) -> None:
    """Whatever is no stream of a known package keeps its class."""
    kind = type(thing)
    assert not follow(thing, Heard())
    assert type(thing) is kind


def test_results_are_no_streams(models: Any, sdks: ModuleType) -> None:
    """An SDK's plain results can be iterated, too, and are no streams."""
    assert not is_stream(sdks.openai_chat(models.url))
    assert not is_stream(sdks.anthropic_message(models.url))
    assert not is_stream(sdks.bedrock_converse(models.url))


def test_two_followers(models: Any, sdks: ModuleType) -> None:
    """A stream that is followed already tells the second one, too."""
    stream = sdks.openai_chat_stream(models.url)
    first, second = followed(stream), followed(stream)
    got = list(stream)
    assert first.items == second.items == got
    assert first.ends == second.ends == ["exhausted"]
