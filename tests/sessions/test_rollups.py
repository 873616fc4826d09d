"""Folds are a commutative monoid: parts of a session, in any order and from any process, make the
fold of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.metrics.catalogs import EventRouting
from ldinstrument.metrics.metric import Rollup
from ldinstrument.sessions.rollups import MAX_GROUPS, Fold, Group

values = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(-50, 50)),
    min_size=1,
    max_size=12,
    unique_by=lambda v: v[0],
)


def routing(rollup: Rollup, *, numeric: bool = True) -> EventRouting:
    return EventRouting("area.key", numeric, False, rollup, None, frozenset())


def folded(part: Sequence[tuple[int, int]]) -> Group:
    group = Group({"a": 1})
    for at, value in part:
        group.add(value, at)
    return group


@given(values=values, data=st.data())
def test_parts_in_any_order_make_the_whole(
    values: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Total, count, first and last with their dates; an empty part changes nothing."""
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    merged = Group({"a": 1})
    for part in (shuffled[cut:], [], shuffled[:cut]):
        merged.merge(folded(part))

    assert merged == folded(sorted(values)) == folded(shuffled)


@given(values=values)
def test_what_a_group_becomes(values: list[tuple[int, int]]) -> None:
    """Each rollup takes its own from the group, and is dated to where that was."""
    group, ordered = folded(values), sorted(values)
    plain = [value for _, value in values]
    (first, _), (latest, last) = ordered[0], ordered[-1]

    def emitted(rollup: Rollup, *, numeric: bool = True) -> tuple[float | int | None, int, int]:
        one = group.emission(routing(rollup, numeric=numeric))
        return one.value, one.at, one.values

    assert emitted("sum") == (sum(plain), latest, len(plain))
    assert emitted("mean") == (pytest.approx(sum(plain) / len(plain)), latest, len(plain))
    assert emitted("last") == (last, latest, len(plain))
    assert emitted("once", numeric=False) == (None, first, len(plain))


def test_beyond_the_last_group_values_travel_by_themselves() -> None:
    """Data that is different each time folds nothing, and fills no memory with groups."""
    fold = Fold(routing("sum"))
    for n in range(MAX_GROUPS + 3):
        fold.add(1, {"n": n}, n)
        fold.add(1, {"n": 0}, n)

    assert (len(fold.groups), len(fold.loose), len(fold)) == (MAX_GROUPS, 3, MAX_GROUPS + 3)
    taken = list(fold.take())
    assert (sum(one.value or 0 for one in taken), len(fold), list(fold.take())) == (
        2 * (MAX_GROUPS + 3),
        0,
        [],
    )
