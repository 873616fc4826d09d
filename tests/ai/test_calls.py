"""A call of a model around the real SDKs: each way it can go, and what is recorded of it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import time
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from recorded_calls import data, values

import ldinstrument as ld
from ldinstrument.ai.calls import current_call
from ldinstrument.ai.cost import Price, PriceTable
from ldinstrument.testing import RecordingClient

NEEDS_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="pydantic-ai needs Python 3.11")
PLAIN = [
    "openai chat", "openai responses", "anthropic", "google", "bedrock", "langchain", "langgraph", "litellm",
    "openai agents", pytest.param("pydantic-ai", marks=NEEDS_311),
]  # fmt: skip
STREAMS = [
    "openai chat",
    "openai responses",
    "anthropic",
    "google",
    "bedrock",
    "langchain",
    "litellm",
]
RETRYING = ["openai chat", "openai responses", "anthropic", "bedrock"]
PRICES = PriceTable({"": Price(input=1, output=2, cached="0.5", cache_written=1)}, version="mine")


# -- normal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_plain(models: Any, sdks: ModuleType, ld_events: RecordingClient, name: str) -> None:
    """A plain call: what the task measures, tokens, cost, tool calls; the result passes untouched."""
    client = sdks.CLIENTS[name]
    seen: list[Any] = []

    @ld.track_ai("k", model="a-model", cost=PRICES)
    def ask() -> Any:
        seen.append(client.plain(models.url))
        return seen[0]

    with ld.session("u-1"):
        assert ask() is seen[0]
    found = values(ld_events)
    assert (found["success_rate"], found["unfinished"]) == ([1], [0])
    tokens = {
        suffix: found[f"tokens.{suffix}"] for suffix in ("input", "output", "total", "cached")
    }
    assert tokens == {"input": [20], "output": [6], "total": [26], "cached": [8]}
    assert found["cost"] == [pytest.approx(28e-6)]
    assert found["tool_calls"] == [0]
    assert "time_to_first_token" not in found
    told = data(ld_events)
    assert told["model"] == (client.model or "a-model")
    assert (told["usage"], told["priceVersion"]) == ("known", "mine")
    assert told.get("provider") == client.provider
    assert told.get("finishReason") == client.finish_reason
    assert ld_events.only("session.interactions").value == 1


@pytest.mark.parametrize("name", STREAMS)
def test_stream(models: Any, sdks: ModuleType, ld_events: RecordingClient, name: str) -> None:
    """A stream: the time to its first word and to its end, as its consumer sees them; then as plain."""
    models.behave(pause=0.02)
    client = sdks.CLIENTS[name]
    list(client.stream(models.url))  # what an SDK loads first is not part of it

    @ld.track_ai("k", model="a-model")
    def ask() -> Any:
        return client.stream(models.url)

    with ld.session("u-1"):
        started = time.perf_counter()
        stream = ask()
        seen = [(time.perf_counter() - started) * 1000]
        for _ in stream:
            seen.append((time.perf_counter() - started) * 1000)
        whole = (time.perf_counter() - started) * 1000
    found = values(ld_events)
    assert (found["success_rate"], found["unfinished"]) == ([1], [0])
    assert (found["tokens.input"], found["tokens.output"]) == ([20], [6])
    assert 60 < found["duration"][0] <= whole
    # One of the items, and not the last one, was the first word; the call began before `seen[0]`.
    (first,) = found["time_to_first_token"]
    between = itertools.pairwise(seen[:-1])
    assert any(before - seen[0] <= first <= after for before, after in between)
    assert first < found["duration"][0]
    assert data(ld_events)["usage"] == "known"
    assert data(ld_events).get("finishReason") == client.finish_reason


def test_nothing_is_known(ld_events: RecordingClient) -> None:
    """A function that returns no answer of a model feeds what its task does, and no token is 0."""

    @ld.track_ai("k")
    def ask() -> str:
        return "forty-two"

    with ld.session("u-1"):
        assert ask() == "forty-two"
    assert set(values(ld_events)) == {"success_rate", "duration", "unfinished"}


@pytest.mark.parametrize("kind", [mock.MagicMock, mock.Mock, mock.AsyncMock])
def test_mocks(ld_events: RecordingClient, kind: Any) -> None:
    """A mocked client never becomes a token."""
    answer = kind()
    with ld.session("u-1"):
        assert ld.track_ai("k")(lambda: answer)() is answer
    assert not [suffix for suffix in values(ld_events) if suffix.startswith("tokens")]


# -- aborted ---------------------------------------------------------------------------------------

EARLY = {
    "anthropic": {"tokens.input": [20], "tokens.cached": [8]},
    "google": {"tokens.input": [20], "tokens.cached": [8]},
}


CHUNKS_OF_TWO_WORDS = {
    "openai chat": 3, "openai responses": 5, "anthropic": 4, "google": 2, "bedrock": 3, "langchain": 3, "litellm": 3,
}  # fmt: skip


@pytest.mark.parametrize("way", ["close", "drop"])
@pytest.mark.parametrize("name", STREAMS)
def test_aborted(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, name: str, way: str
) -> None:
    """Closed or dropped after two words: unfinished, in no rate, and partial with what was told."""
    if (name, way) == ("litellm", "drop"):
        pytest.skip("LiteLLM keeps its streams")
    with ld.session("u-1") as session:
        stream = ld.track_ai("k", model="a-model")(sdks.CLIENTS[name].stream)(models.url)
        iterator = iter(stream)
        for _ in range(CHUNKS_OF_TWO_WORDS[name]):
            next(iterator)
        if way == "close":
            stream.close()
        del stream, iterator
        gc.collect()
        assert session.summary().abandoned == 1
    found = values(ld_events)
    assert found["unfinished"] == [1]
    assert not found.keys() & {"success_rate", "duration"}
    tokens = {suffix: value for suffix, value in found.items() if suffix.startswith("tokens")}
    assert tokens == EARLY.get(name, {})
    assert len(found["time_to_first_token"]) == 1
    if tokens:
        assert data(ld_events, "tokens.input")["usage"] == "partial"


def test_closed_when_the_model_is_done(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """A consumer that leaves at the finish reason breaks nothing off, whether it closes or forgets."""
    for close in (True, False):
        with ld.session("u-1"):
            stream = ld.track_ai("k")(sdks.openai_chat_stream)(models.url)
            for chunk in stream:
                if chunk.choices[0].finish_reason:
                    break
            if close:
                stream.close()
            del stream
            gc.collect()
    found = values(ld_events)
    assert (found["success_rate"], found["unfinished"]) == ([1, 1], [0, 0])
    assert "tokens.output" not in found


# -- failed, retried -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_failed(models: Any, sdks: ModuleType, ld_events: RecordingClient, name: str) -> None:
    """Refused to the end: a failure with its own exception, and the attempts where they can be seen."""
    models.behave(refuse=99)
    with ld.session("u-1"), pytest.raises(Exception) as refused:
        ld.track_ai("k")(sdks.CLIENTS[name].plain)(models.url)
    found = values(ld_events)
    assert not refused.type.__module__.startswith("ldinstrument")
    assert (found["success_rate"], found["unfinished"]) == ([0], [0])
    assert not [suffix for suffix in found if suffix.startswith("tokens")]
    if name in RETRYING or "attempts" in found:
        assert found["attempts"] == [len(models.requests)]


@pytest.mark.parametrize("name", ["openai chat", "openai responses", "anthropic", "bedrock"])
def test_retried_stream(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, name: str
) -> None:
    """Refused once, then answered: one success that took two requests."""
    models.behave(refuse=1)
    if name == "bedrock":
        call: Any = lambda url: sdks.bedrock_client(url).converse_stream(**sdks.CONVERSATION)  # noqa: E731
    else:
        call = sdks.CLIENTS[name].stream
    with ld.session("u-1"):
        result = ld.track_ai("k")(call)(models.url)
        list(result["stream"] if name == "bedrock" else result)
    found = values(ld_events)
    assert (found["success_rate"], found["attempts"]) == ([1], [2])
    assert ld_events.only("session.interactions").value == 1


def test_retried_plain(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """A plain result does not show its retries: they are left out, not 1; Bedrock's and raw ones do."""
    models.behave(refuse=1)
    with ld.session("u-1"):
        ld.track_ai("k")(sdks.openai_chat)(models.url)
        models.behave(refuse=1)
        ld.track_ai("raw")(
            lambda: sdks.openai_client(models.url).chat.completions.with_raw_response.create(
                model="m", messages=sdks.ASK
            )
        )()
        models.behave(refuse=1)
        ld.track_ai("aws")(sdks.bedrock_converse)(models.url)
    assert "attempts" not in values(ld_events)
    assert values(ld_events, "raw")["attempts"] == [2]
    assert values(ld_events, "aws")["attempts"] == [2]


