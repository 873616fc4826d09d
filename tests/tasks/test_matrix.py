"""What `track_task` says of each kind of callable, and of each way in which it ends, row by row."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.callables import streams as following
from ldinstrument.testing import RecordingClient

SUCCESS, FAILURE, CANCELLED, ABANDONED, NOTHING = (
    (1, 0, 0, 0),
    (0, 1, 0, 0),
    (0, 0, 1, 0),
    (0, 0, 0, 1),
    (0, 0, 0, 0),
)
PAUSE = 0.03


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else NOTHING


def milliseconds(session: ld.Session, key: str = "k") -> float:
    return session.summary().tasks[key].duration_ms


# -- sync ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"data": lambda result: {"a": 1}}], ids=["plain", "options"]
)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, SUCCESS),
        (ValueError("x"), FAILURE),
        (SystemExit(3), FAILURE),
        (SystemExit("no disk"), FAILURE),
        (SystemExit(0), SUCCESS),
        (SystemExit(None), SUCCESS),
        (KeyboardInterrupt(), CANCELLED),
        (asyncio.CancelledError(), CANCELLED),
        (StopIteration(5), FAILURE),
        (StopAsyncIteration(), FAILURE),
        (GeneratorExit(), ABANDONED),
        (MemoryError(), FAILURE),
    ],
    ids=repr,
)
def test_a_sync_call(
    error: BaseException | None, expected: tuple[int, ...], options: dict[str, Any]
) -> None:
    """Returned is a success, raised by its kind; the very exception comes out, and the next call is
    not affected.
    """

    @ld.track_task("k", **options)
    def work(x: int) -> int:
        if error is not None:
            raise error
        return x

    with ld.session("u") as s:
        if error is None:
            assert work(5) == 5
        else:
            with pytest.raises(type(error)) as caught:
                work(5)
            assert caught.value is error
        assert counts(s) == expected
        error = None
        assert work(6) == 6
        assert counts(s) == tuple(a + b for a, b in zip(expected, SUCCESS, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"data": lambda result: {"a": 1}}], ids=["plain", "options"]
)
def test_an_async_call_is_timed_to_its_end(options: dict[str, Any]) -> None:
    """30 ms of sleeping are 30 ms, not the time it takes to make a coroutine."""

    @ld.track_task("k", **options)
    async def work() -> str:
        await asyncio.sleep(PAUSE)
        return "done"

    async def main() -> None:
        with ld.session("u") as s:
            began = time.perf_counter()
            coroutine = work()
            await asyncio.sleep(PAUSE * 4)  # created is not started
            assert await coroutine == "done"
            whole = (time.perf_counter() - began) * 1000
            assert counts(s) == SUCCESS
            assert PAUSE * 1000 * 0.9 <= milliseconds(s) <= whole - PAUSE * 4000 * 0.9

    asyncio.run(main())


def test_the_wait_before_the_first_await_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coroutine that waits in a list, or a generator that nobody asks yet, has not begun."""
    seconds = iter(range(0, 10_000, 1000))
    monkeypatch.setattr("ldinstrument.tasks.wrapper.clock", lambda: float(next(seconds)))
    monkeypatch.setattr("ldinstrument.tasks.runs.clock", lambda: float(next(seconds)))

    @ld.track_task("k")
    async def work() -> None: ...

    @ld.track_task("g")
    def items() -> Generator[int, None, None]:
        yield 1

    with ld.session("u") as s:
        coroutine, generator = work(), items()
        assert next(seconds) == 0
        asyncio.run(_awaiting(coroutine))
        assert list(generator) == [1]
        assert milliseconds(s) == 1_000_000
        assert milliseconds(s, "g") == 1_000_000


async def _awaiting(thing: Awaitable[Any]) -> Any:
    return await thing


@pytest.mark.parametrize(
    "options", [{}, {"data": lambda result: {"a": 1}}], ids=["plain", "options"]
)
def test_cancelled_and_timed_out_coroutines(options: dict[str, Any]) -> None:
    """A cancelled task, and one that `wait_for` gave up on, is cancelled: neither success nor
    failure.
    """

    @ld.track_task("k", **options)
    async def work() -> None:
        await asyncio.sleep(30)

    async def main() -> None:
        with ld.session("u") as s:
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert counts(s) == CANCELLED
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(work(), 0.01)
            assert counts(s) == (0, 0, 2, 0)

    asyncio.run(main())


