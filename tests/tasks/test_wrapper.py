"""The wrapped function: what each kind of callable reports of a run, on its shortest way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.sessions.task_definition import declared_task
from ldinstrument.tasks.options import PLAIN, TaskOptions
from ldinstrument.tasks.wrapper import TaskWrapper
from ldinstrument.testing import RecordingClient


class Pages:
    """An iterator, sync and async, whose steps are tracked."""

    def __init__(self) -> None:
        self.left = 3

    def __iter__(self) -> Pages:
        return self

    @ld.track_task("pages.next")
    def __next__(self) -> int:
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return self.left

    def __aiter__(self) -> Pages:
        return self

    @ld.track_task("pages.anext", data=lambda result: {"page": result})
    async def __anext__(self) -> int:
        self.left -= 1
        if self.left < 0:
            raise StopAsyncIteration
        return self.left


def test_the_end_of_an_iteration_is_no_failure() -> None:
    """Neither of `__next__` nor of `__anext__`; out of another function it is one."""
    import asyncio

    async def drain() -> list[int]:
        return [page async for page in Pages()]

    @ld.track_task("first")
    def first(items: Any) -> Any:
        return next(items)

    with ld.session("u") as s:
        assert list(Pages()) == asyncio.run(drain()) == [2, 1, 0]
        with pytest.raises(StopIteration):
            first(iter(()))
        tasks = {key: tuple(task)[:2] for key, task in s.summary().tasks.items()}
    assert tasks == {"pages.next": (4, 0), "pages.anext": (4, 0), "first": (0, 1)}


def call() -> int:
    return 3


async def coroutine() -> int:
    return 3


def generator() -> Iterator[int]:
    yield 3


async def async_generator() -> AsyncIterator[int]:
    yield 3


def drained(made: Any) -> list[int]:
    """What a call comes to, whatever it returned."""
    if isinstance(made, int):
        return [made]
    if hasattr(made, "__next__"):
        return list(made)

    async def main() -> list[int]:
        if hasattr(made, "__anext__"):
            return [item async for item in made]
        return [await made]

    return asyncio.run(main())


KINDS = pytest.mark.parametrize("fn", [call, coroutine, generator, async_generator])


@KINDS
@pytest.mark.parametrize(
    "options", [PLAIN, TaskOptions(data=lambda result: {"n": 1})], ids=["plain", "with data"]
)
def test_every_kind_is_one_run(
    fn: Callable[..., Any], options: TaskOptions, ld_events: RecordingClient
) -> None:
    """On the shortest way and on the other one; outside a session it is counted."""
    task = declared_task("area.kind", False, ("success_rate", "duration"))
    tracked = TaskWrapper(task, options).wrap(fn, fn.__name__)
    with ld.session("u-1"):
        assert drained(tracked()) == [3]
    drained(tracked())
    event = ld_events.only("area.kind.success_rate")
    assert (event.value, event.data) == (1.0, None if options is PLAIN else {"n": 1})
    assert ld.stats().without_session == {"area.kind": 1}


@pytest.mark.parametrize("fn", [coroutine, generator, async_generator])
def test_a_stream_that_nobody_has_started_can_be_watched(
    fn: Callable[..., Any], ld_events: RecordingClient
) -> None:
    """A coroutine or generator that was made already."""
    task = declared_task("area.made", False, ("success_rate",))
    watch = TaskWrapper(task, PLAIN).stream(fn.__name__)
    with ld.session("u-1") as s:
        made = watch(fn())
        assert s.summary().tasks == {}
        assert drained(made) == [3]
    assert ld_events.values("area.made.success_rate") == [1.0]


def test_a_wrapper_says_what_the_user_called() -> None:
    """In the words of its messages."""
    task, seen = declared_task("area.k", False, ()), declared_task("area.seen", True, ())
    assert TaskWrapper(task, PLAIN).what == "track_task"
    assert TaskWrapper(seen, PLAIN).what == "track_interaction"


def test_a_coroutine_out_of_a_coroutine_is_a_value() -> None:
    """Whoever awaited the first one may keep it; out of a plain call it is the work itself."""
    task = declared_task("area.made", False, ("success_rate",))

    async def make() -> Any:
        return coroutine()

    async def main() -> None:
        with ld.session("u-1") as s:
            made = await TaskWrapper(task, PLAIN).wrap(make, "coroutine")()
            assert s.summary().tasks["area.made"].successes == 1
            assert await made == 3
            made = TaskWrapper(task, PLAIN).wrap(lambda: coroutine(), "call")()
            assert s.summary().tasks["area.made"].successes == 1
            assert await made == 3
            assert s.summary().tasks["area.made"].successes == 2

    asyncio.run(main())
