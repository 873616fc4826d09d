"""Sessions from many threads, asyncio tasks, greenlets, forks and onto a spool: what was recorded is
delivered, once, and the ledger adds up. Nothing here is timed.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from event_server import EventServer
from ldclient import LDClient

import ldinstrument as ld

RUNS = 500
PROGRAM = Path(__file__).with_name("loaded_program.py")


@ld.track_task("load.answer")
def answer() -> int:
    """Do nothing, measured."""
    return 1


@ld.track_task("load.awaited")
async def awaited() -> int:
    """Give way, measured."""
    await asyncio.sleep(0)
    return 1


@pytest.fixture(autouse=True)
def _busy_interpreter() -> Iterator[None]:
    """Threads take turns every few calls, so that they meet everywhere."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run *work* in *count* threads at once, each in a copy of this context."""
    gate = threading.Barrier(count)
    failed: list[BaseException] = []

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(run, number))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def delivered_all(client: LDClient) -> None:
    """Everything that was recorded is delivered, and the ledger's two equations hold."""
    report = ld.flush(60.0, client)
    assert report.ok, report
    stats = ld.stats()
    assert not stats.values.discarded
    assert stats.values.recorded == stats.values.emitted + stats.values.open
    assert stats.values.open == 0
    assert not stats.events.dropped
    assert (stats.events.emitted, stats.events.pending) == (stats.events.delivered, 0)


@pytest.mark.parametrize("threads", [1, 4, 16, 64])
def test_threads_on_one_session(server: EventServer, client: LDClient, threads: int) -> None:
    """Each run is two events, whoever ran it; the session's own come once."""
    with ld.session("u-1", client=client):
        in_threads(threads, lambda _: [answer() for _ in range(RUNS)] and None)
    delivered_all(client)
    assert server.keys() == {
        "load.answer.success_rate": threads * RUNS,
        "load.answer.duration": threads * RUNS,
        "session.duration": 1,
        "session.interactions": 1,
    }


@pytest.mark.parametrize("threads", [1, 4, 16, 64])
def test_threads_on_their_own_sessions(server: EventServer, client: LDClient, threads: int) -> None:
    """Each event is for its session's context."""

    def work(number: int) -> None:
        for visit in range(3):
            with ld.session(f"u-{number}-{visit}", client=client):
                for _ in range(RUNS // 2):
                    answer()

    in_threads(threads, work)
    delivered_all(client)
    found = Counter(
        event["context"]["key"]  # type: ignore[index]
        for event in server.taken()
        if event["key"] == "load.answer.duration"
    )
    assert found == {
        f"u-{number}-{visit}": RUNS // 2 for number in range(threads) for visit in range(3)
    }


def test_ten_thousand_asyncio_tasks(server: EventServer, client: LDClient) -> None:
    """All open at once, a session each; and as many that share one."""

    async def visit(number: int) -> None:
        async with ld.session(f"u-{number}", client=client):
            await awaited()
            answer()

    async def main() -> None:
        await asyncio.gather(*[visit(number) for number in range(10_000)])
        with ld.session("shared", client=client):
            await asyncio.gather(*[awaited() for _ in range(10_000)])

    asyncio.run(main())
    delivered_all(client)
    assert server.keys() == {
        "load.awaited.success_rate": 20_000,
        "load.awaited.duration": 20_000,
        "load.answer.success_rate": 10_000,
        "load.answer.duration": 10_000,
        "session.duration": 10_001,
        "session.interactions": 10_001,
    }


def run(*arguments: str, ends: int = 0) -> dict[str, Any]:
    """Run the program beside this file; return what it reports of its ledger."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == ends, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_of_gevent(server: EventServer) -> None:
    """Everything patched, 300 at once, each in a session of its own."""
    found = run("gevent", server.url)
    assert found["dropped"] == found["discarded"] == {}
    assert found["emitted"] == found["delivered"] == 300 * (40 * 2 + 2)
    assert server.keys()["load.answer.duration"] == 300 * 40


def test_what_was_written_at_once_survives_the_process(
    server: EventServer, make: Callable[..., LDClient], tmp_path: Path
) -> None:
    """Batches are on disk as single events are: who takes the spool over delivers every one."""
    server.answer(status=503)
    found = run("killed", server.url, str(tmp_path), ends=9)
    assert found["emitted"] == 30 * (100 * 2 + 2)
    assert found["delivered"] == 0
    server.behave()
    heir = make(spool=tmp_path, flush_interval=3600)
    while ld.flush(30.0, heir).pending:
        pass
    assert server.keys()["load.answer.duration"] == 30 * 100
    assert sum(server.keys().values()) == found["emitted"]
    assert ld.stats().events.delivered == found["emitted"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forks_inside_a_batch(server: EventServer, client: LDClient) -> None:
    """What was recorded before the fork is the parent's to send, also when threads are writing
    batches at that moment; the child's own sessions are the child's.
    """
    stop = threading.Event()
    counts = [0] * 4

    def work(number: int) -> None:
        while not stop.is_set():
            with ld.session(f"thread-{number}", client=client):
                for _ in range(70):
                    answer()
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        with ld.session("parent", client=client):
            for number in range(12):
                for _ in range(50):  # some are folded, some wait
                    answer()
                child = os.fork()
                if child == 0:
                    be_a_child(client, number)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    delivered_all(client)
    found = Counter(
        event["context"]["key"]  # type: ignore[index]
        for event in server.taken()
        if event["key"] == "load.answer.duration"
    )
    expected = {f"child-{number}": 65 for number in range(12)} | {"parent": 12 * 50}
    expected |= {f"thread-{number}": 70 * visits for number, visits in enumerate(counts)}
    assert found == {key: count for key, count in expected.items() if count}


def be_a_child(client: LDClient, number: int) -> None:
    """Record in a session of its own, deliver, and leave with 0 when nothing was lost."""
    code = 1
    try:
        signal.alarm(120)
        with ld.session(f"child-{number}", client=client):
            for _ in range(65):
                answer()
        report = ld.flush(60.0, client)
        code = 0 if report.ok and report.delivered == 65 * 2 + 2 else 2
    finally:
        os._exit(code)
