"""What a check looks at, and how long ago something was in words."""

from __future__ import annotations

from typing import Any, cast

import pytest
from traffic_and_findings import VALUE

from ldinstrument.doctor.findings import Subject, ago


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"),
        (0, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (172_799, "48 hours"),
        (172_800, "2 days"),
    ],
)
def test_a_time_is_told_in_the_largest_unit_of_which_there_are_two(
    seconds: float, words: str
) -> None:
    """A clock that is ahead makes nothing negative."""
    assert ago(seconds) == words


def subject(*experiments: dict[str, Any]) -> Subject:
    return Subject("cart.value", cast("Any", None), {}, cast("Any", None), experiments=experiments)


def experiment(flag: str, metric: str, *units: int) -> dict[str, Any]:
    return {"flag": flag, "metrics": [{"metric": metric, "rows": [{"units": n} for n in units]}]}


def test_a_flag_exposes_when_one_of_its_variations_has_units() -> None:
    """For this very metric."""
    found = subject(
        experiment("new-cart", "cart.value", 0, 3),
        experiment("unused", "cart.value", 0, 0),
        experiment("other", "cart.count", 5),
    )
    assert found.exposing_flags == ["new-cart"]


def test_away_from_a_local_launchdarkly_nothing_is_known_of_flags() -> None:
    """Nor of a metric that the code does not declare."""
    found = Subject("cart.value", cast("Any", None), {"cart.value": VALUE}, cast("Any", None))
    assert found.exposing_flags == []
    assert found.declared is VALUE
    assert subject().declared is None
