"""Deltas in any order, on any store, make the same sessions: the monoid, held to a model."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldinstrument.stores import Delta, MemoryStore, RedisStore, Rules
from ldinstrument.stores.protocol import Operation
from ldinstrument.stores.records import group_key, merge, merge_groups, parsed
from ldinstrument.stores.redis import connect
from ldinstrument.stores.session_store import key_of

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
GROUPS = st.tuples(WHOLE, st.integers(1, 5), AGES, AGES, st.none() | WHOLE).map(
    lambda one: (one[0], one[1], max(one[2], one[3]), min(one[2], one[3]), one[4])
)
DELTAS = st.builds(
    lambda began, last, tallies, context, groups: Delta(
        "s",
        context=context,
        started_ago=max(began, last),
        last_ago=min(began, last),
        tallies=tallies,
        groups=groups,
    ),
    AGES,
    AGES,
    st.tuples(*[st.integers(0, 9)] * 4),
    st.sampled_from(
        [{}, {"user": "ana"}, {"organization": "acme"}, {"user": "ana", "organization": "acme"}]
    ),
    st.dictionaries(GROUP_KEYS, GROUPS, max_size=4),
)
NOW = 1_795_000_000_000


def whole(record):
    """A session without its id, in absolute dates."""
    groups = {
        key: (total, count, record.base + first, record.base + last, value)
        for key, (total, count, first, last, value) in record.groups.items()
    }
    return (
        record.base + record.started,
        record.base + record.last,
        record.context,
        record.tallies,
        groups,
    )


def folded(deltas, now=NOW):
    text = None
    for delta in deltas:
        result = merge(text, delta, now, Rules())
        assert result.ended == []
        text = result.record.text()
    return whole(parsed(text))


@given(st.lists(DELTAS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(deltas, dice):
    """Whichever request reaches the store first, the session is the same."""
    shuffled = list(deltas)
    dice.shuffle(shuffled)

    assert folded(shuffled) == folded(deltas)


@given(st.lists(DELTAS, min_size=1, max_size=6))
def test_a_session_is_what_its_requests_were(deltas):
    """Sums, dates and tallies against a model that knows nothing of folding."""
    started, last, context, tallies, groups = folded(deltas)

    assert started == NOW - max(delta.started_ago for delta in deltas)
    assert last == NOW - min(delta.last_ago for delta in deltas)
    assert tallies == [
        sum(column) for column in zip(*(delta.tallies for delta in deltas), strict=True)
    ]
    assert context == {kind: key for delta in deltas for kind, key in delta.context.items()}
    for key, (total, count, *_rest) in groups.items():
        parts = [delta.groups[key] for delta in deltas if key in delta.groups]
        assert (total, count) == (sum(part[0] for part in parts), sum(part[1] for part in parts))


@given(GROUPS, GROUPS, GROUPS)
def test_groups_are_a_commutative_monoid(one, two, three):
    """Associative and commutative, also where two values are equally late."""
    assert merge_groups(one, two) == merge_groups(two, one)
    assert merge_groups(merge_groups(one, two), three) == merge_groups(
        one, merge_groups(two, three)
    )


@given(DELTAS, st.integers(0, 10**6))
def test_a_delta_that_waited_is_the_same_delta(delta, waited):
    """Bringing it in later changes no date."""
    assert folded([delta.aged(waited)], NOW + waited) == folded([delta])


def test_a_beginning_that_rounding_may_have_moved_joins_nothing():
    """To the millisecond: who began just before the logout's request may as well have waited for
    its answer.
    """
    for ahead, joins in ((0, False), (1, False), (2, True)):
        store = MemoryStore(Rules(), clock=lambda: NOW)
        store.merge("v", Delta("s-1", started_ago=900))
        store.merge("v", Delta("s-2", started_ago=500, ends="ended"))

        assert (store.merge("v", Delta("s-3", started_ago=500 + ahead)).id == "s-1") is joins


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
    for visitor, delta, verb in steps:
        flags = data.draw(st.sampled_from(["", "aaaaaa", "aaaaaabbbbbb"]))
        user = data.draw(st.sampled_from(["ana", "ana", "ben"]))
        context = {kind: user if kind == "user" else key for kind, key in delta.context.items()}
        number = next(numbers)
        began, last = stepped(delta.started_ago), stepped(delta.last_ago)
        sent = Delta(
            f"s-{number}", context=context, started_ago=began, last_ago=last, flags=flags, tallies=delta.tallies,
            groups=delta.groups, joins=verb == "join", ends="out" if verb == "last" else "",
            operation=Operation("w", number),
        )  # fmt: skip
        for place, store in enumerate((redis, memory)):
            if verb == "end":
                text = store.end(visitor, "logout")
                answers[place].append(text and parsed(text).id)
            else:
                answers[place].append(store.merge(visitor, sent))
    for visitor in ("v-1", "v-2"):
        for store in (redis, memory):
            store.end(visitor, "last")

    assert answers[0] == answers[1]
    assert _ended(redis) == _ended(memory)


def _ended(store):
    """What has ended, relative to its own start: the two stores have clocks of their own."""
    found: Counter[object] = Counter()
    for one in store.claim(1000, 60.0, "model"):
        record = parsed(one.text)
        groups = {
            key: (float(total), count) for key, (total, count, *_dates) in record.groups.items()
        }
        found[repr((record.id, record.previous, record.reason, record.part, sorted(record.context.items()),
                    record.tallies, record.flags, sorted(groups.items())))] += 1  # fmt: skip
    return found
