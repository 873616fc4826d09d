"""Deltas drawn at random, and the record that several of them make; `conftest` lends this module to
the tests.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from stores_builders import delta

from ldinstrument.stores import Rules
from ldinstrument.stores.deltas import group_key
from ldinstrument.stores.records import merge, readable
from ldinstrument.stores.replay import events_of

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
    for change in deltas:
        result = merge(text, change, now, Rules())
        assert result.ended is None
        text = result.record.text()
    return readable(text)


def events(record):
    """The events of a record, and for whom they are, in any order."""
    found = events_of(record, Rules())
    return Counter(repr((event, keys)) for event, keys in [*found.values, *found.totals])
