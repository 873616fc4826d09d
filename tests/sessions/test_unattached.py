"""Runs that no session received: counted exactly, and said once."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Generator

import pytest
from session_values import adds_up

import ldinstrument as ld
from ldinstrument.sessions import unattached
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.registry import stats
from ldinstrument.sessions.task_definition import declared_task
from ldinstrument.sessions.unattached import (
    BATCH,
    count_unattached,
    count_unattached_runs,
    pending_from_finalizers,
    unattached_runs_by,
    unattached_runs_of,
)


def test_runs_without_a_session_are_counted_exactly(caplog: pytest.LogCaptureFixture) -> None:
    """Every kind, finished or not; said once per task; a cancelled or abandoned run is worth no
    value.
    """
    failing = [False]

    @ld.track_task("f")
    def f() -> None:
        if failing[0]:
            raise KeyError

    @ld.track_task("a")
    async def a() -> None: ...

    @ld.track_task("g")
    def g() -> Generator[int, None, None]:
        yield 1
        yield 2

    @ld.track_task("ag", data=lambda result: {})
    async def ag() -> AsyncGenerator[int, None]:
        yield 1

    @ld.track_task("c")
    def c() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        for _ in range(3):
            await a()
            assert [item async for item in ag()] == [1]

    for _ in range(2500):
        f()
    failing[0] = True
    with pytest.raises(KeyError):
        f()
    asyncio.run(main())
    list(g())
    next(g())
    gc.collect()
    g()
    with pytest.raises(KeyboardInterrupt):
        c()
    with ld.track_task("w"):
        pass
    read = ld.stats()
    assert read.without_session == {"f": 2501, "a": 3, "ag": 3, "g": 2, "c": 1, "w": 1}
    assert read.values.discarded == {"no_session": 2 * (2501 + 3 + 3 + 1 + 1)}
    assert (
        len(
            [
                record
                for record in caplog.records
                if "'f' ran without a session" in record.getMessage()
            ]
        )
        == 1
    )
    assert adds_up()


def test_a_fork_does_not_count_the_parents_strays() -> None:
    """What the parent has not folded yet is the parent's to count."""

    @ld.track_task("k")
    def work() -> None: ...

    for _ in range(3):
        work()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        work()
        os.write(writer, str(ld.stats().without_session.get("k", 0)).encode())
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 10) == b"1"
    os.waitpid(child, 0)
    os.close(reader)
    assert ld.stats().without_session == {"k": 3}


COUNTED_APART = """
import os, sys
import ldinstrument as ld

@ld.track_task("a.task")
def run(): pass

run(); run(); run()
assert not [name for name in sys.modules if name == "ldinstrument.sessions.session"]
child = os.fork()
if not child:
    run(); run()
    os._exit(ld.stats().without_session["a.task"])
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), ld.stats().without_session["a.task"])
"""


def test_a_fork_without_sessions_counts_apart() -> None:
    """Also where nothing but decorated functions of ours has been loaded: no session, no client."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED_APART], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["2", "3"]


def test_more_than_a_provision_of_runs_is_counted() -> None:
    """Taking is all that a run does; what was provided and not taken is no run."""
    task = declared_task("area.many", False, ("success_rate", "duration"))
    runs = unattached_runs_of(task)
    for _ in range(2 * BATCH + 5):
        runs.note()
    assert unattached_runs_of(task) is runs
    assert stats().without_session == {"area.many": 2 * BATCH + 5}
    assert stats().values.discarded == {"no_session": 2 * (2 * BATCH + 5)}


def test_threads_count_each_run_once() -> None:
    """While others bring what was taken into the ledger."""
    task = declared_task("area.threads", False, ("duration",))

    def work() -> None:
        for number in range(3000):
            count_unattached(task)
            if number % 500 == 0:
                count_unattached_runs()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert stats().without_session == {"area.threads": 12_000}


def test_a_suspended_run_is_another_ones_to_count() -> None:
    """It goes on elsewhere, perhaps in a session."""
    task = declared_task("area.paused", False, ("duration",))
    count_unattached(task, Outcome.SUSPENDED)
    assert (stats().without_session, stats().suspended) == ({}, {"area.paused": 1})


def test_keys_that_are_made_up_as_the_program_goes_share_a_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond a cap; those that are known keep theirs."""
    first = unattached_runs_by("area.first", 1)
    monkeypatch.setattr(unattached, "MAX_KEPT", len(unattached._known))
    assert unattached_runs_by("area.new", 1) is unattached_runs_by("area.newer", 1)
    assert unattached_runs_by("area.first", 1) is first


def test_a_counter_is_pickled_by_its_task() -> None:
    """A tracked function that is sent to another process counts there."""
    runs = unattached_runs_by("area.sent", 2)
    assert pickle.loads(pickle.dumps(runs)) is runs
    assert pickle.loads(pickle.dumps(runs.take.__self__)) is runs.take.__self__


def test_a_run_that_a_finalizer_left_is_counted_later() -> None:
    """Appending is all that happens there."""
    task = declared_task("area.dropped", False, ("success_rate", "unfinished"))
    pending_from_finalizers.append((task, Outcome.ABANDONED))
    assert stats().without_session == {"area.dropped": 1}
    assert stats().values.discarded == {"no_session": 1}
    assert pending_from_finalizers == []
