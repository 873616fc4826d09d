"""Aggregating in the background: it keeps up by itself, and lets POSTs go first."""

from __future__ import annotations

import threading

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.devserver.readout import aggregation_thread
from ldinstrument.devserver.readout.aggregation_thread import AggregationThread

from ..traffic import won


def test_what_has_arrived_is_counted_before_anybody_asks(ld, http, metric):
    """A read-out finds nothing left to do, and the statistics of its metrics made."""
    metric(key="answer.duration", eventKey="answer.duration")
    assert http("POST", "/bulk", json=won("new-prompt", units=100)).status_code == 202
    unit_values = ld.reader.unit_values
    ld.wait_for(lambda: unit_values.pending() == 0)
    iteration = ld.reader.iterations.of("new-prompt")[0].id
    assert sum(unit_values.exposed(iteration)["user"].values()) == 100
    assert ld.readout().row("answer.duration", "new-prompt", 0).measured == 50


def test_it_goes_on_until_nothing_is_left_and_begins_again_with_the_next_post():
    """On its own thread."""
    left, asked, done = [3], [], threading.Event()

    def aggregate(seconds: float) -> bool:
        asked.append(seconds)
        left[0] -= 1
        if left[0] <= 0:
            done.set()
        return left[0] <= 0

    background = AggregationThread(aggregate)
    background.start()
    assert done.wait(60)
    left[0] = 2
    done.clear()
    with background.post():
        pass
    assert done.wait(60)
    background.stop()
    assert set(asked) == {aggregation_thread.SLICE_SECONDS}
    assert len(asked) >= 5


def test_a_piece_of_work_waits_for_a_post_and_not_for_ever(monkeypatch):
    """A POST that hangs cannot stop the read-out."""
    background = AggregationThread(lambda seconds: True)
    monkeypatch.setattr(aggregation_thread, "WAIT_SECONDS", 30.0)
    with background.post():
        waiting = threading.Thread(target=background.give_way)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(30)
    assert not waiting.is_alive()
    monkeypatch.setattr(aggregation_thread, "WAIT_SECONDS", 0.01)
    with background.post():
        background.give_way()  # returns although the POST goes on


def test_it_ends_with_the_server():
    """Its own thread: other servers of this process go on."""
    before = set(threading.enumerate())
    with LocalLaunchDarkly():
        ours = [
            thread
            for thread in set(threading.enumerate()) - before
            if thread.name == "ldinstrument-devserver-aggregation"
        ]
        assert [thread.is_alive() for thread in ours] == [True]
    ours[0].join(30)
    assert not ours[0].is_alive()


def test_an_error_does_not_end_it(caplog):
    """What arrives next is counted all the same; the error is logged."""
    asked, done = [], threading.Event()

    def aggregate(seconds: float) -> bool:
        asked.append(seconds)
        if len(asked) == 1:
            raise ValueError("cannot be counted")
        done.set()
        return True

    background = AggregationThread(aggregate)
    background.start()
    while not asked:
        pass
    with background.post():
        pass
    assert done.wait(60)
    background.stop()
    assert "cannot be counted" in caplog.text
