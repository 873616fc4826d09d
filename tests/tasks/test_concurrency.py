"""Threads, tasks, executors, the garbage collector: totals are exact; nothing waits or emits where
it must not.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.sessions import emission, registry, unattached
from ldinstrument.sessions import session as sessions
from ldinstrument.sessions.current import current_session, entered, set_current
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.task_definition import TaskDefinition
from ldinstrument.testing import RecordingClient

THREADS = 8
ROUNDS = 1000


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


def adds_up() -> bool:
    values = ld.stats().values
    return values.recorded == values.emitted + values.open + sum(values.discarded.values())


@pytest.fixture(name="_switching")
def _switching_fixture() -> Any:
    """Switch threads as often as Python can: what is not atomic shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _together(*works: Callable[[], None]) -> None:
    """Run *works* at once, each in a thread, and raise what one of them raised."""
    barrier, errors = threading.Barrier(len(works)), []

    def guarded(work: Callable[[], None]) -> None:
        barrier.wait(60)
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_one_session_in_many_threads(_switching: None, ld_events: RecordingClient) -> None:
    """Eight threads, successes and failures, folding and reading at the same time: not one run more
    or less.
    """

    @ld.track_interaction("k")
    def work(number: int) -> None:
        if number % 10 == 0:
            raise KeyError

    def many() -> None:
        for number in range(ROUNDS):
            try:
                work(number)
            except KeyError:
                pass

    with ld.session("u") as s:
        carried = ld.propagate(many)
        _together(*[carried] * THREADS, *[lambda: [s.summary() for _ in range(50)] and None] * 2)
        assert counts(s) == (THREADS * ROUNDS * 9 // 10, THREADS * ROUNDS // 10, 0, 0)
        assert s.summary().interactions == THREADS * ROUNDS
    assert len(ld_events.of("k.success_rate")) == THREADS * ROUNDS
    assert ld_events.only("session.success_rate").value == 90.0
    assert adds_up()


def test_one_session_in_many_tasks_and_threads(ld_events: RecordingClient) -> None:
    """Tasks inherit it, `asyncio.to_thread` carries it, an executor gets it from `propagate`."""

    @ld.track_task("k")
    async def work() -> None:
        await asyncio.sleep(0)

    @ld.track_task("t")
    def threaded() -> None: ...

    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(
                *(work() for _ in range(300)),
                *(asyncio.to_thread(threaded) for _ in range(20)),
                *(loop.run_in_executor(pool, ld.propagate(threaded)) for _ in range(20)),
            )
            await loop.run_in_executor(pool, threaded)

    with ld.session("u") as s:
        asyncio.run(main())
        assert (counts(s), counts(s, "t")) == ((300, 0, 0, 0), (40, 0, 0, 0))
    assert ld.stats().without_session == {"t": 1}


def test_a_session_that_ends_while_threads_record(
    _switching: None, ld_events: RecordingClient
) -> None:
    """What comes in time is folded, what comes late leaves late, and together they are all of
    it.
    """

    @ld.track_task("k", metrics=("success_rate",))
    def work() -> None: ...

    for _ in range(5):
        opened = ld.session("u").__enter__()

        def many(opened: ld.Session = opened) -> None:
            with entered(opened):
                for _ in range(200):
                    work()

        set_current(None)
        _together(many, many, many, opened.end)
    read = ld.stats()
    assert len(ld_events.of("k.success_rate")) + read.without_session.get("k", 0) == 5 * 3 * 200
    assert adds_up()


def test_runs_without_a_session_in_many_threads(_switching: None) -> None:
    """Counted once each, also while several threads fold the count."""

    @ld.track_task("k")
    def work() -> None: ...

    def many() -> None:
        for _ in range(3 * ROUNDS):
            work()

    _together(*[many] * THREADS, *[lambda: [ld.stats() for _ in range(200)] and None] * 3)
    assert ld.stats().without_session == {"k": THREADS * 3 * ROUNDS}
    assert ld.stats().values.discarded == {"no_session": THREADS * 3 * ROUNDS * 2}


def test_two_threads_that_count_unattached_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the list and emptying it is one step: what two threads read is counted once."""

    class Slow(list):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            found = super().__getitem__(index)
            time.sleep(0.05)
            return found

    task = TaskDefinition("k", False, {"duration": "k.duration"})
    monkeypatch.setattr(unattached, "pending_from_finalizers", Slow([(task, Outcome.SUCCESS)] * 10))
    _together(
        unattached.count_unattached_runs,
        unattached.count_unattached_runs,
        unattached.count_unattached_runs,
    )
    assert ld.stats().without_session == {"k": 10}


def test_a_block_that_is_left_elsewhere() -> None:
    """Hooks of a framework may enter on one thread and leave on another: the run ends once, and its
    session has it.
    """
    scope = ld.track_task("k")
    with ld.session("u") as s:
        scope.__enter__()
        leaving = threading.Thread(
            target=lambda: scope.__exit__(ValueError, ValueError("there"), None)
        )
        leaving.start()
        leaving.join(60)
        scope.__exit__(None, None, None)

        assert counts(s) == (0, 1, 0, 0)


def test_a_run_without_a_session_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Once, when it happens, and not after a thousand of them; what follows is counted all the
    same.
    """

    @ld.track_task("k")
    async def work() -> None: ...

    @ld.track_task("other")
    def other() -> None: ...

    for _ in range(3):
        asyncio.run(work())
        other()
        assert ["k"] == [record.message.split("'")[1] for record in caplog.records]
    read = ld.stats()
    assert read.without_session == {"k": 3, "other": 3}
    assert {("no_session", "k"), ("no_session", "other")} <= set(read.warnings)


def test_keys_made_up_at_run_time_share_a_count_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that names a task after each of its users is counted to the last run, in bounded
    memory.
    """
    monkeypatch.setattr(unattached, "_known", {})
    monkeypatch.setattr(unattached, "MAX_KEPT", 2)
    for n in range(5):
        with ld.track_task(f"k.{n}"):
            pass
    with ld.track_task("k.0"):
        pass

    assert ld.stats().without_session == {"...": 3, "k.0": 2, "k.1": 1}
    assert len(unattached._known) == 3


def test_interleaved_tasks_keep_their_own_sessions(ld_events: RecordingClient) -> None:
    """A session decorator on each kind, many at once: everybody's runs go to their own user."""

    @ld.track_task("k")
    async def work(wait: float) -> None:
        await asyncio.sleep(wait)

    @ld.session(context=lambda user: user)
    async def visit(user: str) -> None:
        for number in range(3):
            await work(0.0005 * number)

    @ld.session(context=lambda user: user)
    async def stream(user: str) -> AsyncGenerator[int, None]:
        for number in range(3):
            await work(0.0005 * number)
            assert current_session() is not None
            yield number

    async def consume(user: str) -> None:
        async for _ in stream(user):
            assert current_session() is None
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(
            *(visit(f"v-{number}") for number in range(20)),
            *(consume(f"s-{number}") for number in range(20)),
        )

    asyncio.run(main())
    per_user = [event.context.key for event in ld_events.of("k.duration")]
    assert sorted(per_user) == sorted(
        [f"{kind}-{number}" for kind in "vs" for number in range(20)] * 3
    )


# -- propagate -------------------------------------------------------------------------------------


def test_propagate_carries_the_session_of_now() -> None:
    """Into a thread, by value; the thread's own session is restored; without one, none leaks in."""

    @ld.track_task("k")
    def work(x: int, *, y: int = 1) -> int:
        """Doc."""
        return x + y

    with ld.session("u") as s:
        carried = ld.propagate(work)
    with ld.session("v", name="other") as other:
        assert carried(1, y=3) == 4
        assert current_session() is other
        assert counts(other) == (0, 0, 0, 0)
    assert ld.stats().without_session == {
        "k": 1
    }  # `s` had ended by then, and no ended session is ever current
    nobody = ld.propagate(current_session)
    with ld.session("u") as s:
        assert nobody() is None
        assert current_session() is s
    assert carried.__doc__ == "Doc."
    assert carried.__wrapped__ is work  # type: ignore[attr-defined]


@pytest.mark.parametrize("decorated", [False, True])
def test_propagate_carries_into_every_kind(decorated: bool) -> None:
    """Coroutines and generators run in the session to their end, and their consumer keeps its own
    throughout.
    """
    import inspect

    def items() -> Generator[Any, Any, str]:
        got = yield current_session()
        yield (current_session(), got)
        return "end"

    async def coroutine() -> Any:
        await asyncio.sleep(0)
        return current_session()

    async def aitems() -> AsyncGenerator[Any, Any]:
        got = yield current_session()
        yield (current_session(), got)

    if decorated:
        items, coroutine = ld.track_task("g")(items), ld.track_task("c")(coroutine)
    with ld.session("u") as s:
        g, c, ag = ld.propagate(items), ld.propagate(coroutine), ld.propagate(aitems)

        def elsewhere() -> None:
            generator = g()
            assert inspect.isgenerator(generator)
            assert next(generator) is s
            assert current_session() is None
            assert generator.send("x") == (s, "x")
            with pytest.raises(StopIteration) as end:
                next(generator)
            assert end.value.value == "end"
            assert asyncio.run(c()) is s
            asyncio.run(consuming())
            assert current_session() is None

        async def consuming() -> None:
            generator = ag()
            assert await generator.__anext__() is s
            assert current_session() is None
            assert await generator.asend("x") == (s, "x")
            await generator.aclose()

        _together(elsewhere)
    assert inspect.isgeneratorfunction(g)
    assert inspect.iscoroutinefunction(c)
    assert inspect.isasyncgenfunction(ag)


def test_an_executor_with_propagate() -> None:
    """`submit` and `map`, and methods, partials and lambdas."""
    import functools

    class Thing:
        def method(self, x: int) -> tuple[int, Any]:
            return x, current_session()

    thing = Thing()
    with ThreadPoolExecutor(2) as pool, ld.session("u") as s:
        assert pool.submit(ld.propagate(thing.method), 1).result(60) == (1, s)
        assert list(pool.map(ld.propagate(functools.partial(thing.method)), [2, 3])) == [
            (2, s),
            (3, s),
        ]
        assert pool.submit(ld.propagate(lambda: current_session())).result(60) is s
        assert pool.submit(current_session).result(60) is None


# -- the garbage collector -------------------------------------------------------------------------


def test_a_collected_generator_takes_no_lock_and_emits_nothing(ld_events: RecordingClient) -> None:
    """It may strike inside the SDK's queue or with our own lock held: it appends, and that is
    all.
    """

    @ld.track_task("k")
    def items() -> Generator[int, None, None]:
        yield 1

    @ld.session(context="u-2", name="visit")
    def visit() -> Generator[int, None, None]:
        yield 1

    def block() -> Generator[int, None, None]:
        with ld.session("u-2", name="visit"), ld.track_task("other"):
            yield 1

    with ld.session("u") as s:
        one, two, three = items(), visit(), items()
        next(one), next(two), next(three)
    with entered(None):
        five = block()
        next(five)
    with entered(None):
        four = items()
        next(four)
    held, released = threading.Event(), threading.Event()

    def holding() -> None:
        with s._lock, registry._lock, unattached._lock, sessions.ledger.lock:
            held.set()
            released.wait(100)

    thread = threading.Thread(target=holding)
    thread.start()
    assert held.wait(60)
    before = len(ld_events)
    done: list[str] = []

    def dropping() -> None:
        nonlocal one, two, three, four, five
        del one, two, three, four, five
        gc.collect()
        done.append("dropped")

    dropper = threading.Thread(target=dropping)
    dropper.start()
    dropper.join(60)
    try:
        assert done == ["dropped"]
        assert len(ld_events) == before
    finally:
        released.set()
        thread.join(60)
    emission.settle()
    assert counts(s) == (0, 0, 0, 2)
    assert ["ended", "ended"] == [
        event.data["endReason"] for event in ld_events.of("visit.duration")
    ]
    assert ld.stats().without_session == {"k": 1}


def test_generators_left_at_exit() -> None:
    """The interpreter shuts down around open generators and coroutines of every kind, without a
    word.
    """
    program = """
import asyncio, threading
import ldinstrument as ld
from ldinstrument.testing import RecordingClient

@ld.track_task("g")
def g():
    try:
        yield 1
    finally:
        pass
@ld.track_task("ag")
async def ag():
    yield 1
@ld.session(context="u", name="visit")
def visit():
    yield 1
@ld.track_task("c")
async def c():
    await asyncio.Event().wait()

keep = []
scope = ld.session("u", client=RecordingClient())
scope.__enter__()
for make in (g, visit):
    keep.append(make()); next(keep[-1])
async def main():
    keep.append(ag()); await keep[-1].__anext__()
    keep.append(asyncio.ensure_future(c())); await asyncio.sleep(0)
asyncio.run(main())
loose = c()
try:
    loose.send(None)
except BaseException:
    pass
keep.append(loose)
threading.local().x = keep
print("end")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "PYTHONWARNINGS": "error"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (ran.returncode, ran.stdout) == (0, "end\n")
    assert ran.stderr == ""


def test_contexts_of_other_people() -> None:
    """Each step of a generator in a context of its own, closed in yet another: tasks and sessions
    do not mind.
    """

    @ld.track_task("k")
    def items() -> Generator[int, None, None]:
        yield 1
        yield 2

    @ld.session(context="u-2", name="visit")
    def visit() -> Generator[Any, None, None]:
        yield current_session()
        yield current_session()

    with ld.session("u") as s:
        for make in (items, visit):
            generator = make()
            first = contextvars.copy_context().run(next, generator)
            second = contextvars.Context().run(next, generator)
            assert (first, second) == (1, 2) if make is items else first is second
            empty = contextvars.Context()
            empty.run(generator.close)
            assert empty.run(current_session) is None
            assert current_session() is s
        assert counts(s) == (0, 0, 0, 1)
