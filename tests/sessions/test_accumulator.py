"""What a session has been given: divided, dated and folded."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ldclient import Context

from ldinstrument.ledger import ledger
from ldinstrument.metrics.catalogs import EventRouting
from ldinstrument.sessions.accumulator import Accumulator
from ldinstrument.sessions.clock import clock
from ldinstrument.sessions.exposures import exposures
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.rollups import FinishedRuns
from ldinstrument.sessions.task_definition import INTERACTION, declared_task

USER = Context.create("u-1")
SUM = EventRouting("a.sum", True, False, "sum", None, frozenset())
EACH = EventRouting("a.each", True, False, "each", None, frozenset())


def value(routing: EventRouting, amount: float, at: float | None = None) -> tuple[Any, ...]:
    return routing, amount, None, clock() if at is None else at, None


def expose(date: int | None = None) -> int:
    return exposures.note("flag", 1, USER, int(time.time() * 1000) if date is None else date)


@pytest.fixture
def held() -> Accumulator:
    """One that belongs to somebody."""
    made = Accumulator()
    made.belong_to(USER)
    return made


def test_an_exposure_ends_a_segment(held: Accumulator) -> None:
    """Samples before it, with their tallies, apart from those after it."""
    held.entries.append(value(SUM, 1))
    held.entries.append((INTERACTION, Outcome.SUCCESS, clock(), clock(), None))
    expose()
    held.entries.append(value(SUM, 2))
    (before,) = held.fold()
    after = held.close()

    assert after is not None
    assert [group.total for _, group in before.groups] == [1]
    assert (before.tallies, before.exposed) == ((1, 0, 0, 0), True)
    assert [group.total for _, group in after.groups] == [2]
    assert (after.tallies, after.exposed) == ((0, 0, 0, 0), False)


def test_runs_that_end_alike_are_one_part(held: Accumulator) -> None:
    """One failure among them does not make each run a part of its own."""
    task = declared_task("t", False, ("success_rate", "duration"))
    for number in range(32):
        outcome = Outcome.FAILURE if number == 16 else Outcome.SUCCESS
        held.entries.append((task, outcome, clock(), clock(), None))
    held.fold()
    _, (runs,), _, _ = held.finish()

    assert isinstance(runs, FinishedRuns)
    assert [(part[2], part[4]) for part in runs.parts] == [
        (Outcome.SUCCESS, 16),
        (Outcome.FAILURE, 1),
        (Outcome.SUCCESS, 15),
    ]
    assert [event.value for event in runs.expanded()][::2] == [1.0] * 16 + [0.0] + [1.0] * 15


def test_a_segment_with_nothing_in_it_ends_too(held: Accumulator) -> None:
    """What came before the exposure that ends it must not leave with what follows."""
    held.entries.append((INTERACTION, Outcome.SUCCESS, clock(), clock(), None))
    held.fold()
    held.close()
    expose()
    (empty,) = held.fold()

    assert (empty.active, empty.exposed) == (None, True)


def test_a_sample_that_comes_late_stays_before_its_exposure(held: Accumulator) -> None:
    """Another thread appends it after the segment was folded: it travels alone, dated before."""
    recorded = clock()
    date = expose(int(time.time() * 1000) - 3_600_000)  # the wall clock was set back just now
    held.fold()
    held.entries.append(value(SUM, 1, at=recorded))
    held.fold()

    (late,) = held.take_loose()
    assert (late.value, late.at) == (1, date - 1)


def test_what_follows_an_exposure_is_dated_after_it(held: Accumulator) -> None:
    """Also when the wall clock was set forward just before it."""
    date = expose(int(time.time() * 1000) + 3_600_000)
    held.entries.append(value(EACH, 1))
    held.fold()

    assert held.take_loose()[0].at >= date
    assert held.last - held.started < 60


def test_nobodys_samples_wait_and_are_counted_once() -> None:
    """Until somebody is known; at the end they travel alone."""
    held = Accumulator()
    held.entries += [value(SUM, 1), value(SUM, 2)]
    assert held.fold() == []
    assert held.close() is None
    assert ledger.stats().values.recorded == 2
    held.fold(at_last=True)

    assert [emission.value for emission in held.take_loose()] == [1, 2]
    assert ledger.stats().values.recorded == 2


def test_a_stored_sessions_entries_are_kept_apart() -> None:
    """Up to so many: an exposure in another process may lie between any two."""
    held = Accumulator(single=2)
    held.belong_to(USER)
    for n in range(5):
        held.entries.append(value(SUM, n))
        time.sleep(0.002)
    segments = [*held.fold(), held.close()]

    assert [[group.total for _, group in segment.groups] for segment in segments if segment] == [
        [0],
        [1],
        [2 + 3 + 4],
    ]


HOUR = 3_600_000


def test_dates_go_on_from_an_exposure_that_was_dated_ahead(held: Accumulator) -> None:
    """The wall clock was set back after it: what follows is dated after it, one after the other."""
    date = expose(int(time.time() * 1000) + HOUR)
    held.entries.append(value(EACH, 1))
    time.sleep(0.01)
    held.entries.append(value(EACH, 2))
    held.fold()

    first, second = (emission.at for emission in held.take_loose())
    assert date <= first <= second - 9


def test_an_exposure_that_was_dated_behind_dates_nothing_back(held: Accumulator) -> None:
    """The wall clock was right again before and after it."""
    now = int(time.time() * 1000)
    expose(now - HOUR)
    held.entries.append(value(EACH, 1))
    held.fold()

    assert held.take_loose()[0].at >= now


def test_an_exposure_of_another_unit_moves_no_date_back() -> None:
    """Each unit's exposures are dated one after the other, those of two units need not be."""
    held = Accumulator()
    held.belong_to(Context.create_multi(USER, Context.create("acme", "org")))
    ahead = expose(int(time.time() * 1000) + HOUR)
    time.sleep(0.002)
    held.entries.append(value(SUM, 1))
    time.sleep(0.002)
    exposures.note("flag", 1, Context.create("acme", "org"), int(time.time() * 1000))
    held.entries.append(value(SUM, 2))
    between = held.fold()[-1]
    after = held.close()

    assert after is not None
    assert between.last >= ahead
    assert [group.last_at >= ahead for _, group in (*between.groups, *after.groups)] == [True] * 2


def test_what_was_folded_under_another_routing_is_dated_before_the_exposure(
    held: Accumulator,
) -> None:
    """The catalog has changed meanwhile: it leaves under its own, and not after the exposure."""
    held.entries.append(value(SUM, 1))
    held.fold()
    held.entries.append(value(EventRouting("a.sum", True, False, "last", None, frozenset()), 2))
    held.fold()
    date = expose(int(time.time() * 1000) - HOUR)
    (before,) = held.fold()

    assert [(group.total, group.last_at < date) for _, group in before.groups] == [
        (1, True),
        (2, True),
    ]
