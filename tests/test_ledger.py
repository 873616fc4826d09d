"""`ledger`: rows that add up, whatever is counted in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.ledger import MOST_KEYS, Events, Ledger, Values

COUNTS: dict[str, Callable[[Ledger, int], None]] = {
    "recorded": lambda ledger, count: ledger.count(recorded=count),
    "emitted values": lambda ledger, count: ledger.count(emitted_values=count),
    "discarded": lambda ledger, count: ledger.discarded("nan", count),
    "without session": lambda ledger, count: ledger.without_session("ai.answer", count, 2 * count),
    "handed over": lambda ledger, count: ledger.count(emitted=count, emitted_values=3 * count),
    "emitted": lambda ledger, count: ledger.count(emitted=count),
    "delivered": lambda ledger, count: ledger.count(delivered=count),
    "unconfirmed": lambda ledger, count: ledger.unconfirmed(count),
    "dropped": lambda ledger, count: ledger.dropped("too_old", count),
    "exposures emitted": lambda ledger, count: ledger.count(exposures_emitted=count),
    "exposures delivered": lambda ledger, count: ledger.count(exposures_delivered=count),
    "exposures dropped": lambda ledger, count: ledger.exposures_dropped("closed", count),
}


def balanced(events: Events) -> bool:
    settled = events.delivered + events.unconfirmed + sum(events.dropped.values())
    return events.emitted == events.pending + settled


def adds_up(values: Values) -> bool:
    return values.recorded == values.emitted + values.open + sum(values.discarded.values())


@given(st.lists(st.tuples(st.sampled_from(sorted(COUNTS)), st.integers(0, 50))))
def test_the_equations_hold_in_any_order(steps: list[tuple[str, int]]) -> None:
    """For values, events and exposures, after every step."""
    ledger = Ledger()
    for name, count in steps:
        COUNTS[name](ledger, count)
        stats = ledger.stats()
        assert adds_up(stats.values)
        assert balanced(stats.events)
        assert balanced(stats.exposures)


def test_each_count_moves_its_own_row() -> None:
    """What is counted once is seen once, under its name."""
    ledger = Ledger()
    for place, name in enumerate(COUNTS):
        COUNTS[name](ledger, 10**place)
    stats = ledger.stats()

    assert stats.values == Values(
        recorded=1 + 2 * 10**3,
        emitted=10 + 3 * 10**4,
        open=1 + 2 * 10**3 - 10 - 3 * 10**4 - 100 - 2 * 10**3,
        discarded={"nan": 100, "no_session": 2 * 10**3},
    )
    assert dict(stats.without_session) == {"ai.answer": 10**3}
    assert (stats.events.emitted, stats.events.delivered) == (10**4 + 10**5, 10**6)
    assert (stats.events.unconfirmed, dict(stats.events.dropped)) == (10**7, {"too_old": 10**8})
    assert (stats.exposures.emitted, stats.exposures.delivered) == (10**9, 10**10)
    assert dict(stats.exposures.dropped) == {"closed": 10**11}


def test_a_reading_is_of_one_moment() -> None:
    """What is counted afterwards does not change it, nor may a reader."""
    ledger = Ledger()
    ledger.discarded("nan")
    before = ledger.stats()
    ledger.discarded("nan")

    assert before.values.discarded == {"nan": 1}
    with pytest.raises(TypeError):
        before.values.discarded["nan"] = 0  # type: ignore[index]


def test_keys_that_a_program_makes_up_share_a_row() -> None:
    """Beyond the most that are kept; the count stays whole."""
    ledger = Ledger()
    for number in range(MOST_KEYS + 5):
        ledger.unfinished(f"task.{number}")
        ledger.suspended(f"task.{number}")
        ledger.without_session(f"task.{number}", 1, 1)
    stats = ledger.stats()

    for counts in (stats.unfinished, stats.suspended, stats.without_session):
        assert len(counts) == MOST_KEYS + 1
        assert counts["..."] == 5
        assert sum(counts.values()) == MOST_KEYS + 5


def test_a_session_that_lasted_counts_where_it_was_exposed() -> None:
    """The time of others says nothing about dilution."""
    ledger = Ledger()
    ledger.session_ended("chat", exposed=False, milliseconds=5000.0)
    ledger.session_ended("chat", exposed=True, milliseconds=1000.0)
    ledger.session_ended("chat", exposed=True, milliseconds=3000.0, before=2000.0)
    found = ledger.sessions("chat")

    assert (found.ended, found.exposed, found.diluted) == (3, 2, 1)
    assert found.share_before == 0.5
    assert ledger.stats().sessions["chat"] == found


def test_a_forked_child_begins_at_zero() -> None:
    """With a lock of its own: a thread of the parent may hold the other for ever."""
    ledger = Ledger()
    ledger.count(emitted=3)
    held = ledger.lock
    with held:
        ledger.forked()
        other = threading.Thread(target=lambda: ledger.count(emitted=1))
        other.start()
        other.join(30)

    assert ledger.stats().events.emitted == 1
