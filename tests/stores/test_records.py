"""Deltas in any order, on any store, make the same sessions: the monoid, held to a model."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores_builders import delta, end, tallies_of

from ldinstrument.stores import MemoryStore, RedisStore, Rules
from ldinstrument.stores.compaction import compact
from ldinstrument.stores.deltas import group_key
from ldinstrument.stores.protocol import Operation
from ldinstrument.stores.records import merge, readable
from ldinstrument.stores.redis_client import connect
from ldinstrument.stores.replay import events_of
from ldinstrument.stores.session_store import key_of

NOW = 1_795_000_000_000
AGES = st.integers(0, 100_000)
WHOLE = st.integers(-(2**40), 2**40).map(float)  # sums of these are exact in any order
GROUP_KEYS = st.sampled_from(
    [
        group_key(key, rollup, rollup != "once", data)
        for key in "ab"
        for rollup in ("sum", "last", "once")
        for data in ("", '{"x": 1}')
    ]
)
GROUPS = st.tuples(WHOLE, st.integers(1, 5), AGES, AGES, st.none() | WHOLE, st.none() | WHOLE).map(
    lambda drawn: (
        drawn[0],
        drawn[1],
        NOW - max(drawn[2:4]),
        NOW - min(drawn[2:4]),
        drawn[4],
        drawn[5],
    )
)
CONTEXTS = st.sampled_from(
    [{}, {"user": "ana"}, {"organization": "acme"}, {"user": "ana", "organization": "acme"}]
)
DELTAS = st.fixed_dictionaries(
    {
        "ages": st.tuples(AGES, AGES),
        "tallies": st.tuples(*[st.integers(0, 9)] * 4),
        "context": CONTEXTS,
        "groups": st.dictionaries(GROUP_KEYS, GROUPS, max_size=4),
        "exposures": st.dictionaries(st.sampled_from("xyz"), AGES.map(lambda age: NOW - age)),
    }
)


def made(drawn, id="s", now=NOW, **fields):
    """A delta of what was drawn."""
    ages = {"started_ago": max(drawn["ages"]), "last_ago": min(drawn["ages"])}
    rest = {name: drawn[name] for name in ("tallies", "context", "groups", "exposures")}
    return delta(id, now=now, **{**ages, **rest, **fields})


def merged(deltas, now=NOW):
    """The record that the deltas make, in this order."""
    text = None
    for one in deltas:
        result = merge(text, one, now, Rules())
        assert result.ended is None
        text = result.record.text()
    return readable(text)


def events(record):
    """The events of a record, and for whom they are, in any order."""
    found = events_of(record, Rules())
    return Counter(repr((event, keys)) for event, keys in [*found.values, *found.totals])


@given(st.lists(DELTAS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(drawn, dice):
    """Whichever request reaches the store first, the events are the same."""
    drawn = [one | {"context": {"user": "ana"}} for one in drawn]
    shuffled = list(drawn)
    dice.shuffle(shuffled)

    assert events(merged(map(made, shuffled))) == events(merged(map(made, drawn)))


@given(st.lists(DELTAS, min_size=1, max_size=6))
def test_a_session_is_what_its_requests_were(drawn):
    """Dates and tallies against a model that knows nothing of segments."""
    record = merged(map(made, drawn))

    assert record.opened_at + record.started == NOW - max(max(one["ages"]) for one in drawn)
    assert record.opened_at + record.last == NOW - min(min(one["ages"]) for one in drawn)
    assert tallies_of(record) == [
        sum(column) for column in zip(*(one["tallies"] for one in drawn), strict=True)
    ]
    assert record.keys == {kind: key for one in drawn for kind, key in one["context"].items()}
    for mark, date in record.exposures.items():
        assert date == min(
            made(one).exposures[mark] for one in drawn if mark in made(one).exposures
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


@settings(max_examples=40)
@given(st.lists(DELTAS, min_size=2, max_size=20), st.data())
def test_compacting_changes_no_event(drawn, data):
    """A long visit is folded on the way: together, the parts are what it would have been."""
    fresh = data.draw(st.booleans())
    deltas = []
    for number, one in enumerate(drawn):
        context = {"user": "ana", "request": f"r-{number}"} if fresh else {"user": "ana"}
        age = 1000 * (len(drawn) - number)
        groups = {
            key: (*group[:2], NOW - age, NOW - age, *group[4:])
            for key, group in one["groups"].items()
        }
        changed = {"context": context, "ages": (age, age), "groups": groups}
        deltas.append(made(one | changed))
    whole, long = merged(deltas), merged(deltas)
    parts = compact(long)
    again = readable(long.text())

    assert again.lines == long.lines
    together = sum((events(readable(part.text())) for part in parts), events(again))
    assert {event: count for event, count in together.items() if "values=0" not in event} == {
        event: count for event, count in events(whole).items() if "values=0" not in event
    }


@given(DELTAS, st.integers(0, 10**6))
def test_a_delta_that_waited_is_the_same_delta(drawn, waited):
    """Bringing it in later changes no date, and no duration."""
    assert events(merged([made(drawn).aged(waited)], NOW + waited)) == events(merged([made(drawn)]))


@given(st.lists(DELTAS, min_size=1, max_size=5), st.integers(-(10**7), 10**7))
def test_the_stores_clock_dates_no_event(drawn, ahead):
    """Dates are the worker's, which dates the exposures; a server's clock may be elsewhere."""
    drawn = [one | {"context": {"user": "ana"}} for one in drawn]

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
