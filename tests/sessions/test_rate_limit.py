"""The rate limit outside sessions: a burst, then a trickle; the rest is counted and said."""

from __future__ import annotations

from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.metrics.catalogs import EventRouting, event_routing
from ldinstrument.metrics.metric import Metric, parse_limit
from ldinstrument.sessions.rate_limit import TokenBucket, within_rate
from ldinstrument.sessions.registry import stats
from ldinstrument.testing import RecordingClient


def test_an_idle_limit_saves_up_one_burst() -> None:
    """A night without events is no licence for a million of them in the morning."""
    now = [0.0]
    bucket = TokenBucket(parse_limit("3/s"), lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 3600.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 3599.0  # a clock set back gives nothing, and takes nothing away
    assert not bucket.take()
    now[0] = 3599.4
    assert bucket.take()


def test_the_limit_holds_outside_sessions(ld_events: RecordingClient) -> None:
    """A token bucket per event key; what it withholds is counted; in a session the rollup is the
    limiter.
    """
    ld.catalog.replace(
        ld.Metric(
            "revenue.impact",
            unit="dollars",
            success_criteria="HigherThanBaseline",
            aggregation="sum",
            limit="5/h",
        )
    )
    for _ in range(20):
        ld.track_revenue(1, context="u-1")
    with ld.session("u-1") as s:
        for _ in range(20):
            s.revenue(1)

    assert [1, 1, 1, 1, 1, 20] == ld_events.values("revenue.impact")
    assert stats().values.discarded == {"rate_limited": 15}


def test_a_limit_holds_for_what_comes_after_the_end_of_a_session(
    ld_events: RecordingClient,
) -> None:
    """Nothing folds there any more, so it is as outside of one; inside, the rollup is the
    limiter.
    """
    ld.catalog.add(
        ld.Metric(
            "late.clicks",
            unit="clicks",
            success_criteria="HigherThanBaseline",
            aggregation="sum",
            limit="5/h",
        )
    )
    with ld.session("ada") as held:
        for _ in range(20):
            held.record("late.clicks", 1.0)
    assert ld_events.values("late.clicks") == [20.0]
    for _ in range(20):
        held.record("late.clicks", 1.0)

    assert ld_events.values("late.clicks") == [20.0] + [1.0] * 5
    assert stats().values.discarded == {"rate_limited": 15}
    assert stats().late == 20


def test_a_limit_that_bites_is_said(ld_events: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Outside sessions a limit drops values: counted, and logged once with what to do."""
    ld.catalog.add(
        ld.Metric("e.limited", unit="items", success_criteria="HigherThanBaseline", limit="2/h")
    )

    @ld.track_task("e.task", record={"e.limited": lambda result: 1}, context="u-1")
    def work() -> int:
        return 1

    for _ in range(10):
        work()

    assert ld.stats().values.discarded["rate_limited"] == 8
    assert len([record for record in caplog.records if "limit=" in record.getMessage()]) == 1


def routing(limit: str | None) -> EventRouting:
    made = Metric("r.key", unit="items", success_criteria="HigherThanBaseline", limit=limit)
    return event_routing("r.key", [made])


def test_a_burst_fits_and_then_nothing_until_time_has_passed() -> None:
    """Less than one a second: one token is there at the beginning, and never more."""
    now = [0.0]
    bucket = TokenBucket(parse_limit("0.5/s"), lambda: now[0])
    assert [bucket.take() for _ in range(2)] == [True, False]
    now[0] = 1.9
    assert not bucket.take()
    now[0] = 4.0
    assert [bucket.take() for _ in range(2)] == [True, False]


def test_what_does_not_fit_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A key without a limit always fits; another limit for a key begins anew."""
    assert [within_rate(routing(None)) for _ in range(9)] == [True] * 9
    assert [within_rate(routing("2/h")) for _ in range(5)] == [True, True, False, False, False]
    assert stats().values.discarded == {"rate_limited": 3}
    (line,) = caplog.messages
    assert "limit= of 2 in 3600 s" in line
    assert [within_rate(routing("1/h")) for _ in range(2)] == [True, False]
    assert [within_rate(routing("2/h")) for _ in range(3)] == [True, True, False]
