"""The compiled wrappers: what each kind of callable reports of a run, on its shortest way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.testing import RecordingClient

WAIT = 0.03


def plain() -> int:
    time.sleep(WAIT)
    return 1


async def coroutine() -> int:
    await asyncio.sleep(WAIT)
    return 1


def generator() -> Iterator[int]:
    time.sleep(WAIT / 2)
    yield 1
    time.sleep(WAIT / 2)


async def async_generator() -> AsyncIterator[int]:
    await asyncio.sleep(WAIT / 2)
    yield 1
    await asyncio.sleep(WAIT / 2)


def failing() -> None:
    time.sleep(WAIT)
    raise ValueError


class Holder:
    def method(self) -> int:
        time.sleep(WAIT)
        return 1


async def consume(stream: AsyncIterator[int]) -> list[int]:
    return [item async for item in stream]


def caught(function: Callable[[], Any]) -> None:
    with pytest.raises(ValueError):
        function()


CALLS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "function": (plain, lambda tracked: tracked()),
    "coroutine": (coroutine, lambda tracked: asyncio.run(tracked())),
    "generator": (generator, lambda tracked: list(tracked())),
    "async generator": (async_generator, lambda tracked: asyncio.run(consume(tracked()))),
    "failing function": (failing, caught),
    "method": (Holder.method, lambda tracked: tracked(Holder())),
}


@pytest.mark.parametrize("options", [{}, {"data": lambda result: {"n": 1}}], ids=["bare", "data"])
@pytest.mark.parametrize("kind", CALLS)
def test_the_duration_is_the_time_from_the_call_to_the_end(
    ld_events: RecordingClient, kind: str, options: dict[str, Any]
) -> None:
    """Between the wait itself and the wall time around the call, in milliseconds."""
    function, call = CALLS[kind]
    tracked = ld.track_task("k", **options)(function)

    with ld.session("u-1"):
        began = time.perf_counter()
        call(tracked)
        around = time.perf_counter() - began

    (duration,) = ld_events.values("k.duration")
    assert isinstance(duration, float)
    assert 0.9 * WAIT * 1000 <= duration <= around * 1000
