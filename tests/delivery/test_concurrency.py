"""Threads, forks and signal handlers in the middle of everything."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable

import faults
import pytest
from ldclient import Context, LDClient

import ldinstrument as ld
from ldinstrument.delivery import FlushReport, flush
from ldinstrument.diagnostics import diagnostics
from ldinstrument.ledger import ledger

CONTEXT = Context.create("u-1")


FAULTS = (
    {},
    {"status": 503},
    {"status": 500},
    {"status": 429, "headers": {"Retry-After": "0.05"}},
    {"status": 408},
    {"reset": True},
    {"late": 0.15},
    {"largest": 5},
    {"stall": True, "counts": False},
)


def _until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def _adds_up() -> None:
    events = ledger.stats().events
    assert events.emitted == events.delivered + events.pending + events.unconfirmed + sum(
        events.dropped.values()
    )


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_many_threads_and_a_server_in_every_mood(server, make, tmp_path, spool):
    """Once the server is well again, every event has arrived once; at every moment the ledger adds
    up.
    """
    faults = random.Random(7)
    for _ in range(60):
        server.answer(times=1, **faults.choice(FAULTS))
    options = {"spool": tmp_path} if spool else {}
    client = make(
        read_timeout=0.1, flush_interval=0.02, first_pause=0.01, longest_pause=0.05, **options
    )

    def work(name: int) -> None:
        for number in range(150):
            client.track(f"{name}.{number}", CONTEXT)
            time.sleep(0.001)
            if number % 10 == 0:
                flush(0.01, client)
                _adds_up()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.behave()
    deadline = time.monotonic() + 100
    while ledger.stats().events.pending and time.monotonic() < deadline:
        flush(1.0, client)
    _adds_up()
    assert server.keys() == {f"{name}.{number}": 1 for name in range(6) for number in range(150)}
    assert server.same_bytes()
    assert max(server.posts_per_payload().values()) > 1
    assert ledger.stats().events.delivered == 900


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_forks_while_threads_track_and_flush(server, tmp_path):
    """Thirty children, forked while other threads hold whatever lock they like; none hangs, nothing
    comes twice.
    """
    client = LDClient(faults.config(server.url, spool=tmp_path, flush_interval=0.01))
    stop = threading.Event()

    def work(name: str) -> None:
        number = 0
        while not stop.is_set():
            client.track(f"{name}.{number}", CONTEXT)
            number += 1
            if number % 7 == 0:
                flush(0.05, client)
        counts[name] = number

    counts: dict[str, int] = {}
    threads = [threading.Thread(target=work, args=(f"parent{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(30):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    signal.alarm(100)
                    client.track(f"child.{number}", CONTEXT)
                    report = flush(60.0, client)
                    # Of a sibling that ended before it had crossed out what was delivered, the file
                    # is taken over, too.
                    code = (
                        0 if report.delivered >= 1 and not (report.failed or report.pending) else 2
                    )
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    while flush(30.0, client).pending:
        pass
    client.close()
    expected = {f"child.{n}": 1 for n in range(30)} | {
        f"{k}.{n}": 1 for k, v in counts.items() for n in range(v)
    }
    assert server.keys() == expected


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no interval timer")
def test_a_signal_handler_may_track_and_flush(server, client):
    """A handler that interrupts `track` and `flush` at random places does both itself, and nothing
    waits for itself.
    """
    handled = 0

    def handler(*_) -> None:
        nonlocal handled
        client.track(f"signal.{handled}", CONTEXT)
        flush(0.01, client)
        handled += 1
        signal.setitimer(
            signal.ITIMER_REAL, 0.003
        )  # once more, only now: no handler inside a handler

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.003)
    tracked = 0
    try:
        while handled < 60 and tracked < 100_000:
            client.track(f"main.{tracked}", CONTEXT)
            tracked += 1
            flush(0.05, client)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    while flush(30.0, client).pending:
        pass
    assert handled >= 60
    assert server.keys() == {f"main.{n}": 1 for n in range(tracked)} | {
        f"signal.{n}": 1 for n in range(handled)
    }


@pytest.fixture(name="warm")
def _warm(make: Callable[..., LDClient]) -> LDClient:
    """A client with an open connection, on which a flush may send by itself."""
    client = make(flush_interval=3600)
    client.track("warm", CONTEXT)
    assert flush(20.0, client).delivered == 1
    return client


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signals here")
def test_a_signal_handler_flushes_what_it_has_interrupted(server, warm):
    """The POST that was interrupted cannot go on before the handler returns; another one with the
    same id can.
    """
    server.answer(stall=True, counts=False, times=1)
    warm.track("a", CONTEXT)
    inside: list[FlushReport] = []
    before = signal.signal(signal.SIGALRM, lambda *_: inside.append(flush(20.0, warm)))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        outside = flush(2.0, warm)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [report.delivered for report in inside] == [1]
    assert outside.delivered == 1
    assert ledger.stats().events.delivered == 2
    assert sorted(server.posts_per_payload().values()) == [1, 2]
    assert server.keys() == {"warm": 1, "a": 1}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signals here")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
def test_an_exception_out_of_a_signal_handler_loses_no_payload(server, warm, kind):
    """Ctrl-C in a flush, or a time limit, ends the flush, not the events: they leave with the next
    one, under the same id.
    """
    server.answer(stall=True, counts=False, times=1)
    warm.track("a", CONTEXT)

    def interrupt(*_: object) -> None:
        raise kind

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(kind):
            flush(20.0, warm)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert _until(lambda: flush(1.0, warm) and ledger.stats().events.pending == 0)
    assert sorted(server.posts_per_payload().values()) == [1, 2]
    assert server.keys() == {"warm": 1, "a": 1}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signals here")
def test_a_storm_of_exceptions_out_of_a_signal_handler(server, client, monkeypatch):
    """Each reaches the host, but for those in a finalizer, which Python keeps. What arrives was
    recorded, at most what was being folded is missing, and no duration belongs to another run.
    """
    struck, seen, kept, calls = 0, set(), [], 0

    class TimeLimit(Exception):
        pass

    def strike(*_: object) -> None:
        nonlocal struck
        struck += 1
        raise TimeLimit(struck)

    @ld.track_task("storm")
    def work(number: int) -> int:
        return number

    def until_struck() -> None:
        nonlocal calls
        armed = -1
        while struck < 300:
            if armed != struck:
                armed = struck
                signal.setitimer(signal.ITIMER_REAL, 0.001 + calls * 7919 % 1000 / 1e6)
            with ld.session("u-1", client=client):
                for _ in range(40):
                    work(calls := calls + 1)

    monkeypatch.setattr(sys, "unraisablehook", lambda found: kept.append(found.exc_value.args[0]))
    before = signal.signal(signal.SIGALRM, strike)
    try:
        while struck < 300:
            try:
                until_struck()
            except TimeLimit as error:
                seen.add(error.args[0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    flush(30.0, client)
    keys = server.keys()
    assert seen.isdisjoint(kept)
    assert len(seen) + len(kept) == struck
    assert keys["storm.duration"] == keys["storm.success_rate"] <= calls
    assert keys["storm.duration"] >= calls - 300 * 100
    assert not [cause for cause, _ in diagnostics.counts() if cause.startswith("internal")]
