"""Records: short text that any worker can read; deltas in any order, on any store, make the same
sessions.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter

import pytest
from drawn_deltas import AGES, DELTAS, NOW, WHOLE, events, made, merged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores_builders import delta, end, tallies_of

from ldinstrument.stores import MemoryStore, RedisStore, Rules
from ldinstrument.stores.protocol import Operation
from ldinstrument.stores.records import readable
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
    claimed = []
    # What ended at one moment of one store's clock may be two batches by the other's.
    while batch := store.claim(1000, 60.0, "model", early=True):
        claimed += batch
    for session in claimed:
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
