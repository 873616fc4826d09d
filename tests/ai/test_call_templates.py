"""Generators whose calls are made late: what they yield is counted where nobody reads it, and read
where it may be a model's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.ai import current_call
from ldinstrument.ai.calls import Call
from ldinstrument.testing import RecordingClient

USAGE = {"usage": {"input_tokens": 20, "output_tokens": 6}}
PAUSE = 0.02


def values(events: RecordingClient) -> dict[str, list[Any]]:
    keys = {event.key for event in events if event.key.startswith("k.")}
    return {key.removeprefix("k."): events.values(key) for key in keys}


def texts() -> Iterator[str]:
    for word in ("", "Tents ", "keep ", "dry."):
        time.sleep(PAUSE)
        yield word


async def async_texts() -> AsyncIterator[str]:
    for word in texts():
        yield word


async def read(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


def in_a_session(stream: Any) -> list[Any]:
    async def main() -> list[Any]:
        async with ld.session("u-1"):
            return await read(stream()) if hasattr(stream(), "__anext__") else list(stream())

    return asyncio.run(main())


@pytest.mark.parametrize("words", [texts, async_texts, lambda: texts()])
def test_texts_are_counted_without_a_call(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch, words: Any
) -> None:
    """Texts alone: first token and time per chunk are the consumer's, an empty text is none."""
    assert in_a_session(ld.track_ai("k")(words)) == ["", "Tents ", "keep ", "dry."]
    found = values(ld_events)
    assert (found["success_rate"], found["unfinished"]) == ([1], [0])
    (first,), (per_chunk,) = found["time_to_first_token"], found["time_per_chunk"]
    assert 2 * PAUSE * 1000 <= first <= found["duration"][0] - 2 * PAUSE * 1000  # two texts follow
    assert PAUSE * 1000 <= per_chunk < found["duration"][0]
    assert not [suffix for suffix in found if suffix.startswith("tokens")]


@pytest.mark.parametrize("kind", ["generator", "async_generator"])
def test_no_call_is_made_for_texts(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A stream of texts that nobody asks about makes no `Call`."""
    made: list[Any] = []
    init = Call.__init__
    monkeypatch.setattr(
        Call, "__init__", lambda self, *args: made.append(self) or init(self, *args)
    )
    in_a_session(ld.track_ai("k")(texts if kind == "generator" else async_texts))
    assert (made, values(ld_events)["success_rate"]) == ([], [1])


def test_texts_and_the_usage_at_the_end(ld_events: RecordingClient) -> None:
    """A generator that yields texts, then what a provider told: both are read, times included."""

    @ld.track_ai("k")
    def answer() -> Iterator[Any]:
        yield from texts()
        yield USAGE

    with ld.session("u-1"):
        assert list(answer())[-1] is USAGE
    found = values(ld_events)
    assert (found["tokens.input"], found["tokens.output"]) == ([20], [6])
    assert found["time_to_first_token"][0] < found["duration"][0] - PAUSE * 1000
    assert len(found["time_per_chunk"]) == 1


@pytest.mark.parametrize("when", ["first", "last"])
def test_current_call_inside_a_generator(ld_events: RecordingClient, when: str) -> None:
    """What a generator reads of its answers counts, whenever it does, beside counted texts."""

    @ld.track_ai("k")
    def answer() -> Iterator[str]:
        if when == "first":
            current_call().read(USAGE)  # type: ignore[union-attr]
        yield from texts()
        if when == "last":
            current_call().read(USAGE)  # type: ignore[union-attr]

    with ld.session("u-1"):
        list(answer())
        assert current_call() is None
    found = values(ld_events)
    assert found["tokens.total"] == [26]
    assert (len(found["time_to_first_token"]), len(found["time_per_chunk"])) == (1, 1)


def test_tasks_inside_an_async_generator(ld_events: RecordingClient) -> None:
    """A task that an async generator starts reads for its call; the consumer between does not."""

    async def ask() -> None:
        current_call().read(USAGE)  # type: ignore[union-attr]

    @ld.track_ai("k")
    async def answer() -> AsyncIterator[str]:
        yield "Tents"
        await asyncio.gather(asyncio.create_task(ask()))
        yield "dry"

    async def main() -> None:
        async with ld.session("u-1"):
            async for _ in answer():
                assert current_call() is None

    asyncio.run(main())
    assert values(ld_events)["tokens.total"] == [26]


def test_broken_off_after_some_texts(ld_events: RecordingClient) -> None:
    """Closed after a text: unfinished, with the first token that was seen."""
    with ld.session("u-1"):
        stream = ld.track_ai("k", model="a-model")(texts)()
        assert [next(stream), next(stream)] == ["", "Tents "]
        stream.close()  # type: ignore[attr-defined]
    found = values(ld_events)
    assert found["unfinished"] == [1]
    assert "success_rate" not in found
    assert len(found["time_to_first_token"]) == 1
    assert ld_events.only("k.unfinished").data["model"] == "a-model"


@pytest.mark.parametrize("way", ["call", "coroutine", "generator", "block"])
def test_model_that_is_named_is_told_where_nothing_is_read(
    ld_events: RecordingClient, way: str
) -> None:
    """`model=` and `provider=` are in the data of every call's events, read or not."""
    scope = ld.track_ai("k", model="a-model", provider="mine")

    async def coroutine() -> str:
        return "x"

    async def main() -> None:
        async with ld.session("u-1"):
            if way == "call":
                scope(lambda: "x")()
            elif way == "coroutine":
                await scope(coroutine)()
            elif way == "generator":
                list(scope(texts)())
            else:
                with scope:
                    pass

    asyncio.run(main())
    for event in ld_events.of("k.duration") + ld_events.of("k.time_to_first_token"):
        assert (event.data["model"], event.data["provider"]) == ("a-model", "mine")
    assert len(ld_events.of("k.duration")) == 1
