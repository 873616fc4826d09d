"""Calls that wait for a lock to be released: in order, each once, and never made by two threads."""

from __future__ import annotations

import threading

from ldinstrument.delivery.unlocked_calls import UnlockedCalls


def test_calls_are_made_in_order_and_once():
    """Also those that a call queues while it is made."""
    calls, made = UnlockedCalls(), []
    calls.add(lambda: (made.append(1), calls.add(lambda: made.append(3))))
    calls.add(lambda: made.append(2))
    assert made == []
    calls.run()
    calls.run()
    assert made == [1, 2, 3]


def test_a_call_that_raises_stops_nobody(caplog):
    """It is logged, and the next one is made."""
    calls, made = UnlockedCalls(), []
    calls.add(lambda: 1 // 0)
    calls.add(lambda: made.append("next"))
    calls.run()
    assert made == ["next"]
    assert "ZeroDivisionError" in caplog.text


def in_another_call(calls: UnlockedCalls) -> tuple[threading.Thread, threading.Event]:
    """A thread in the middle of a call, which ends when the event is set."""
    begun, end = threading.Event(), threading.Event()
    calls.add(lambda: (begun.set(), end.wait(60)))
    thread = threading.Thread(target=calls.run)
    thread.start()
    assert begun.wait(60)
    return thread, end


def test_without_a_wait_the_calls_are_left_to_the_thread_that_makes_some():
    """A signal handler that interrupted that very thread must not wait for it."""
    calls, made = UnlockedCalls(), []
    thread, end = in_another_call(calls)
    calls.add(lambda: made.append(threading.current_thread()))
    calls.run()
    assert made == []
    end.set()
    thread.join(20)
    assert made == [thread]


def test_with_a_wait_what_was_queued_is_done_afterwards():
    """`run` returns when the other thread has made the call, not before."""
    calls, made = UnlockedCalls(wait=20.0), []
    thread, end = in_another_call(calls)
    calls.add(lambda: made.append("done"))
    threading.Timer(0.02, end.set).start()
    calls.run()
    assert made == ["done"]
    thread.join(20)


def test_a_wait_that_is_over_leaves_the_call_queued():
    """Nobody waits longer than was said; the other thread makes the call."""
    calls, made = UnlockedCalls(wait=0.01), []
    thread, end = in_another_call(calls)
    calls.add(lambda: made.append("late"))
    calls.run()
    assert made == []
    end.set()
    thread.join(20)
    assert made == ["late"]
