"""Postponed work: what finalizers leave is done later, each piece once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ldinstrument.sessions import postponed
from ldinstrument.sessions.postponed import forget, later, postpone, run_postponed


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    forget()
    yield
    forget()


def test_work_is_done_in_order_and_once() -> None:
    """Also what a piece of it leaves for later."""
    done: list[int] = []
    postpone(lambda: (done.append(1), postpone(lambda: done.append(3))))  # type: ignore[func-returns-value,arg-type]
    postpone(lambda: done.append(2))
    assert (done, len(later)) == ([], 2)
    run_postponed()
    run_postponed()
    assert (done, len(later)) == ([1, 2, 3], 0)


def test_work_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """It is our own fault, and logged."""
    done: list[int] = []
    postpone(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    postpone(lambda: done.append(1))
    run_postponed()
    assert done == [1]
    assert "postponed work" in caplog.text


def test_threads_share_the_work() -> None:
    """Each piece is done by one of them."""
    done: list[int] = []
    for number in range(2000):
        postpone(lambda number=number: done.append(number))  # type: ignore[misc]
    threads = [threading.Thread(target=run_postponed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(done) == list(range(2000))


def test_what_is_forgotten_is_not_done() -> None:
    """A forked child leaves it to its parent."""
    postpone(lambda: pytest.fail("it was done"))
    forget()
    run_postponed()


def test_at_exit_there_is_no_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules have been emptied by then: nothing is raised in a finalizer."""
    with monkeypatch.context() as emptied:
        emptied.setattr(postponed, "later", None)
        postpone(lambda: None)
