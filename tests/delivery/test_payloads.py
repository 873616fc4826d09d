"""A payload by itself: halves, ages, ids."""

from __future__ import annotations

import gzip
import json

import pytest

from ldinstrument.delivery.payloads import Payload, join


def _texts(count: int) -> list[str]:
    return [
        json.dumps({"kind": "custom", "key": f"e.{n}"}, separators=(",", ":")) for n in range(count)
    ]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_split_loses_nothing_and_makes_new_ids(zipped):
    """Halves, until single events remain."""
    payload = join(_texts(5), zipped)
    leaves, splitting = [], [payload]
    while splitting:
        one = splitting.pop(0)
        heirs = one.halves()
        splitting += heirs
        if not heirs:
            leaves.append(one)
    keys = [
        json.loads(gzip.decompress(leaf.body) if zipped else leaf.body)[0]["key"] for leaf in leaves
    ]
    assert keys == [f"e.{n}" for n in range(5)]
    assert len({leaf.id for leaf in [payload, *leaves]}) == 6
    assert [leaf.custom for leaf in leaves] == [1] * 5


def test_halves_are_as_old_as_what_they_were():
    """Splitting is no new beginning: what has waited for a day is a day old, in memory and in a
    spool.
    """
    payload = Payload(join(_texts(4), False).body, 4, 4, sealed_at=1_000.0, age_from=2_000.0)
    assert [(half.sealed_at, half.age_from) for half in payload.halves()] == [
        (1_000.0, 2_000.0)
    ] * 2
