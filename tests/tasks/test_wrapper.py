"""The wrapped function: what each kind of callable reports of a run, on its shortest way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.callables import streams
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


@pytest.mark.parametrize("kind", ["call", "coroutine"])
def test_what_comes_back_may_change_its_type(kind: str) -> None:
    """The latest plain type is remembered: a stream after it is followed, to its end, all the same,
    and so is the next one.
    """
    task = declared_task("area.changing", False, ("success_rate",))

    def give(make: Callable[[], Any]) -> Any:
        return make()

    async def give_later(make: Callable[[], Any]) -> Any:
        return make()

    wrapped = TaskWrapper(task, PLAIN).wrap(give if kind == "call" else give_later, kind)

    def called(make: Callable[[], Any]) -> Any:
        return wrapped(make) if kind == "call" else asyncio.run(wrapped(make))

    with ld.session("u-1") as s:

        def successes() -> int:
            return s.summary().tasks["area.changing"].successes

        for result in (3, 4, None, "x", None):
            assert called(lambda result=result: result) == result
        assert successes() == 5
        for expected in (6, 7):
            stream = called(lambda: iter_of(2))
            assert successes() == expected - 1
            assert list(stream) == [0, 1]
            assert successes() == expected
        assert called(lambda: 5) == 5
        assert successes() == 8


def iter_of(count: int) -> Iterator[int]:
    yield from range(count)


def test_a_tuple_before_flask_hides_no_later_one() -> None:
    """A function that returned tuples before Flask was there is looked into once it is."""
    flask = pytest.importorskip("flask")
    task = declared_task("area.view", False, ("success_rate",))
    known = streams.plain_types
    before, followers = set(known), dict(streams._followers)
    try:
        known.add(tuple)
        view = TaskWrapper(task, PLAIN).wrap(lambda make: (make(), 200), "call")
        known.add(tuple)
        with ld.session("u-1") as s, flask.Flask(__name__).test_request_context():
            assert view(str) == view(str) == ("", 200)
            streams.notice_frameworks()
            body, _ = view(lambda: iter_of(2))
            assert s.summary().tasks["area.view"].successes == 2
            assert list(body) == [0, 1]
            assert s.summary().tasks["area.view"].successes == 3
    finally:
        known.clear()
        known.update(before)
        streams._followers.clear()
        streams._followers.update(followers)


def test_an_observed_session_and_one_that_ended_take_no_run_unasked() -> None:
    """What a run appends to is there as long as the session is open and nobody observes it."""

    class Observer:
        def begin_run(self, session: Any, key: str) -> Any: ...

        def ended(self, session: Any, reason: str) -> None: ...

    with ld.session("u-1") as s:
        assert s.open_entries is s.entries
        s.observe(Observer())  # type: ignore[arg-type]
        assert s.open_entries is None
    with ld.session("u-2") as s:
        pass
    assert s.open_entries is None
