"""Iterations of an experiment: started, stopped, and what counts in each."""

from __future__ import annotations

import pytest

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    server.define()
    yield server
    server.database.close()


def test_the_first_one_begins_with_the_first_exposure(server):
    """By itself, at no date; it runs until somebody stops it."""
    assert (server.reader.iterations.of("f"), server.reader.iterations.flags()) == ([], [])
    server.post(exposure("a", at=5))
    server.reader.read()
    (first,) = server.reader.iterations.of("f")
    assert (first.number, first.started, first.stopped, first.running) == (1, 0, None, True)
    assert server.reader.iterations.flags() == ["f"]


def test_a_start_stops_the_one_that_runs(server):
    """At the same moment; numbers are those of the flag."""
    iterations = server.reader.iterations
    iterations.start("g", 1)
    first = iterations.start("f", 10)
    second = iterations.start("f", 20)
    assert (first.number, second.number) == (1, 2)
    assert [(iteration.started, iteration.stopped) for iteration in iterations.of("f")] == [
        (10, 20),
        (20, None),
    ]
    assert iterations.flags() == ["f", "g"]


def test_a_stop_ends_the_one_that_runs_once(server):
    """A second stop says that none did."""
    iterations = server.reader.iterations
    iterations.start("f", 10)
    stopped = iterations.stop("f", 30)
    assert (stopped.number, stopped.stopped, stopped.running) == (1, 30, False)
    assert iterations.stop("f", 40) is None
    assert [iteration.stopped for iteration in iterations.of("f")] == [30]
    assert iterations.start("f", 50).number == 2


def test_a_flag_can_be_stopped_before_anybody_was_exposed(server):
    """Then exposures count for nothing until a start."""
    server.reader.stop_iteration("f", 5)
    server.post(exposure("a", at=9), event("a", at=10))
    assert server.reader.read().experiments[0].iteration.stopped == 5
    assert [row.units for row in server.reader.read().rows] == []
    server.reader.start_iteration("f", 20)
    server.post(exposure("a", at=21), event("a", at=22))
    assert (server.row().units, server.row().measured) == (1, 1)


def test_each_iteration_has_its_own_exposures_and_events(server):
    """An event counts by its own date: before the stop, also when it arrives after it."""
    server.post(exposure("a", 0, at=5), event("a", 1.0, at=6))
    server.reader.start_iteration("f", 10)
    server.post(exposure("a", 1, at=11), event("a", 2.0, at=12))
    server.reader.stop_iteration("f", 20)
    server.post(event("a", 4.0, at=30), event("a", 6.0, at=19))
    first, second = server.row(0, iteration=1), server.row(1, iteration=2)
    assert (first.units, first.mean) == (1, 1.0)
    assert (second.units, second.mean) == (1, 4.0)


def test_without_a_date_it_is_now(server):
    """In milliseconds since the epoch."""
    started = server.reader.iterations.start("f")
    assert started.started > 1_700_000_000_000
    stopped = server.reader.iterations.stop("f")
    assert stopped.stopped >= started.started