def test_a_context_variable_set_in_a_coroutine_reaches_its_caller() -> None:
    """As without the decorator: `await` runs in the caller's context."""

    @ld.track_task("k")
    async def plain() -> None:
        VALUE.set("plain")

    @ld.track_task("o", data=lambda result: {})
    async def options() -> None:
        VALUE.set("options")

    @ld.session(context="u", name="visit")
    async def visit() -> None:
        VALUE.set("visit")

    async def main() -> None:
        for work, expected in ((plain, "plain"), (options, "options"), (visit, "visit")):
            await work()
            assert VALUE.get() == expected

    asyncio.run(main())


def test_a_coroutine_never_awaited_is_nothing() -> None:
    """It complains once, under its own name, as without us."""

    @ld.track_task("k")
    async def work() -> None: ...

    with ld.session("u") as s:
        with pytest.warns(RuntimeWarning, match=r"work' was never awaited"):
            work()
            gc.collect()
        assert counts(s) == NOTHING


# -- generators ------------------------------------------------------------------------------------


def tracked(way: str, items: Callable[..., Any]) -> Callable[..., Any]:
    """The same generator function under each of the wrappers that it may get."""
    if way == "stepping":
        return ld.track_task("k", metrics=("success_rate", "duration", "time_to_first_item"))(items)
    if way == "options":
        return ld.track_task("k", data=lambda result: {})(items)
    shapes = {"function": items, "partial": functools.partial(items), "returned": _returning(items)}
    made: Callable[..., Any] = ld.track_task("k")(shapes[way])
    return made


def _returning(items: Callable[..., Any]) -> Callable[..., Any]:
    def plain(*args: Any, **kwargs: Any) -> Any:
        return items(*args, **kwargs)

    return plain


WAYS = ["function", "stepping", "options", "partial", "returned"]


@pytest.mark.parametrize("way", WAYS)
def test_a_generator_is_timed_to_its_end(way: str) -> None:
    """90 ms of generating are 90 ms, and its return value is kept."""

    def items() -> Generator[int, None, str]:
        for number in range(3):
            time.sleep(PAUSE)
            yield number
        return "end"

    def consume() -> Generator[Any, Any, Any]:
        got = yield from tracked(way, items)()
        assert got == "end"

    with ld.session("u") as s:
        assert list(consume()) == [0, 1, 2]
        assert counts(s) == SUCCESS
        assert milliseconds(s) >= PAUSE * 3000 * 0.9


@pytest.mark.parametrize("way", WAYS)
def test_generators_end_as_they_end(way: str) -> None:
    """Raising midway fails, breaking and dropping abandon, never iterating is nothing."""

    def items(fail: bool = False) -> Generator[int, None, None]:
        yield 1
        if fail:
            raise KeyError("midway")
        yield 2

    wrapped = tracked(way, items)
    with ld.session("u") as s:
        with pytest.raises(KeyError, match="midway"):
            list(wrapped(fail=True))
        assert counts(s) == (0, 1, 0, 0)
        for _ in wrapped():
            break
        gc.collect()
        assert counts(s) == (0, 1, 0, 1)
        closing = wrapped()
        next(closing)
        closing.close()
        assert counts(s) == (0, 1, 0, 2)
        wrapped()
        gc.collect()
        wrapped().close()
        assert counts(s) == (0, 1, 0, 2)
        assert list(wrapped()) == [1, 2]
        assert counts(s) == (1, 1, 0, 2)


@pytest.mark.parametrize("way", WAYS)
def test_send_and_throw_reach_the_body(way: str) -> None:
    """The whole generator protocol, in both directions, with a real generator object of the right
    name.
    """

    def echo() -> Generator[Any, Any, list[Any]]:
        heard: list[Any] = []
        while len(heard) < 3:
            try:
                heard.append((yield len(heard)))
            except ValueError as error:
                heard.append(error)
        return heard

    boom = ValueError("boom")
    with ld.session("u") as s:
        generator = tracked(way, echo)()
        assert inspect.isgenerator(generator)
        assert generator.__name__ == "echo"
        assert generator.__qualname__ == echo.__qualname__
        assert next(generator) == 0
        assert generator.send("a") == 1
        assert generator.throw(boom) == 2
        assert inspect.getgeneratorstate(generator) == inspect.GEN_SUSPENDED
        with pytest.raises(StopIteration) as end:
            generator.send(None)
        assert end.value.value == ["a", boom, None]
        assert counts(s) == SUCCESS
        assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED


