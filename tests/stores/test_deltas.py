"""Deltas: what a part of a session adds to it: ages, keys, what it ends; the line that says the
rest, written and read.
"""

from __future__ import annotations

import json

import pytest
from drawn_deltas import AGES, GROUP_KEYS, GROUPS, NOW
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.sessions.rollups import Group
from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores.deltas import (
    OLDEST_EXPOSURE,
    UNREADABLE,
    StoredSegment,
    decoded,
    delta_of,
    encoded,
    group_key,
    group_parts,
    key_named,
    keys_of,
    mark_of,
    mark_of_text,
    named,
    utf8,
)
from ldinstrument.stores.deltas import merged as merged_group
from ldinstrument.testing import RecordingClient


def part_of_two_identities():
    """Ana spent 5 and 7, then Ben came; they were here for two seconds, and nothing followed."""
    session = open_session("ana", client=RecordingClient(), data={"plan": "pro"})
    session.revenue(5)
    session.revenue(7)
    part = session.hand_over()
    (ana,) = part.segments
    ben = ana.replace(
        keys={"user": "ben"},
        first=part.over - 900,
        last=part.over - 500,
        began=ana.began - 0.9,
        active=ana.began - 0.5,
        groups=(),
    )
    return part.replace(age=2000, idle=500, segments=(ana, ben))


def test_a_part_becomes_a_delta():
    """Ages by the worker's clock, whose it was and became, its values counted, the end named."""
    part = part_of_two_identities()
    delta = delta_of(part, ends="logout")
    assert (delta.id, delta.context, delta.becomes) == (part.id, {"user": "ana"}, {"user": "ben"})
    assert (delta.values, delta.ends, delta.data) == (2, "logout", '{"plan":"pro"}')
    assert (delta.started_ago, delta.last_ago, delta.now) == (2000, 500, part.over)
    read = list(decoded(f"[0,{delta.segments}]", delta.names))
    assert [segment.keys for segment in read if segment.values] == [(("user", "ana"),)]
    assert [group.total for segment in read for group in segment.values.values()] == [12]


def test_what_was_exposed_longer_ago_than_a_session_lasts_is_left_out():
    """It divides nothing that is in it."""
    part = open_session("ana", client=RecordingClient()).hand_over()
    dates = {"old": part.over - OLDEST_EXPOSURE, "new": part.over - OLDEST_EXPOSURE + 1}
    assert delta_of(part.replace(exposures=dates)).exposures == {mark_of("new"): dates["new"]}


# -- lines -----------------------------------------------------------------------------------------

HOUR = 3_600_000

SEGMENTS = st.lists(
    st.builds(
        lambda ages, key, tallies, groups, shift: StoredSegment(
            keys_of({"user": key} if key else {}),
            NOW - max(ages),
            NOW - min(ages),
            tallies,
            {name: Group(None, *fields) for name, fields in groups.items()},
            NOW - max(ages) + shift,
            NOW - min(ages) + shift,
        ),
        st.tuples(AGES, AGES),
        st.text(max_size=3),
        st.tuples(*[st.integers(0, 9)] * 4),
        st.dictionaries(GROUP_KEYS, GROUPS, max_size=3),
        st.sampled_from([0, 5, -5, HOUR, -HOUR]),
    ),
    min_size=1,
    max_size=4,
)


@given(SEGMENTS, st.sampled_from([0, 7, -7]))
def test_what_is_read_is_what_was_written(segments, offset):
    """Dates, keys, tallies and folded values; what the store's clock says is moved by the offset,
    also where the worker's was set meanwhile.
    """
    names: dict[str, str] = {}
    read = list(decoded(f"[{offset},{encoded(segments, names)}]", names, 3))
    assert {segment.line for segment in read} == {3}
    for segment in read:
        segment.line = 0
        segment.started -= offset
        segment.ended -= offset
    assert read == segments


def test_a_line_leaves_out_what_follows_from_the_rest():
    """One value at the date of its segment is its total alone; zeros at the end are not written."""
    group = Group(None, 5.0, 1, NOW, NOW)
    names: dict[str, str] = {}
    segment = StoredSegment((("user", "ana"),), NOW, NOW, (1, 0, 0, 0), {"s1revenue\n": group})
    _, _, ((keys, first, length, tallies, groups),) = json.loads(f"[0,{encoded([segment], names)}]")
    assert (keys, first, length, tallies) == ({"user": "ana"}, 0, 0, [1])
    assert list(groups.values()) == [5.0]
    assert json.loads(f"[0,{encoded([StoredSegment((), NOW, NOW)], {})}]") == [0, NOW, [[]]]


