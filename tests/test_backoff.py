"""Waiting before the next attempt, and the meaning of an answer."""

from __future__ import annotations

import time

import pytest

from ldinstrument.backoff import (
    LONGEST_RETRY_AFTER,
    Backoff,
    Disposition,
    disposition,
    exponential,
    rest_pause,
    retry_after,
    retry_delay,
)
from ldinstrument.delivery.transport import PostResult
from ldinstrument.stores import Delta, MemoryStore, Rules
from ldinstrument.stores.reporting import Sweep

HOUR = LONGEST_RETRY_AFTER


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5.0),
        (" 5 ", 5.0),
        ("2.5", 2.5),
        ("999999", HOUR),
        ("9" * 400, HOUR),
        ("Fri, 31 Dec 2100 23:59:59 GMT", HOUR),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("inf", None),
        ("nan", None),
        ("-1", None),
        ("1e3", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_has_one_meaning(header: str | None, seconds: float | None) -> None:
    """For the event sender, the sweeper and REST: bounded by an hour, nonsense is no wish."""
    backoff = Backoff()
    backoff.failed(retry_after=retry_after(header))
    pause = backoff.not_before - time.monotonic()
    headers = {} if header is None else {"Retry-After": header}

    assert retry_after(header) == seconds
    assert pause <= HOUR
    assert 0 <= retry_delay(1, headers) <= HOUR
    assert 0 < rest_pause(0, headers) <= HOUR + 2
    if seconds:
        assert pause > seconds - 1
        assert retry_delay(1, headers) == seconds


class Outlet:
    """Answers the first payload with what it was given, the others with 202."""

    zipped = False

    def __init__(self, first: PostResult) -> None:
        self.answers = [first]
        self.posts = 0

    def post(self, sealed: object) -> PostResult:
        self.posts += 1
        return self.answers.pop() if self.answers else PostResult(202)


@pytest.mark.parametrize("header", ["999999", "inf", "86400000", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_an_absurd_retry_after_loses_no_ended_session(header: str) -> None:
    """A server that asks for twelve days is asked again within the hour: events live for a day."""
    now = [1_800_000_000_000]
    store = MemoryStore(Rules(idle=1), clock=lambda: now[0])
    store.merge("session:v", Delta("s-1", context={"user": "ana"}, tallies=(1, 0, 0, 0)))
    outlet = Outlet(PostResult(503, {"Retry-After": header}))
    now[0] += 5_000

    first = Sweep(store, outlet, Rules(idle=1), "o" * 16).run()
    now[0] += int((HOUR + 60) * 1000)
    second = Sweep(store, outlet, Rules(idle=1), "o" * 16).run()

    assert first.error == "503"
    assert second.delivered > 0
    assert outlet.posts == 2


@pytest.mark.parametrize(
    ("status", "bad_requests", "meaning"),
    [
        (202, 0, Disposition.DELIVERED),
        (200, 0, Disposition.DELIVERED),
        (413, 0, Disposition.SPLIT),
        (400, 1, Disposition.RETRY),
        (400, 2, Disposition.RETRY),
        (400, 3, Disposition.DROP),
        (401, 0, Disposition.REFUSED_KEY),
        (403, 0, Disposition.REFUSED_KEY),
        (0, 0, Disposition.RETRY),
        (302, 0, Disposition.RETRY),
        (404, 0, Disposition.RETRY),
        (429, 0, Disposition.RETRY),
        (503, 9, Disposition.RETRY),
    ],
)
def test_what_an_answer_means(status: int, bad_requests: int, meaning: Disposition) -> None:
    """The event sender and the sweeper act on the same table."""
    assert disposition(status, bad_requests) is meaning


def test_a_pause_grows_to_its_bound() -> None:
    """1, 2, 4 ... 60 seconds, each times 0.5 to 1."""
    pauses = [retry_delay(failures, {}) for failures in range(1, 200)]

    assert 0.5 <= pauses[0] <= 1.0
    assert 2.0 <= pauses[2] <= 4.0
    assert all(30.0 <= pause <= 60.0 for pause in pauses[6:])


def test_a_flush_shortens_a_pause_but_not_the_servers_wish() -> None:
    """Never below half of the first pause."""
    ours, asked = Backoff(), Backoff()
    before = time.monotonic()
    for _ in range(6):
        ours.failed()
    after = time.monotonic()
    asked.failed(retry_after=100.0)
    ours.shorten()
    asked.shorten()

    assert before + 0.5 <= ours.not_before <= after + 0.5
    assert asked.not_before - time.monotonic() > 99


def test_processes_that_failed_together_come_back_apart():
    """The pause is drawn between half of itself and the whole."""
    pauses = {exponential(3, 1.0, 60.0) for _ in range(200)}
    assert 4.0 <= min(pauses) < 5.5 < 6.5 < max(pauses) <= 8.0
