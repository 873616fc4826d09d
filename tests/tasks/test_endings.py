"""How runs of tasks end: timeouts, groups, cancellation in odd places, and nothing left behind."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Generator
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.testing import RecordingClient

SUCCESS, FAILURE, CANCELLED = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


# -- asyncio ---------------------------------------------------------------------------------------


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio.timeout and TaskGroup are new in 3.11"
)
def test_timeouts_and_task_groups() -> None:
    """Timed out from outside: cancelled; a timeout of its own: failed; siblings of a failure:
    cancelled.
    """

    @ld.track_task("inner")
    async def inner(wait: float) -> None:
        await asyncio.sleep(wait)

    @ld.track_task("outer")
    async def outer() -> None:
        async with asyncio.timeout(0.01):
            await inner(30)

    @ld.track_task("fails")
    async def fails() -> None:
        raise KeyError

    @ld.track_task("group")
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(inner(30))
            tasks.create_task(inner(30))
            tasks.create_task(fails())

    async def main() -> None:
        with ld.session("u") as s:
            with pytest.raises(TimeoutError):
                await outer()
            assert (counts(s, "inner"), counts(s, "outer")) == (CANCELLED, FAILURE)
            with pytest.raises(builtins.ExceptionGroup):  # type: ignore[attr-defined]
                await group()
            assert counts(s, "inner") == (0, 0, 3, 0)
            assert (counts(s, "fails"), counts(s, "group")) == (FAILURE, FAILURE)

    asyncio.run(main())


def test_cancellation_met_on_the_way() -> None:
    """Swallowed it is a success, replaced it is a failure, during `finally` it is a
    cancellation.
    """

    @ld.track_task("swallows")
    async def swallows() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "tidied up"
        return "slept"

    @ld.track_task("replaces")
    async def replaces() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise OSError("while tidying up") from None

    @ld.track_task("finally")
    async def in_finally() -> None:
        try:
            return
        finally:
            await asyncio.sleep(30)

    async def main() -> None:
        with ld.session("u") as s:
            for work, kind, key, expected in (
                (swallows, None, "swallows", SUCCESS),
                (replaces, OSError, "replaces", FAILURE),
                (in_finally, asyncio.CancelledError, "finally", CANCELLED),
            ):
                task = asyncio.create_task(work())
                await asyncio.sleep(0)
                task.cancel()
                if kind is None:
                    assert await task == "tidied up"
                else:
                    with pytest.raises(kind):
                        await task
                assert counts(s, key) == expected

    asyncio.run(main())


def test_a_coroutine_dropped_while_it_waits_is_abandoned() -> None:
    """Begun, and never finished: neither success nor failure."""

    class Forever:
        def __await__(self) -> Generator[None, None, None]:
            yield

    @ld.track_task("k")
    async def work() -> None:
        await Forever()

    with ld.session("u") as s:
        coroutine = work()
        coroutine.send(None)
        del coroutine
        assert counts(s) == (0, 0, 0, 1)


# -- nothing is poisoned ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]
)
def test_an_exit_leaves_no_trace_behind(error: BaseException, ld_events: RecordingClient) -> None:
    """After an exception that most code does not catch, the next call and the next session are as
    ever.
    """

    @ld.track_task("first")
    def first() -> None:
        raise error

    @ld.track_task("second")
    def second() -> int:
        return 2

    @ld.session(context="u-1", name="visit")
    def visit() -> None:
        first()

    with pytest.raises(type(error)):
        visit()
    assert ld.current_session() is None
    with ld.session("u-2"):
        assert second() == 2
    assert {event.context.key for event in ld_events.of("second.duration")} == {"u-2"}
    reasons = {SystemExit: "error", GeneratorExit: "ended"}  # whoever closes has had enough
    assert ld_events.only("visit.interactions").data["endReason"] == reasons.get(
        type(error), "abandoned"
    )
    assert ld_events.only("visit.interactions").context.key == "u-1"
    assert ld.current_session() is None


# -- the session as a decorator --------------------------------------------------------------------


def test_a_session_around_every_kind(ld_events: RecordingClient) -> None:
    """One session per call, current inside to its end, and nobody's afterwards."""
    seen: list[Any] = []

    @ld.track_interaction("k")
    def work() -> None:
        seen.append(ld.current_session())

    @ld.session(context=lambda user: user)
    def call(user: str) -> None:
        work()

    @ld.session(context=lambda user: user)
    async def coroutine(user: str) -> None:
        await asyncio.sleep(0)
        work()

    @ld.session(context=lambda user: user)
    def items(user: str) -> Generator[int, None, None]:
        work()
        yield 1
        work()

    class Visit:
        async def __call__(self) -> None:
            await asyncio.sleep(0)
            work()

    call("u-1")
    asyncio.run(coroutine("u-2"))
    generator = items("u-3")
    assert next(generator) == 1
    assert ld.current_session() is None
    with ld.session("u-9", name="other") as other:
        assert list(generator) == []
        assert ld.current_session() is other
    asyncio.run(ld.session(context="u-4")(Visit())())
    assert [(event.context.key, event.value) for event in ld_events.of("session.interactions")] == [
        ("u-1", 1),
        ("u-2", 1),
        ("u-3", 2),
        ("u-4", 1),
    ]
    assert len({id(session) for session in seen}) == 4
    assert all(session.ended for session in seen)