def test_keys_that_were_active_before_the_first_entry_are_told():
    """A request that begins before what it recorded begins its visit then."""
    segment = StoredSegment((("user", "ana"),), NOW, NOW, (1, 0, 0, 0))
    line = f"[10,{encoded([segment], {}, started=NOW - 500)}]"
    before, same = decoded(line, {})
    assert (before.keys, before.first, before.started) == (segment.keys, NOW - 500, NOW - 490)
    assert (before.tallies, before.values) == ((0, 0, 0, 0), {})
    assert (same.first, same.tallies) == (NOW, (1, 0, 0, 0))


def test_a_beginning_is_dated_by_the_clock_that_held_then():
    """A worker's clock that was set forward by an hour after the first entry moves its age to no
    other date.
    """
    segment = StoredSegment((), NOW, NOW, started=NOW + HOUR, ended=NOW + HOUR)
    line = f"[10,{encoded([segment], {}, started=NOW + HOUR - 500)}]"
    before, same = decoded(line, {})
    assert (before.first, before.started) == (NOW - 500, NOW + HOUR - 490)
    assert (same.first, same.started, same.ended) == (NOW, NOW + HOUR + 10, NOW + HOUR + 10)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[0,",
        "{}",
        "[0,1]",
        "[0,1,[5]]",
        "[0,1,[[[],0,0,[1]]]]",
        '[0,1,[[{},0,0,[1],{"no":1}]]]',
    ],
)
def test_a_corrupt_line_is_one_of_the_named_errors(line):
    """Whoever reads it catches these, and nothing else."""
    with pytest.raises(UNREADABLE):
        list(decoded(line, {}))


def test_a_folded_value_that_is_no_number_is_refused():
    """It would be read as something else."""
    segment = StoredSegment((), NOW, NOW, values={"s1a\n": Group(None, "5", 1, NOW, NOW)})
    with pytest.raises(TypeError, match="number"):
        encoded([segment], {})


@given(st.text(max_size=20), st.sampled_from(["sum", "last", "once"]), st.booleans())
def test_a_group_key_says_all_that_a_sweeper_needs(event_key, rollup, numeric):
    """Rollup, kind of metric, event key and data, without a catalog; a key may hold a newline."""
    key = group_key(event_key, rollup, numeric, '{"plan": "pro"}')
    assert group_parts(key) == (rollup[0], numeric, event_key, '{"plan": "pro"}')


@pytest.mark.parametrize("data", ["", '{"a": 1}', '{"plan": "professional"}'])
def test_a_mark_stands_for_a_group_key(data):
    """Five characters; long data has a mark of its own, which all keys with it share."""
    names: dict[str, str] = {}
    keys = [group_key(event_key, "sum", True, data) for event_key in "ab"]
    marks = [named(key, names) for key in keys]
    assert {len(mark) for mark in marks} == {5}
    assert [key_named(mark, names) for mark in marks] == keys
    assert len(names) == (3 if len(data) > 12 else 2)
    with pytest.raises(KeyError):
        key_named(mark_of_text("unknown"), names)


def test_keys_are_ordered_and_have_no_lone_surrogates():
    """No store can carry those."""
    keys = {"user": "a\ud800", "organization": "acme"}
    assert keys_of(keys) == (("organization", "acme"), ("user", "a?"))
    assert utf8(keys) == {"user": "a?", "organization": "acme"}
    assert len(mark_of_text("\ud800")) == 5
    assert mark_of("\ud800") == mark_of("?")


def test_merging_leaves_both_as_they_are():
    """The whole is a value of its own."""
    mine, more = Group(None, 1.0, 1, 10, 10), Group(None, 2.0, 1, 5, 5)
    first = StoredSegment((), 10, 20, (1, 0, 0, 0), {"a": mine}, 11, 21)
    second = StoredSegment((), 5, 15, (0, 2, 0, 0), {"a": more, "b": more}, 6, 16)
    whole = first.merge(second)
    assert (whole.first, whole.last, whole.started, whole.ended) == (5, 20, 6, 21)
    assert whole.tallies == (1, 2, 0, 0)
    assert whole.values["a"] == merged_group(mine, more) == Group(None, 3.0, 2, 5, 10)
    assert (mine.total, more.total, whole.values["b"].total) == (1.0, 2.0, 2.0)
    assert whole.values["b"] is not more