@pytest.mark.parametrize("way", WAYS)
def test_a_body_may_handle_its_closing(way: str) -> None:
    """Cleaning up runs at the close; refusing to close is Python's own complaint; an error in it is
    a failure.
    """
    seen: list[str] = []

    def items(how: str) -> Generator[int, None, None]:
        try:
            yield 1
        except GeneratorExit:
            if how == "swallow":
                return
            if how == "refuse":
                yield 2
            if how == "raise":
                raise OSError("closing failed") from None
            raise
        finally:
            seen.append(how)

    wrapped = tracked(way, items)
    with ld.session("u") as s:
        for how, expected in (("swallow", (0, 0, 0, 1)), ("pass", (0, 0, 0, 2))):
            generator = wrapped(how)
            next(generator)
            generator.close()
            assert counts(s) == expected
        generator = wrapped("refuse")
        next(generator)
        with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
            generator.close()
        assert counts(s) == (0, 1, 0, 2)
        generator = wrapped("raise")
        next(generator)
        with pytest.raises(OSError, match="closing failed"):
            generator.close()
        assert counts(s) == (0, 2, 0, 2)
    gc.collect()
    assert seen[:2] == ["swallow", "pass"]


@pytest.mark.parametrize("way", WAYS)
def test_stop_iteration_inside_a_generator(way: str) -> None:
    """Python turns it into a RuntimeError; so it comes out, and is a failure."""

    def items() -> Generator[int, None, None]:
        yield 1
        raise StopIteration(7)

    with ld.session("u") as s:
        with pytest.raises(RuntimeError, match="generator raised StopIteration"):
            list(tracked(way, items)())
        assert counts(s) == FAILURE


@pytest.mark.parametrize("way", WAYS)
def test_a_generator_finished_in_another_thread(way: str) -> None:
    """It is counted in the session it began in, without a word about contexts."""

    def items() -> Generator[int, None, None]:
        yield 1
        yield 2

    with ld.session("u") as s:
        generator = tracked(way, items)()
        next(generator)
        rest: list[int] = []
        thread = threading.Thread(target=lambda: rest.extend(generator))
        thread.start()
        thread.join()
        assert rest == [2]
        assert counts(s) == SUCCESS


VALUE: ContextVar[str] = ContextVar("value", default="before")


@pytest.mark.parametrize("way", WAYS)
def test_a_context_variable_set_in_a_generator_reaches_its_consumer(way: str) -> None:
    """As without the decorator: a generator runs in its consumer's context."""

    def items() -> Generator[int, None, None]:
        VALUE.set("inside")
        yield 1

    token = VALUE.set("before")
    try:
        with ld.session("u"):
            next(tracked(way, items)())
            assert VALUE.get() == "inside"
    finally:
        VALUE.reset(token)


# -- async generators ------------------------------------------------------------------------------