@pytest.mark.parametrize(
    "name",
    ["openai chat", "openai responses", "anthropic", "google", "bedrock", "langchain", "litellm"],
)
def test_cut_in_the_middle(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, name: str
) -> None:
    """A connection that breaks is a failure of the call; what was told before it is partial."""
    models.behave(cut_after=3 if name == "google" else 5)
    with ld.session("u-1"), pytest.raises(Exception):
        list(ld.track_ai("k", model="a-model")(sdks.CLIENTS[name].stream)(models.url))
    found = values(ld_events)
    assert (found["success_rate"], found["unfinished"]) == ([0], [0])
    assert len(found["time_to_first_token"]) == 1
    assert found.get("attempts", [1]) == [1]
    assert "tokens.output" not in found
    if name in EARLY:
        assert found["tokens.input"] == [20]
        assert data(ld_events)["usage"] == "partial"


def test_tokens_of_a_failed_call(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """Tokens that were used before something else failed count: they were paid for."""

    @ld.track_ai("k", cost=PRICES)
    def ask() -> str:
        answer = sdks.openai_chat(models.url)
        call = current_call()
        assert call is not None
        call.read(answer)
        raise ValueError("no JSON in it")

    with ld.session("u-1"), pytest.raises(ValueError):
        ask()
    found = values(ld_events)
    assert (found["success_rate"], found["tokens.total"]) == ([0], [26])
    assert len(found["cost"]) == 1


@pytest.mark.parametrize("streams", [False, True])
def test_timed_out(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, streams: bool
) -> None:
    """Given up on by `wait_for`: cancelled, unfinished, in neither rate nor duration."""
    models.behave(pause=5.0)

    async def give_up() -> None:
        async with sdks.async_openai_client(models.url) as client:

            @ld.track_ai("k")
            async def ask() -> Any:
                return await client.chat.completions.create(
                    model="m", messages=sdks.ASK, stream=streams
                )

            async def use() -> None:
                result = await ask()
                if streams:
                    async for _ in result:
                        pass

            async with ld.session("u-1") as session:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(use(), 0.3)
                assert session.summary().cancelled == 1

    asyncio.run(give_up())
    found = values(ld_events)
    assert found["unfinished"] == [1]
    assert not found.keys() & {"success_rate", "duration"}


# -- what the function tells by itself -------------------------------------------------------------


def test_generator_that_follows(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """A generator of texts follows the SDK's stream inside: its tokens, the consumer's clock."""

    @ld.track_ai("k")
    def answer() -> Iterator[str]:
        call = current_call()
        assert call is not None
        for chunk in call.follow(sdks.openai_chat_stream(models.url)):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    with ld.session("u-1"):
        assert "".join(answer()) == "Tents keep you dry."
        broken = answer()
        next(broken)
        broken.close()
    found = values(ld_events)
    assert (found["success_rate"], found["unfinished"]) == ([1], [0, 1])
    assert (found["tokens.input"], found["tokens.output"]) == ([20], [6])
    assert len(found["time_to_first_token"]) == 2


def test_time_per_chunk(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """The consumer's time from one text to the next, on average, sync and async."""

    @ld.track_ai("sync")
    def answer() -> Iterator[str]:
        time.sleep(0.04)
        for word in ("Tents", "keep", "you", "dry"):
            time.sleep(0.02)
            yield word

    @ld.track_ai("async")
    async def async_answer() -> AsyncIterator[str]:
        await asyncio.sleep(0.04)
        for word in ("Tents", "keep", "you", "dry"):
            await asyncio.sleep(0.02)
            yield word

    @ld.track_ai("one")
    def one() -> Iterator[str]:
        yield "Tents"

    async def main() -> None:
        async for _ in async_answer():
            pass

    with ld.session("u-1"):
        list(answer())
        asyncio.run(main())
        list(one())
        list(ld.track_ai("sdk")(sdks.openai_chat_stream)(models.url))
    for key in ("sync", "async"):
        (mean,) = ld_events.values(f"{key}.time_per_chunk")
        (whole,) = ld_events.values(f"{key}.duration")
        (first,) = ld_events.values(f"{key}.time_to_first_token")
        assert mean is not None
        assert whole is not None
        assert first is not None
        assert mean >= 19
        assert first + 3 * mean <= whole + 0.1
    assert ld_events.values("one.time_per_chunk") == []
    assert len(ld_events.values("sdk.time_per_chunk")) == 1


def test_async_generator_that_follows(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """An asynchronous one likewise."""

    async def main() -> str:
        async with sdks.async_openai_client(models.url) as client:

            @ld.track_ai("k")
            async def answer() -> AsyncIterator[str]:
                call = current_call()
                assert call is not None
                stream = await client.chat.completions.create(
                    model="m", messages=sdks.ASK, stream=True,
                    stream_options={"include_usage": True},
                )  # fmt: skip
                async for chunk in call.follow(stream):
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content

            async with ld.session("u-1"):
                return "".join([word async for word in answer()])

    assert asyncio.run(main()) == "Tents keep you dry."
    assert values(ld_events)["tokens.output"] == [6]


@pytest.mark.parametrize("name", ["google", "langchain"])
def test_follow_a_generator_of_an_sdk(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, name: str
) -> None:
    """The generators of Google and LangChain are followed, too."""
    with ld.session("u-1"), ld.track_ai("k") as call:
        list(call.follow(sdks.CLIENTS[name].stream(models.url)))
    assert values(ld_events)["tokens.output"] == [6]
    assert data(ld_events)["usage"] == "known"


@NEEDS_311
def test_streamed_run_of_pydantic_ai(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """A streamed run of pydantic-ai is read when its texts have been."""

    @ld.track_ai("k")
    async def answer() -> AsyncIterator[str]:
        async with sdks.pydantic_agent(models.url).run_stream("Will it rain?") as streamed:
            async for text in streamed.stream_text(delta=True):
                yield text
            current_call().read(streamed)  # type: ignore[union-attr]

    async def main() -> str:
        async with ld.session("u-1"):
            return "".join([word async for word in answer()])

    assert asyncio.run(main()) == "Tents keep you dry."
    assert values(ld_events)["tokens.output"] == [6]
    assert len(values(ld_events)["time_to_first_token"]) == 1


def test_streamed_run_of_agents(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """The events of a streamed run of OpenAI's agents are followed: both of its model calls."""
    import agents

    models.behave(tool_call=True)

    async def main() -> None:
        async with ld.session("u-1"), ld.track_ai("k") as call:
            run = agents.Runner.run_streamed(sdks.agents_agent(models.url), "Will it rain?")
            async for _ in call.follow(run.stream_events()):
                pass

    asyncio.run(main())
    found = values(ld_events)
    assert (found["tokens.input"], found["tokens.output"], found["tool_calls"]) == ([40], [12], [1])


def test_with_block(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """In a `with` block answers are read; the same one counts once, two add up."""
    with ld.session("u-1"), ld.track_ai("k", cost=PRICES) as call:
        first, second = sdks.openai_chat(models.url), sdks.anthropic_message(models.url)
        for answer in (first, second, first):
            call.read(answer)
        call.add_data(channel="web")
        call.attempt()
        call.attempt()
    found = values(ld_events)
    assert (found["tokens.input"], found["tokens.output"], found["attempts"]) == ([40], [12], [2])
    assert found["cost"] == [pytest.approx(56e-6)]
    assert data(ld_events)["channel"] == "web"
    assert data(ld_events)["model"] == sdks.CLAUDE


def test_dropped_stream_runs_no_code_of_the_users(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """What the garbage collector calls estimates nothing and asks for no price."""

    def never(*_: Any) -> Any:
        raise AssertionError("it ran")

    class Prices:
        cost = staticmethod(never)

    with ld.session("u-1"):
        stream = ld.track_ai("k", estimate=never, cost=Prices())(sdks.anthropic_stream)(models.url)
        for _ in range(4):
            next(stream)
        del stream
        gc.collect()
    assert values(ld_events)["tokens.input"] == [20]
    assert "tokens.output" not in values(ld_events)


# -- definition ------------------------------------------------------------------------------------


def test_suspended(ld_events: RecordingClient) -> None:
    """A graph that waits for a human goes on elsewhere: it is in no metric, nor are its tokens."""
    from langgraph.errors import GraphInterrupt

    @ld.track_ai("k")
    def ask() -> None:
        current_call().read({"input": 1, "output": 2})  # type: ignore[union-attr]
        raise GraphInterrupt

    with ld.session("u-1"), pytest.raises(GraphInterrupt):
        ask()
    assert values(ld_events) == {}


@pytest.mark.parametrize("judged", [False, True])
def test_a_response_that_failed(ld_events: RecordingClient, judged: bool) -> None:
    """OpenAI answers a response that failed instead of raising: a failure, unless `success=` says
    otherwise.
    """
    from openai.types.responses import Response

    failed = Response.construct(
        id="r-1", object="response", model="m", status="failed", output=[], usage=None
    )
    options: Any = {"success": lambda result: True} if judged else {}
    with ld.session("u-1"):
        ld.track_ai("k", **options)(lambda: failed)()
    assert ld_events.values("k.success_rate") == [int(judged)]
    assert data(ld_events)["finishReason"] == "failed"
