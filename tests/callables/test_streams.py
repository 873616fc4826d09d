"""What a call returned is followed to its end; what somebody else may hold stays as it is."""

from __future__ import annotations

import asyncio
import collections
import functools
import itertools
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest

import ldinstrument as ld

pytestmark = pytest.mark.filterwarnings("ignore:.*use this key, so their runs are one metric")
TRACKED = ld.track_task("k")
BOTH = pytest.mark.parametrize(
    "decorate", [TRACKED, ld.session(name="visit")], ids=["track_task", "session"]
)


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


def letters() -> Iterator[str]:
    yield from "abcdef"


async def aletters() -> AsyncGenerator[str, None]:
    for letter in "abcdef":
        yield letter


# -- what somebody else holds, too -----------------------------------------------------------------


@BOTH
def test_a_generator_that_the_object_keeps(decorate: Any) -> None:
    """The caller takes two items, later two more: nothing was closed in between."""

    class Tail:
        def __init__(self) -> None:
            self._lines = letters()

        @decorate
        def lines(self) -> Iterator[str]:
            return self._lines

    tail = Tail()
    assert tail.lines() is tail._lines
    assert list(itertools.islice(tail.lines(), 2)) == ["a", "b"]
    assert list(itertools.islice(tail.lines(), 2)) == ["c", "d"]


@BOTH
def test_an_async_generator_that_the_object_keeps(decorate: Any) -> None:
    """A loop that is left and a second one."""

    class Feed:
        def __init__(self) -> None:
            self._items = aletters()

        @decorate
        def items(self) -> AsyncGenerator[str, None]:
            return self._items

    async def main() -> list[str]:
        feed, found = Feed(), []
        for _ in range(2):
            async for item in feed.items():
                found.append(item)
                break
            await asyncio.sleep(0)
        await feed._items.aclose()
        return found

    assert asyncio.run(main()) == ["a", "b"]


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda thing: [thing],
    "a dictionary": lambda thing: {1: thing},
    "a queue": lambda thing: collections.deque([thing]),
    "an attribute": lambda thing: type("Holder", (), {"thing": thing})(),
    "a closure": lambda thing: lambda: thing,
}


@BOTH
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_coroutine_that_is_kept_and_awaited_later(decorate: Any, holder: str) -> None:
    """Each of them is the one object that there is."""
    kept: list[Any] = []

    @decorate
    def add(job: Any) -> Any:
        kept.append(HOLDERS[holder](job))
        return job

    @decorate
    def make(result: int) -> Any:
        made = work(result)
        kept.append(HOLDERS[holder](made))
        return made

    async def work(result: int) -> int:
        return result

    async def main() -> list[int]:
        jobs = [work(1), work(2)]
        assert [add(job) for job in jobs] == jobs
        return await asyncio.gather(*jobs, make(3))

    assert asyncio.run(main()) == [1, 2, 3]


@BOTH
def test_what_comes_out_of_a_cache(decorate: Any) -> None:
    """A cached stream belongs to the cache."""

    @decorate
    @functools.cache
    def stream() -> Iterator[str]:
        return letters()

    first = stream()
    assert stream() is first
    assert next(stream()) == "a"
    del first
    assert next(stream()) == "b"


@BOTH
def test_an_argument_that_comes_back(decorate: Any) -> None:
    """The caller may hold what it gave: the very object is returned."""
    given = letters()
    assert decorate(lambda items: items)(given) is given
    assert next(given) == "a"


@BOTH
def test_a_generator_out_of_a_coroutine_that_somebody_holds(decorate: Any) -> None:
    """The same for what an `await` gives."""
    kept = letters()

    @decorate
    async def get() -> Iterator[str]:
        return kept

    assert asyncio.run(get()) is kept


class Lazy:
    """A query: chained, counted, awaited; a type that libraries test."""

    def __await__(self) -> Generator[Any, None, str]:
        return iter(())  # type: ignore[return-value]

    def order_by(self) -> Lazy:
        return self


class Client:
    """Returns itself from `connect`, and can be awaited."""

    def __await__(self) -> Generator[Any, None, Client]:
        yield from ()
        return self

    def add_done_callback(self, callback: Any) -> None:
        raise AssertionError("not a future: nobody said so")


@BOTH
@pytest.mark.parametrize("kind", [Lazy, Client])
def test_what_merely_can_be_awaited_is_a_value(decorate: Any, kind: type) -> None:
    """Of its very type, and counted at the return."""
    made: list[Any] = []

    def start() -> Any:
        made.append(kind())
        return made[-1]

    with ld.session("u") as s:
        got = decorate(start)()
        assert got is made[0]
        assert type(got) is kind
        assert counts(s) == ((1, 0, 0, 0) if decorate is TRACKED else (0, 0, 0, 0))


# -- what only the wrapper holds -------------------------------------------------------------------


def test_a_fresh_generator_is_followed() -> None:
    """Also one of which the function has taken the first item already."""

    @ld.track_task("k")
    def peeked() -> Iterator[str]:
        made = letters()
        next(made)
        return made

    with ld.session("u") as s:
        items = peeked()
        assert counts(s) == (0, 0, 0, 0)
        assert list(items) == list("bcdef")
        assert counts(s) == (1, 0, 0, 0)