ASYNC_WAYS = ["function", "partial", "returned"]


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_async_generators_end_as_they_end(way: str) -> None:
    """To its end with its duration, raising midway, closed, and never iterated."""

    async def items(fail: bool = False) -> AsyncGenerator[int, None]:
        for number in range(3):
            await asyncio.sleep(PAUSE / 3)
            if fail:
                raise KeyError("midway")
            yield number

    async def main() -> None:
        wrapped = tracked(way, items)
        with ld.session("u") as s:
            assert [item async for item in wrapped()] == [0, 1, 2]
            assert counts(s) == SUCCESS
            assert milliseconds(s) >= PAUSE * 1000 * 0.9
            with pytest.raises(KeyError, match="midway"):
                [item async for item in wrapped(True)]
            assert counts(s) == (1, 1, 0, 0)
            generator = wrapped()
            await generator.__anext__()
            await generator.aclose()
            assert counts(s) == (1, 1, 0, 1)
            wrapped()
            gc.collect()
            assert counts(s) == (1, 1, 0, 1)

    asyncio.run(main())


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_asend_and_athrow_reach_the_body(way: str) -> None:
    """The whole protocol of an async generator, with a real async generator object."""

    async def echo() -> AsyncGenerator[Any, Any]:
        heard: list[Any] = []
        while len(heard) < 3:
            try:
                heard.append((yield list(heard)))
            except ValueError as error:
                heard.append(str(error))
        yield heard

    async def main() -> None:
        with ld.session("u") as s:
            generator = tracked(way, echo)()
            assert inspect.isasyncgen(generator)
            assert generator.__name__ == "echo"
            assert await generator.__anext__() == []
            assert await generator.asend("a") == ["a"]
            assert await generator.athrow(ValueError("boom")) == ["a", "boom"]
            assert await generator.asend(None) == ["a", "boom", None]
            with pytest.raises(StopAsyncIteration):
                await generator.__anext__()
            assert counts(s) == SUCCESS

    asyncio.run(main())


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_an_async_generator_whose_consumer_is_cancelled(way: str) -> None:
    """Cancelled while it waits inside, between two items, or dropped by a cancelled task: cancelled
    each time.
    """

    async def items(wait: float) -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.sleep(wait)
        yield 2

    wrapped = tracked(way, items)

    async def inside() -> None:
        async for _ in wrapped(30):
            pass

    async def between() -> None:
        async for _ in wrapped(0):
            await asyncio.sleep(30)

    async def main() -> None:
        with ld.session("u") as s:
            for number, consumer in enumerate((inside, between), start=1):
                task = asyncio.create_task(consumer())
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                del task
                gc.collect()
                await asyncio.sleep(0.01)
                assert counts(s) == (0, 0, number, 0)

    asyncio.run(main())


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="a task cannot be asked whether it is being cancelled"
)
@pytest.mark.parametrize("way", WAYS)
def test_a_generator_dropped_by_a_cancelled_task(way: str) -> None:
    """An async consumer of a sync generator, cancelled between two items: cancelled; one that
    breaks: abandoned.
    """

    def items() -> Generator[int, None, None]:
        yield 1
        yield 2

    wrapped = tracked(way, items)

    async def consumer(wait: float) -> None:
        for _ in wrapped():
            await asyncio.sleep(wait)
            break

    async def main() -> None:
        with ld.session("u") as s:
            task = asyncio.create_task(consumer(30))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert counts(s) == CANCELLED
            await consumer(0)
            assert counts(s) == (0, 0, 1, 1)

    asyncio.run(main())


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_breaking_out_without_aclose(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """The loop closes it later, in another task; nobody complains about a different context."""
    cleaned: list[str] = []

    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    wrapped = tracked(way, items)

    async def main(s: ld.Session) -> None:
        async for _ in wrapped():
            break
        gc.collect()
        for _ in range(1000):
            if cleaned:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert cleaned == ["yes"]
        assert counts(s) == ABANDONED

    with ld.session("u") as s:
        asyncio.run(main(s))
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_the_loop_shuts_down_around_an_open_async_generator(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`asyncio.run` closes what is left open: ours and the one inside it are closed once, in order,
    silently.
    """
    cleaned: list[str] = []

    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("yes")

    wrapped = tracked(way, items)
    kept: list[Any] = []

    async def main() -> None:
        for _ in range(5):
            kept.append(wrapped())
            await kept[-1].__anext__()

    with ld.session("u") as s:
        asyncio.run(main())
        assert counts(s) == (0, 0, 0, 5)
    assert cleaned == ["yes"] * 5
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_each_item_in_another_task(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every `__anext__` in a task of its own, closed by yet another one."""

    async def items() -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        yield 3

    async def main() -> None:
        with ld.session("u") as s:
            generator = tracked(way, items)()
            assert await asyncio.create_task(_step(generator.__anext__)) == 1
            assert await asyncio.create_task(_step(generator.__anext__)) == 2
            await asyncio.create_task(_step(generator.aclose))
            assert counts(s) == ABANDONED

    asyncio.run(main())
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def _step(step: Callable[[], Awaitable[Any]]) -> Any:
    return await step()


# -- a plain function that returns something still running -----------------------------------------


def test_a_plain_function_returning_a_coroutine() -> None:
    """It lasts until the coroutine ends, fails when that fails, and is nothing when nobody awaits
    it.
    """

    async def slow(fail: bool = False) -> str:
        await asyncio.sleep(PAUSE)
        if fail:
            raise KeyError("later")
        return "done"

    @ld.track_task("k")
    def start(fail: bool = False) -> Coroutine[Any, Any, str]:
        return slow(fail)

    async def main() -> None:
        with ld.session("u") as s:
            coroutine = start()
            assert inspect.iscoroutine(coroutine)
            assert coroutine.__name__ == "slow"
            assert counts(s) == NOTHING
            assert await coroutine == "done"
            assert counts(s) == SUCCESS
            assert milliseconds(s) >= PAUSE * 1000 * 0.9
            with pytest.raises(KeyError, match="later"):
                await start(fail=True)
            assert counts(s) == (1, 1, 0, 0)
            with pytest.warns(RuntimeWarning, match="'.*slow' was never awaited") as complaints:
                start()
                gc.collect()
            assert len(complaints) == 1
            assert counts(s) == (1, 1, 0, 0)

    asyncio.run(main())


def test_a_plain_function_returning_a_future_or_a_task() -> None:
    """The application's own object comes back, and asyncio's complaint about a lost exception
    stays.
    """

    @ld.track_task("k")
    def start(work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        return asyncio.create_task(work())

    async def fine() -> int:
        await asyncio.sleep(0)
        return 1

    async def wrong() -> None:
        raise KeyError("lost")

    async def main() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context)
        )
        with ld.session("u") as s:
            task = start(fine)
            assert isinstance(task, asyncio.Task)
            assert await task == 1
            await asyncio.sleep(0)
            assert counts(s) == SUCCESS
            task = start(fine)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            assert counts(s) == (1, 0, 1, 0)
            task = start(wrong)
            await asyncio.sleep(0.01)
            assert counts(s) == (1, 1, 1, 0)
            assert complaints == []
            del task
            gc.collect()
            assert [complaint["message"] for complaint in complaints] == [
                "Task exception was never retrieved"
            ]

    asyncio.run(main())


class Awaited:
    """A custom awaitable with more to it."""

    colour = "blue"

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        if self.fail:
            raise KeyError("awaited")
        return "value"

    async def __aenter__(self) -> str:
        return "entered"

    async def __aexit__(self, *exc: object) -> None:
        return None


def test_an_awaitable_that_is_returned_stays_the_very_object() -> None:
    """It may be a lazy query or a client that nobody awaits: the run ends with the call."""
    made: list[Awaited] = []

    @ld.track_task("k")
    def start(fail: bool = False) -> Awaited:
        made.append(Awaited(fail))
        return made[-1]

    async def main() -> None:
        with ld.session("u") as s:
            awaitable = start()
            assert awaitable is made[0]
            assert counts(s) == SUCCESS
            assert await awaitable == "value"
            with pytest.raises(KeyError, match="awaited"):
                await start(fail=True)
            async with start() as entered:
                assert entered == "entered"
            assert counts(s) == (3, 0, 0, 0)

    asyncio.run(main())


def test_a_generator_based_coroutine_stays_awaitable() -> None:
    """`types.coroutine` functions are awaited, whether decorated or returned."""
    import types

    @types.coroutine
    def waiting() -> Generator[Any, Any, int]:
        yield from asyncio.sleep(0).__await__()
        return 3

    decorated = ld.track_task("k")(waiting)
    returned = ld.track_task("other")(_returning(waiting))

    async def main() -> None:
        with ld.session("u") as s:
            assert await decorated() == 3
            assert await returned() == 3
            assert counts(s) == counts(s, "other") == SUCCESS

    asyncio.run(main())


class Foreign(Coroutine[Any, Any, str]):
    """A coroutine that Python did not make, as Cython's and aiohttp's are: a task drives it without
    awaiting it.
    """

    def __init__(self, inner: Coroutine[Any, Any, str]) -> None:
        self.inner = inner

    def send(self, value: Any) -> Any:
        return self.inner.send(value)

    def throw(self, *error: Any) -> Any:
        return self.inner.throw(*error)

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Generator[Any, None, str]:
        return self.inner.__await__()


def test_a_coroutine_of_another_library_stays_the_very_object() -> None:
    """Its class may be tested, and its owner may close it."""

    async def work() -> str:
        await asyncio.sleep(0)
        return "value"

    foreign = Foreign(work())
    with ld.session("u") as s:
        assert ld.track_task("k")(lambda: foreign)() is foreign
        assert counts(s) == SUCCESS
    assert asyncio.run(foreign) == "value"


def test_a_coroutine_that_is_under_way_already() -> None:
    """It is no fresh one, but a value in the hands of whoever drives it, and stays that very
    object.
    """

    async def work() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "value"

    @ld.track_task("k")
    def under_way(coroutine: Coroutine[Any, Any, str]) -> Coroutine[Any, Any, str]:
        return coroutine

    coroutine = work()
    coroutine.send(None)
    with ld.session("u") as s:
        assert under_way(coroutine) is coroutine
        assert counts(s) == SUCCESS
    coroutine.send(None)
    with pytest.raises(StopIteration, match="value"):
        coroutine.send(None)


def test_classes_made_at_run_time_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The types of results are remembered, for speed; not for ever, when a program makes new ones
    all the time.
    """
    monkeypatch.setattr(following, "_KNOWN_CAP", 30)
    work = ld.track_task("k")(lambda result: result)
    known = following.plain_types
    for n in range(100):
        work(type(f"Row{n}", (), {})())
        assert len(known) <= 30 + 1 + len(following._PLAIN)
    assert work(3) == 3


# -- objects and partials --------------------------------------------------------------------------


class Caller:
    async def __call__(self, x: int) -> int:
        await asyncio.sleep(PAUSE)
        return x


class GeneratorCaller:
    def __call__(self, n: int) -> Generator[int, None, None]:
        yield from range(n)


def test_an_object_with_an_async_call() -> None:
    """Timed to the end of the await; its own attributes are there, and `__call__` is seen to be
    async.
    """
    caller = Caller()
    wrapped = ld.track_task("k")(caller)

    async def main() -> None:
        with ld.session("u") as s:
            assert await wrapped(4) == 4
            assert counts(s) == SUCCESS
            assert milliseconds(s) >= PAUSE * 1000 * 0.9

    asyncio.run(main())
    assert isinstance(wrapped, Caller)
    assert inspect.iscoroutinefunction(wrapped.__call__)
    assert inspect.signature(wrapped) == inspect.signature(caller)


def test_an_object_with_a_generator_call() -> None:
    """The call fails at once when it is wrong; the run begins with the first item."""
    wrapped = ld.track_task("k")(GeneratorCaller())
    with ld.session("u") as s:
        with pytest.raises(TypeError):
            wrapped()  # type: ignore[call-arg]
        generator = wrapped(3)
        assert counts(s) == NOTHING
        assert list(generator) == [0, 1, 2]
        assert counts(s) == SUCCESS


def test_a_partial_of_an_async_function() -> None:
    """Awaited to its end, and still a partial of a coroutine function to everyone who asks."""

    async def work(x: int, y: int) -> int:
        await asyncio.sleep(PAUSE)
        return x + y

    wrapped = ld.track_task("k")(functools.partial(work, 1))

    async def main() -> None:
        with ld.session("u") as s:
            assert await wrapped(2) == 3
            assert milliseconds(s) >= PAUSE * 1000 * 0.9
            assert counts(s) == SUCCESS

    asyncio.run(main())
    assert isinstance(wrapped, functools.partial)
    assert inspect.iscoroutinefunction(wrapped)
    assert wrapped.args == (1,)


def test_lambdas_need_a_key() -> None:
    """A lambda, a partial or an object has no name to make a key of."""
    from ldinstrument.errors import DefinitionError

    doubled = ld.track_task("k")(lambda x: x * 2)
    with ld.session("u") as s:
        assert doubled(4) == 8
        assert counts(s) == SUCCESS
    for nameless in (lambda: 0, functools.partial(int), Caller()):
        with pytest.raises(DefinitionError, match="give one: track_task"):
            ld.track_task(nameless)  # type: ignore[arg-type]


# -- what comes out to be measured -----------------------------------------------------------------


def test_the_events_of_a_run(ld_events: RecordingClient) -> None:
    """One success rate of 1 or 0 and one duration in milliseconds per finished run; nothing for the
    others.
    """

    @ld.track_interaction("k")
    def work(error: BaseException | None) -> None:
        if error:
            raise error

    with ld.session("u"):
        work(None)
        for error in (ValueError(), KeyboardInterrupt()):
            with pytest.raises(type(error)):
                work(error)

    assert ld_events.values("k.success_rate") == [1.0, 0.0]
    assert len(ld_events.of("k.duration")) == 2
    assert ld_events.only("session.success_rate").value == 50.0
    assert ld_events.only("session.interactions").data["cancelled"] == 1
