"""`within=`: 1 for a run that succeeded in time, 0 for every other one that was started."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import ldinstrument as ld
from ldinstrument.tasks.deadlines import Deadline, deadlines
from ldinstrument.testing import RecordingClient

SOON = 0.05


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for another thread."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    assert true()


def test_each_started_run_has_one_value(ld_events: RecordingClient) -> None:
    """In time, too late, failed, cancelled, left; a suspended one goes on and has none."""

    class Pause(Exception): ...

    ld.outcome_of_exception(Pause, ld.Outcome.SUSPENDED)

    @ld.track_task("k", within=30)
    def work(error: BaseException | None = None) -> None:
        if error is not None:
            raise error

    @ld.track_task("k.stream", within=30)
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    with ld.session("u"):
        work()
        for error in (KeyError(), KeyboardInterrupt(), Pause()):
            with pytest.raises(type(error)):
                work(error)
        list(stream())
        left = stream()
        next(left)
        left.close()
        stream()  # never iterated: never started
        gc.collect()
    assert ld_events.values("k.within") == [1.0, 0.0, 0.0]
    assert ld_events.values("k.stream.within") == [1.0, 0.0]
    metric = ld.catalog["k.within"]
    assert (metric.success_criteria, metric.zero_fill) == ("HigherThanBaseline", False)
    values = ld.stats().values
    assert values.recorded == values.emitted


def test_a_run_that_is_too_slow_is_0_once(ld_events: RecordingClient) -> None:
    """Decided when the time has passed; its end says nothing more of it."""

    @ld.track_task("k", within=SOON, data=lambda result: {"r": result})
    def slow() -> int:
        time.sleep(SOON * 3)
        return 1

    with ld.session("u"):
        slow()
    assert ld_events.values("k.within") == [0.0]
    assert ld_events.values("k.success_rate") == [1.0]


def test_a_hang_is_0_at_once(ld_events: RecordingClient) -> None:
    """The event leaves while the run is open still."""
    going_on = threading.Event()

    @ld.track_task("k", within=SOON)
    def hang() -> None:
        going_on.wait(60)

    def visit() -> None:
        with ld.session("u"):
            hang()

    thread = threading.Thread(target=visit)
    thread.start()
    until(lambda: ld_events.values("k.within") == [0.0])
    assert thread.is_alive()
    going_on.set()
    thread.join(20)
    assert ld_events.values("k.within") == [0.0]


def test_without_a_session_context_says_whose_it_is(ld_events: RecordingClient) -> None:
    """Also for a hang; without either there is nothing to wait for."""
    going_on = threading.Event()

    @ld.track_task("k", within=SOON, context=lambda user: user)
    def hang(user: str) -> None:
        going_on.wait(60)

    thread = threading.Thread(target=hang, args=("u-9",))
    thread.start()
    until(lambda: len(ld_events.of("k.within")) == 1)
    assert ld_events.only("k.within").context.key == "u-9"
    going_on.set()
    thread.join(20)
    ld.track_task("alone", within=SOON)(lambda: None)()
    assert dict(ld.stats().without_session) == {"alone": 1}
    assert ld.stats().values.discarded["no_session"] == 3
    assert ld_events.values("k.within") == [0.0]


def test_coroutines_that_hang(ld_events: RecordingClient) -> None:
    """Many at once, on one event loop that is not held up."""

    @ld.track_task("k", within=1.0)  # the others end at once: also on a full machine
    async def hang(forever: bool) -> None:
        if forever:
            await asyncio.Event().wait()

    async def main() -> None:
        with ld.session("u"):
            tasks = [asyncio.create_task(hang(number % 2 == 0)) for number in range(100)]
            while len(ld_events.of("k.within")) < 50:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert sorted(ld_events.values("k.within")) == [0.0] * 50 + [1.0] * 50  # type: ignore[type-var]


def test_who_takes_the_decision_has_it() -> None:
    """Of many threads, one."""
    deadline = Deadline(0.0, lambda: None)
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(deadline.decide())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won.count(True) == 1
    assert deadline.decided


def test_finished_runs_do_not_pile_up() -> None:
    """The queue of one limit holds what is open."""
    work = ld.track_task("k", within=3600)(lambda: None)
    with ld.session("u"):
        for _ in range(1000):
            work()
    assert sum(len(queue) for queue in deadlines.open_queues()) <= 2


def test_without_a_thread_runs_count_when_they_end(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """None can start at exit, or at the process's limit; the next run tries again."""
    monkeypatch.setattr(deadlines, "_thread", None)
    work = ld.track_task("k", within=30)(lambda: None)
    with ld.session("u"):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _no_thread)
            work()
        work()
    assert [event.value for event in ld_events.of("k.within")] == [1, 1]
    assert "bug" not in caplog.text
    assert deadlines._thread is not None


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_waits_for_its_own_runs(ld_events: RecordingClient) -> None:
    """The parent's thread is not there, and its open runs are the parent's."""
    work = ld.track_task("k", within=SOON)(lambda: time.sleep(SOON * 4))
    with ld.session("u"):
        work()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ld_events.clear()
            with ld.session("u"):
                work()
            status = 0 if ld_events.values("k.within") == [0.0] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
