"""Records: short text that any worker can read; deltas in any order, on any store, make the same
sessions.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter

import pytest
from drawn_deltas import AGES, DELTAS, GROUP_KEYS, GROUPS, NOW, WHOLE, events, made, merged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores_builders import delta, end, tallies_of

from ldinstrument.sessions.rollups import Group
from ldinstrument.stores import MemoryStore, RedisStore, Rules
from ldinstrument.stores.protocol import Operation
from ldinstrument.stores.records import (
    UNREADABLE,
    StoredSegment,
    decoded,
    encoded,
    group_key,
    group_parts,
    key_named,
    keys_of,
    mark_of,
    mark_of_text,
    named,
    readable,
    utf8,
)
from ldinstrument.stores.records import merged as merged_group
from ldinstrument.stores.redis_client import connect
from ldinstrument.stores.replay import events_of
from ldinstrument.stores.session_store import key_of


@given(st.lists(DELTAS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(drawn, dice):
    """Whichever request reaches the store first, the events are the same."""
    drawn = [change | {"context": {"user": "ana"}} for change in drawn]
    shuffled = list(drawn)
    dice.shuffle(shuffled)

    assert events(merged(map(made, shuffled))) == events(merged(map(made, drawn)))


@given(st.lists(DELTAS, min_size=1, max_size=6))
def test_a_session_is_what_its_requests_were(drawn):
    """Dates and tallies against a model that knows nothing of segments."""
    record = merged(map(made, drawn))

    assert record.opened_at + record.started == NOW - max(max(change["ages"]) for change in drawn)
    assert record.opened_at + record.last == NOW - min(min(change["ages"]) for change in drawn)
    assert tallies_of(record) == [
        sum(column) for column in zip(*(change["tallies"] for change in drawn), strict=True)
    ]
    assert record.keys == {kind: key for change in drawn for kind, key in change["context"].items()}
    for mark, date in record.exposures.items():
        assert date == min(
            made(change).exposures[mark] for change in drawn if mark in made(change).exposures
        )


RECORDED = st.lists(
    st.tuples(WHOLE, AGES, st.sampled_from(["", '{"x":1}'])), min_size=1, max_size=9
)


@given(RECORDED, st.dictionaries(st.sampled_from("xyz"), AGES))
def test_values_fold_between_exposures_only(recorded, exposures):
    """Sums per data and stretch between two exposures, against a model that adds one by one."""
    deltas = [
        delta(
            context={"user": "ana"},
            groups={f"s1money\n{data}": (value, 1, NOW - age, NOW - age, None, None)},
            started_ago=age,
            last_ago=age,
            now=NOW,
            exposures={name: NOW - ago for name, ago in exposures.items()},
        )
        for value, age, data in recorded
    ]
    expected: Counter[tuple[str, int]] = Counter()
    for value, age, data in recorded:
        expected[data, sum(ago >= age for ago in set(exposures.values()))] += value

    found = [event for event, _ in events_of(merged(deltas), Rules()).values]

    assert sorted(event.value for event in found) == sorted(expected.values())
    assert sum(event.values for event in found) == len(recorded)


@given(DELTAS, st.integers(0, 10**6))
def test_a_delta_that_waited_is_the_same_delta(drawn, waited):
    """Bringing it in later changes no date, and no duration."""
    assert events(merged([made(drawn).aged(waited)], NOW + waited)) == events(merged([made(drawn)]))


@given(st.lists(DELTAS, min_size=1, max_size=5), st.integers(-(10**7), 10**7))
def test_the_stores_clock_dates_no_event(drawn, ahead):
    """Dates are the worker's, which dates the exposures; a server's clock may be elsewhere."""
    drawn = [change | {"context": {"user": "ana"}} for change in drawn]

    assert events(merged(map(made, drawn), NOW + ahead)) == events(merged(map(made, drawn)))


def test_a_beginning_that_rounding_may_have_moved_joins_nothing():
    """To the millisecond: who began just before the logout's request may as well have waited for
    its answer.
    """
    for ahead, joins in ((0, False), (1, False), (2, True)):
        store = MemoryStore(Rules(), clock=lambda: NOW)
        store.merge("v", delta("s-1", started_ago=900, now=NOW))
        store.merge("v", delta("s-2", started_ago=500, now=NOW, ends="ended"))
        third = store.merge("v", delta("s-3", started_ago=500 + ahead, now=NOW))

        assert (third.id == "s-1") is joins


def test_a_very_long_visitor_is_stored_under_its_digest():
    """Somebody's own ids may be of any length; a key is not, and stays that visitor's."""
    one, other = key_of("session", "x" * 10_000), key_of("session", "x" * 9_999 + "y")

    assert one != other
    assert max(len(one), len(other)) < 200
    assert key_of("session", "v-1") == "session:v-1"


@pytest.fixture(scope="module", name="client")
def _client(redis_server):
    client = connect(redis_server.url, timeout=10.0)
    yield client
    client.close()


# Ages in steps of ten seconds around a limit of 25: the seconds that the test itself takes decide
# nothing.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["v-1", "v-2"]),
        DELTAS,
        st.sampled_from(["merge", "merge", "merge", "join", "last", "end"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS, st.sampled_from([25.0, 1800.0]), st.sampled_from([65.0, 86_400.0]), st.data())
def test_redis_does_what_memory_does(client, steps, idle, maximum, data):
    """The Lua and the Python are one: the same steps end the same sessions, for the same
    reasons.
    """

    def stepped(age):
        return age // 10_000 * 10_000

    rules = Rules(idle=idle, maximum=maximum)
    redis = RedisStore(client, rules, prefix=f"model-{uuid.uuid4().hex[:8]}")
    memory, numbers = MemoryStore(rules, clock=lambda: NOW), itertools.count()
    answers: list[list[object]] = [[], []]
    for visitor, drawn, verb in steps:
        user = data.draw(st.sampled_from(["ana", "ana", "ben"]))
        context = {kind: user if kind == "user" else key for kind, key in drawn["context"].items()}
        number = next(numbers)
        sent = made(
            drawn | {"context": context, "ages": tuple(map(stepped, drawn["ages"]))},
            f"s-{number}",
            joins=verb == "join",
            ends="out" if verb == "last" else "",
            operation=Operation("w", number),
        )
        for place, store in enumerate((redis, memory)):
            if verb == "end":
                text = end(store, visitor, "logout")
                answers[place].append(text and readable(text).id)
            else:
                answers[place].append(store.merge(visitor, sent))
    for visitor in ("v-1", "v-2"):
        for store in (redis, memory):
            end(store, visitor, "last")

    assert answers[0] == answers[1]
    assert _ended(redis) == _ended(memory)


def _ended(store):
    """What has ended, but for what the clocks of the two stores say."""
    found: Counter[object] = Counter()
    for session in store.claim(1000, 60.0, "model", early=True):
        record = readable(session.text)
        segments = [line.partition(",")[2] for line in record.lines]
        found[
            repr(
                (
                    record.id,
                    record.previous,
                    record.reason,
                    record.part,
                    sorted(record.keys.items()),
                    sorted(record.exposures.items()),
                    segments,
                )
            )
        ] += 1
    return found


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
