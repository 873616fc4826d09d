"""A signal's handler raises at each point where Python may run one: the entry of each function of
ours, and the return of each call into C. No lock stays taken, no event is lost or sent twice.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ldclient import Context

import ldinstrument as ld
from ldinstrument.delivery import flush
from ldinstrument.delivery.unlocked_calls import UnlockedCalls
from ldinstrument.ledger import ledger
from ldinstrument.stores import Rules, SqliteStore

PACKAGE = str(Path(ld.__file__).parent)
MOST_POINTS = 2000


class TimeLimit(Exception):
    """What the handler raises."""


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    def strike(*_: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGUSR1, strike)
    yield
    signal.signal(signal.SIGUSR1, before)


def _is_under_ours(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame is not None


def struck(act: Callable[[], object], at: int) -> bool:
    """Call *act*, struck at its point number *at*; False when it has no such point."""
    points = 0

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal points
        if event == "call" and sys.version_info < (3, 11) and frame.f_lasti >= 0:
            return  # there, an exception out of here skips a generator's `finally`; a signal's not
        if event in ("call", "c_return") and points < at and _is_under_ours(frame):
            points += 1
            if points == at:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGUSR1)

    sys.setprofile(look)
    try:
        act()
    except TimeLimit:
        pass
    finally:
        sys.setprofile(None)
    return points == at


def _free(lock: Any) -> bool:
    """Tell whether another thread can take *lock*."""
    found: list[bool] = []

    def take() -> None:
        found.append(lock.acquire(timeout=5))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_a_flush_struck_anywhere_loses_nothing_and_sends_nothing_twice(
    server, make, tmp_path, spool
):
    """The next flush delivers what the struck one left, each event once."""
    client = make(flush_interval=3600, **({"spool": tmp_path} if spool else {}))
    client.track("warm", Context.create("u"))
    assert flush(30.0, client).delivered == 1
    worker, at = client._event_processor.worker, 0
    reached = True
    while reached and at < MOST_POINTS:
        at += 1
        for name in "abc":
            client.track(f"{name}.{at}", Context.create("u"))
        worker.events.batch(most=1)  # the first is in a payload that others are added to
        reached = struck(lambda: flush(30.0, client), at)
        assert _free(worker.events.batching), at
        flush(30.0, client)
        events = ledger.stats().events
        assert (events.pending, events.dropped) == (0, {}), at
    assert 20 < at < MOST_POINTS  # with a spool another thread batches
    assert server.keys() == {
        "warm": 1,
        **{f"{name}.{number}": 1 for name in "abc" for number in range(1, at + 1)},
    }
    assert len(worker.sender.flushes) <= 3  # each keeps what it waited for, until the next one


def test_calls_struck_anywhere_are_made_by_the_next_who_comes():
    """But for the one that was struck, which has begun."""
    reached, at = True, 0
    while reached and at < MOST_POINTS:
        at += 1
        calls, made = UnlockedCalls(5.0), []
        for number in range(3):
            calls.add(partial(made.append, number))
        reached = struck(calls.run, at)
        other = threading.Thread(target=calls.run)
        other.start()
        other.join(30)
        assert not other.is_alive(), at
        assert calls.runner == 0
        assert not calls.queued
        assert len(made) >= 2
        assert made == sorted(set(made))
    assert 5 < at < MOST_POINTS


def test_a_file_store_struck_anywhere_goes_on(tmp_path):
    """Other threads and the same one find it free, and nothing half done."""
    store = SqliteStore(tmp_path / "sessions.db", Rules(), timeout=5.0)
    store.check()
    reached, at = True, 0
    while reached and at < MOST_POINTS:
        at += 1
        reached = struck(store.holdings, at)
        found: list[Any] = []
        other = threading.Thread(target=lambda found=found: found.append(store.holdings()))
        other.start()
        other.join(30)
        assert found, at
        assert store.holdings() == found[0]
    assert 10 < at < MOST_POINTS
    store.close()
