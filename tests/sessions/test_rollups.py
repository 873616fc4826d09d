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
from ldinstrument.sessions.rollups import MAX_GROUPS, Emission, Fold, Group

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


def taken(fold: Fold) -> list[Emission]:
    """Everything that *fold* holds, as events."""
    groups = [
        event for routed, group in fold.take_groups(once=True) for event in group.events(routed)
    ]
    return groups + fold.take_loose()


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
    latest, last = ordered[-1]

    def emitted(rollup: Rollup) -> tuple[float | int | None, int, int]:
        (event,) = group.events(routing(rollup))
        return event.value, event.at, event.values

    assert emitted("sum") == (sum(plain), latest, len(plain))
    assert emitted("mean") == (pytest.approx(sum(plain) / len(plain)), latest, len(plain))
    assert emitted("last") == (last, latest, len(plain))


@given(values=values)
def test_an_occurrence_becomes_its_first_and_its_last(values: list[tuple[int, int]]) -> None:
    """Whenever an exposure was, it counts exactly when it happened after it; values are counted
    once.
    """
    dates = sorted(at for at, _ in values)
    events = folded(values).events(routing("once", numeric=False))

    assert [event.value for event in events] == [None] * len(events)
    assert sorted({dates[0], dates[-1]}) == [event.at for event in events]
    assert sum(event.values for event in events) == len(values)
    for exposed_at in range(1001):
        assert any(at >= exposed_at for at in dates) == any(
            event.at >= exposed_at for event in events
        )


def test_an_occurrence_on_a_numeric_key_carries_no_value() -> None:
    """A 0 would be a value of the metric that is fed by the same event key."""
    fold = Fold(routing("sum"))
    fold.add(None, None, 5)
    assert [(event.value, event.at) for event in taken(fold)] == [(None, 5)]
    fold.add(None, None, 5)
    fold.add(10, None, 6)
    fold.add(None, None, 7)
    assert [(event.value, event.at) for event in taken(fold)] == [(None, 5), (None, 7), (10, 6)]


def test_an_exposure_divides_sums_and_leaves_occurrences() -> None:
    """First and last occurrence are right for every exposure; a sum is not."""
    sums, occurrences = Fold(routing("sum")), Fold(routing("once", numeric=False))
    for fold in (sums, occurrences):
        fold.add(1 if fold is sums else None, None, 5)
    assert len(list(sums.take_groups(once=False))) == 1
    assert list(occurrences.take_groups(once=False)) == []
    assert len(list(occurrences.take_groups(once=True))) == 1


def test_beyond_the_last_group_values_travel_by_themselves() -> None:
    """Data that is different each time folds nothing, and fills no memory with groups."""
    fold = Fold(routing("sum"))
    for n in range(MAX_GROUPS + 3):
        fold.add(1, {"n": n}, n)
        fold.add(1, {"n": 0}, n)

    assert (len(fold.groups), len(fold.loose), len(fold)) == (MAX_GROUPS, 3, MAX_GROUPS + 3)
    assert sum(event.value or 0 for event in taken(fold)) == 2 * (MAX_GROUPS + 3)
    assert (len(fold), taken(fold)) == (0, [])
