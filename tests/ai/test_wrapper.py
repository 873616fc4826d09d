"""The wrapped function: which call is the current one, whatever runs inside or beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from recorded_calls import values

import ldinstrument as ld
from ldinstrument.ai.calls import current_call
from ldinstrument.testing import RecordingClient


def test_calls_inside_calls(ld_events: RecordingClient) -> None:
    """Each call has its own tokens; the one around it is the current one again afterwards."""

    @ld.track_ai("inner")
    def inner() -> str:
        current_call().read({"input": 1, "output": 1})  # type: ignore[union-attr]
        return "x"

    @ld.track_ai("outer")
    def outer() -> str:
        inner()
        current_call().read({"input": 10, "output": 10})  # type: ignore[union-attr]
        return "x"

    with ld.session("u-1"):
        outer()
    assert current_call() is None
    assert values(ld_events, "inner")["tokens.total"] == [2]
    assert values(ld_events, "outer")["tokens.total"] == [20]


def test_parallel_tasks_of_one_call(ld_events: RecordingClient) -> None:
    """Asyncio tasks that a call starts read into it; another call beside it is not touched."""

    @ld.track_ai("k")
    async def ask(parts: int) -> None:
        async def part() -> None:
            await asyncio.sleep(0.01)
            current_call().read({"input": 1, "output": 1})  # type: ignore[union-attr]

        await asyncio.gather(*(part() for _ in range(parts)))

    async def main() -> None:
        async with ld.session("u-1"):
            await asyncio.gather(ask(2), ask(5))

    asyncio.run(main())
    assert sorted(values(ld_events)["tokens.total"]) == [4, 10]


def test_generators_side_by_side(ld_events: RecordingClient) -> None:
    """Generators that are consumed in turn each have their own call, and leave none behind."""

    @ld.track_ai("k")
    def answer(size: int) -> Iterator[str]:
        for _ in range(2):
            current_call().read({"input": size, "output": 0, "total": size})  # type: ignore[union-attr]
            yield "x"

    with ld.session("u-1"):
        for _ in zip(answer(1), answer(10), strict=True):
            assert current_call() is None
    assert sorted(values(ld_events)["tokens.input"]) == [2, 20]


@pytest.mark.parametrize("kind", ["call", "coroutine", "generator"])
def test_parameters_named_as_ours(ld_events: RecordingClient, kind: str) -> None:
    """Parameters may have the names that our compiled wrapper uses for itself."""

    @ld.track_ai("k")
    def call(_slot: int, _here: int, _make: int = 3) -> int:
        return _slot + _here + _make

    @ld.track_ai("k2")
    async def coroutine(_slot: int, _here: int, _make: int = 3) -> int:
        return _slot + _here + _make

    @ld.track_ai("k3")
    def generator(_slot: int, _item: int, _watch: int = 3) -> Iterator[int]:
        yield _slot + _item + _watch

    with ld.session("u-1"):
        if kind == "call":
            assert call(1, _here=2) == 6
        elif kind == "coroutine":
            assert asyncio.run(coroutine(1, _here=2)) == 6
        else:
            assert list(generator(1, _item=2)) == [6]


def test_a_stream_that_others_hold_is_never_replaced(ld_events: RecordingClient) -> None:
    """The caller gets the very generator that a registry keeps; one that nobody else holds is
    followed instead.
    """
    kept: list[Any] = []

    def words() -> Iterator[str]:
        yield "Tents"
        yield "dry"

    @ld.track_ai("kept")
    def shared() -> Iterator[str]:
        kept.append(words())
        return kept[0]  # type: ignore[no-any-return]

    @ld.track_ai("fresh")
    def fresh() -> Iterator[str]:
        return words()

    with ld.session("u-1"):
        assert shared() is kept[0]
        assert list(kept[0]) == ["Tents", "dry"]
        assert list(fresh()) == ["Tents", "dry"]
    assert ld_events.values("kept.time_to_first_token") == []
    assert len(ld_events.values("fresh.time_to_first_token")) == 1


def test_a_call_that_nobody_reads_is_never_made(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that returns a text feeds its task without a `Call`; one that asks gets its own."""
    made: list[Any] = []
    monkeypatch.setattr("ldinstrument.ai.wrapper.Call", lambda *given: made.append(given))

    @ld.track_ai("k")
    def ask() -> str:
        return "forty-two"

    with ld.session("u-1"):
        ask()
    assert made == []
    assert set(values(ld_events)) == {"success_rate", "duration", "unfinished"}


def test_arguments_choose_context_and_config(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Their functions get the call's own arguments; what one raises is logged once, and the call
    goes on.
    """
    seen: list[Any] = []

    def fails(*given: Any, **named: Any) -> Any:
        seen.append((given, named))
        raise ValueError

    @ld.track_ai("k", context=fails, config=fails)
    def ask(user: str, *, tone: str) -> str:
        return "x"

    for _ in range(2):
        assert ask("u-1", tone="kind") == "x"
    assert seen == [(("u-1",), {"tone": "kind"})] * 4
    assert caplog.text.count("context= of k") == caplog.text.count("config= of k") == 1
    assert not ld_events.events


def test_a_call_that_is_over_is_current_to_nobody(ld_events: RecordingClient) -> None:
    """Also not to a task that it has started and that outlives it."""

    async def main() -> Any:
        over = asyncio.Event()

        async def look() -> Any:
            assert current_call() is not None
            await over.wait()
            return current_call()

        @ld.track_ai("k")
        async def ask() -> Any:
            task = asyncio.create_task(look())
            await asyncio.sleep(0)
            return [task]

        async with ld.session("u-1"):
            (task,) = await ask()
            over.set()
            return await task

    assert asyncio.run(main()) is None
