"""Streams of SDKs that tracked functions return: followed to their end, the very object."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.testing import RecordingClient


class Stream:
    """An iterator with a response, as openai's is; `tests/ai/test_follow.py` has the real ones."""

    __module__ = "openai"

    def __init__(self, count: int = 3) -> None:
        self._iterator = iter(range(count))
        self.closed = False

    def __iter__(self) -> Iterator[int]:
        yield from self._iterator

    def __next__(self) -> int:
        return next(self._iterator)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncStream:
    """The same for `async for`."""

    __module__ = "openai"

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def __aiter__(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.01)
        if self._error is not None:
            raise self._error
        yield 2

    async def close(self) -> None: ...


class Unknown(Stream):
    """A stream of no known package."""

    __module__ = "somebody"


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


def test_a_stream_is_read_to_its_end() -> None:
    """Whoever holds it has the very object, of its own class."""
    kept: list[Any] = []

    @ld.track_task("k")
    def ask() -> Stream:
        kept.append(Stream())
        return kept[-1]  # type: ignore[no-any-return]

    with ld.session("u") as s:
        stream = ask()
        assert stream is kept[0]
        assert isinstance(stream, Stream)
        assert counts(s) == (0, 0, 0, 0)
        assert list(stream) == [0, 1, 2]
        assert counts(s) == (1, 0, 0, 0)
        assert [next(ask()), next(kept[1])] == [0, 1]
        assert counts(s) == (1, 0, 0, 0)


def test_a_stream_that_is_left() -> None:
    """Closed before the end, by name or by its block, or dropped; one nobody reads is nothing."""
    ask = ld.track_task("k")(lambda: Stream())
    with ld.session("u") as s:
        closed = ask()
        next(closed)
        closed.close()
        assert closed.closed
        with ask() as entered:
            next(entered)
        dropped = ask()
        next(dropped)
        del dropped
        gc.collect()
        assert counts(s) == (0, 0, 0, 3)
        ask().close()
        assert counts(s) == (0, 0, 0, 3)


@pytest.mark.parametrize(("error", "outcome"), [(None, (1, 0, 0, 0)), (KeyError(), (0, 1, 0, 0))])
def test_an_async_stream(error: Exception | None, outcome: tuple[int, ...]) -> None:
    """Out of a coroutine function; the duration is to the last item."""

    @ld.track_task("k")
    async def ask() -> AsyncStream:
        return AsyncStream(error)

    async def main() -> list[int]:
        got = []
        try:
            async for item in await ask():
                got.append(item)
        except KeyError:
            got.append(-1)
        return got

    with ld.session("u") as s:
        assert asyncio.run(main()) == [1, 2 if error is None else -1]
        assert counts(s) == outcome
        assert error is not None or s.summary().tasks["k"].duration_ms >= 9


def test_a_session_lasts_as_long_as_the_stream(ld_events: RecordingClient) -> None:
    """And ends with it."""
    ask = ld.session(context="u-1", name="visit")(lambda: Stream())
    stream = ask()
    next(stream)
    assert ld_events.of("visit.duration") == []
    list(stream)
    assert ld_events.only("visit.duration").context.key == "u-1"


def test_two_decorators_follow_one_stream() -> None:
    """Each of them hears the end."""
    inner = ld.track_task("inner")(lambda: Stream())
    outer = ld.track_task("outer")(lambda: inner())
    with ld.session("u") as s:
        assert list(outer()) == [0, 1, 2]
        assert counts(s, "inner") == counts(s, "outer") == (1, 0, 0, 0)


def test_an_unknown_stream_is_a_value() -> None:
    """Its class is its own business: the run ends with the call."""
    with ld.session("u") as s:
        stream = ld.track_task("k")(lambda: Unknown())()
        assert type(stream) is Unknown
        assert counts(s) == (1, 0, 0, 0)
