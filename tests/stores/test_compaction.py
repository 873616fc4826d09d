"""Compaction: a long record gets shorter, and amounts to the same."""

from __future__ import annotations

import json

from drawn_deltas import DELTAS, NOW, events, made, merged
from hypothesis import given, settings
from hypothesis import strategies as st
from stores_builders import delta, ended, tallies_of

from ldinstrument.stores import MemoryStore
from ldinstrument.stores.compaction import KEEP_LINES, MOST_EXPOSURES, MOST_VALUES, compact
from ldinstrument.stores.records import readable


@settings(max_examples=40)
@given(st.lists(DELTAS, min_size=2, max_size=20), st.data())
def test_compacting_changes_no_event(drawn, data):
    """A long visit is folded on the way: together, the parts are what it would have been."""
    fresh = data.draw(st.booleans())
    deltas = []
    for number, change in enumerate(drawn):
        context = {"user": "ana", "request": f"r-{number}"} if fresh else {"user": "ana"}
        age = 1000 * (len(drawn) - number)
        groups = {
            key: (*group[:2], NOW - age, NOW - age, *group[4:])
            for key, group in change["groups"].items()
        }
        changed = {"context": context, "ages": (age, age), "groups": groups}
        deltas.append(made(change | changed))
    whole, long = merged(deltas), merged(deltas)
    parts = compact(long)
    again = readable(long.text())

    assert again.lines == long.lines
    together = sum((events(readable(part.text())) for part in parts), events(again))
    assert {event: count for event, count in together.items() if "values=0" not in event} == {
        event: count for event, count in events(whole).items() if "values=0" not in event
    }


def long_visit(requests, **fields):
    """A record of many requests, a second apart; *fields* may depend on number and date."""
    deltas = []
    for number in range(requests):
        age = 1000 * (requests - number)
        given = {name: make(number, NOW - age) for name, make in fields.items()}
        context = given.pop("context", {"user": "ana"})
        deltas.append(
            delta(started_ago=age, last_ago=age, now=NOW, **{"context": context, **given})
        )
    return merged(deltas)


def test_older_lines_become_one_and_recent_ones_stay():
    """An exposure of another worker may still divide what came last."""
    record = long_visit(40)
    recent = record.lines[-KEEP_LINES:]
    assert compact(record) == []
    assert len(record.lines) == KEEP_LINES + 1
    assert record.lines[1:] == recent


def test_a_record_of_recent_lines_is_left_alone():
    """There is nothing older to fold."""
    record = long_visit(KEEP_LINES)
    before = list(record.lines)
    assert compact(record) == []
    assert record.lines == before


def test_an_account_that_was_left_leaves():
    """Its events need not wait for the end of the visit; the part says whose they are."""

    def context(number, at):
        return {"user": "ana", "request": "early" if number < 9 else "late"}

    record = long_visit(40, context=context)
    (part,) = compact(record)
    assert part.accounts == (("request", "early"),)
    assert (part.part, record.parts) == (1, 1)
    assert "early" not in record.text()


def test_values_that_do_not_fold_leave_when_they_are_too_many():
    """Interactions stay: the part holds the values alone."""

    def groups(number, at):
        return {f"s1m-{number}-{place}\n": (1.0, 1, at, at, None, None) for place in range(5)}

    record = long_visit(40, groups=groups)
    whole = events(readable(record.text()))
    (part,) = compact(record)
    assert len(part.names) > MOST_VALUES
    assert part.accounts == ()
    left, stayed = events(readable(part.text())), events(record)
    assert sum((left, stayed), type(left)()) == whole
    assert len(record.names) == 5 * KEEP_LINES


def test_old_exposures_are_forgotten():
    """Those before everything that is left, and the oldest of too many."""

    def exposures(number, at):
        return {f"flag-{number}-{place}": at + place for place in range(5)} | {"old": at - 10**6}

    record = long_visit(40, exposures=exposures)
    assert len(record.exposures) > MOST_EXPOSURES
    compact(record)
    assert len(record.exposures) <= MOST_EXPOSURES
    assert min(record.exposures.values()) > NOW - 50_000


def test_an_exposure_before_everything_that_is_left_is_forgotten():
    """It divides nothing any more; one in between stays."""
    record = long_visit(
        40, exposures=lambda number, at: {"old": NOW - 45_000, "between": NOW - 20_000}
    )
    compact(record)
    assert list(record.exposures.values()) == [NOW - 20_000]


def test_many_exposures_of_a_visit_without_values_are_no_error():
    """Nothing leaves early then, and every interaction stays."""
    store = MemoryStore()
    for number in range(80):
        exposures = {f"flag-{number}-{place}": NOW for place in range(5)}
        store.merge("v", delta(context={"user": "ana"}, exposures=exposures))
    store.end("v", "ended", over=0, active=False)
    (record,) = ended(store)
    assert tallies_of(record) == [80, 0, 0, 0]
    assert len(record.exposures) < 80 * 5


def test_a_corrupt_record_is_left_to_whoever_reports_it():
    """Nothing is folded, nothing leaves."""
    record = long_visit(40)
    record.lines[3] = "[0,"
    before = list(record.lines)
    assert compact(record) == []
    assert record.lines == before


def test_what_was_compacted_can_be_read_as_json():
    """Each line is one, whoever reads it."""
    record = long_visit(40)
    compact(record)
    for line in record.lines:
        offset, _, segments = json.loads(line)
        assert isinstance(offset, int)
        assert segments
