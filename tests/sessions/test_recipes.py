"""The recipe's patterns: in a session, outside one, and for somebody else."""

from __future__ import annotations

from decimal import Decimal

import pytest

import ldinstrument as ld
from ldinstrument.sessions.registry import stats
from ldinstrument.testing import RecordingClient


def test_conversion_sums_with_equal_data(ld_events: RecordingClient) -> None:
    """One event per category, the value in dollars; `config_key` is spelt as on the wire."""
    with ld.session("u-1") as s:
        s.conversion(49.0, category="books", config_key="c-1")
        ld.track_conversion(1, category="books", config_key="c-1")
        ld.track_conversion(Decimal("2.5"), category="games")

    books, games = ld_events.of("business.conversion")
    assert (books.value, books.data) == (50.0, {"category": "books", "configKey": "c-1"})
    assert (games.value, games.data) == (2.5, {"category": "games"})


def test_a_conversion_rate_reads_the_same_events(ld_events: RecordingClient) -> None:
    """An occurrence metric on the conversion's event key needs nothing more."""
    ld.catalog.add(
        ld.Metric("business.conversion_rate", "occurrence", event_key="business.conversion")
    )
    with ld.session("u-1") as s:
        s.conversion(49.0)

    assert [49.0] == ld_events.values("business.conversion")


@pytest.mark.parametrize(("score", "negative"), [(0, 1), (49.9, 1), (50, 0), (100, 0)])
def test_satisfaction_below_50_is_negative_feedback(
    ld_events: RecordingClient, score: float, negative: int
) -> None:
    """Both carry `feedbackType`."""
    ld.track_satisfaction(score, context="u-1", feedback_type="survey")

    assert ld_events.only("user.satisfaction").data == {"feedbackType": "survey"}
    assert [score] == ld_events.values("user.satisfaction")
    assert negative == len(ld_events.of("user.negative_feedback"))


@pytest.mark.parametrize("score", [-1, 101])
def test_a_score_outside_0_to_100_costs_itself(ld_events: RecordingClient, score: int) -> None:
    """It would spoil the average; it is counted."""
    ld.track_satisfaction(score, context="u-1")

    assert len(ld_events) == 0
    assert stats().values.discarded == {"out_of_range": 1}


def test_revenue_only_above_0(ld_events: RecordingClient) -> None:
    """0 and refunds are no revenue; each call outside a session is an event of its own."""
    for amount in (12.5, 0, -3, 7):
        ld.track_revenue(amount, context="u-1", source="upsell")

    assert [12.5, 7] == ld_events.values("revenue.impact")
    assert ld_events.of("revenue.impact")[0].data == {"source": "upsell"}
    assert ["revenue.impact"] == ld_events.keys()


def test_task_success_carries_its_type(ld_events: RecordingClient) -> None:
    """1 and 0, as numbers, each by itself: LaunchDarkly takes the mean."""
    with ld.session("u-1"):
        ld.track_task_success("summarise", True)
        ld.track_task_success("summarise", False)

    assert [1.0, 0.0] == ld_events.values("task.success_rate")
    assert ld_events.of("task.success_rate")[0].data == {"taskType": "summarise"}


def test_feedback_is_a_thumb(ld_events: RecordingClient) -> None:
    """Up is 100, down is 0 and negative feedback."""
    with ld.session("u-1") as s:
        s.feedback(True)
        ld.track_feedback(False, comment="wrong", send_comment=True)

    assert [100, 0] == ld_events.values("user.satisfaction")
    assert ld_events.only("user.negative_feedback").data == {
        "feedbackType": "thumb",
        "comment": "wrong",
    }


def test_a_comment_stays_here(ld_events: RecordingClient) -> None:
    """What a user wrote leaves only when that is asked for."""
    with ld.session("u-1") as s:
        s.feedback(True, comment="my address is ...")
        ld.track_feedback(True, comment="my address is ...")

    assert [{"feedbackType": "thumb"}] * 2 == [
        event.data for event in ld_events.of("user.satisfaction")
    ]


def test_context_chooses_who(ld_events: RecordingClient) -> None:
    """The same somebody: into the session. Somebody else: an event of their own, at once."""
    with ld.session("u-1") as s:
        ld.track_revenue(1, context="u-2")
        assert [1] == ld_events.values("revenue.impact")
        ld.track_revenue(5, context="u-1")
        assert s.summary().interactions == 0

    assert ["u-2", "u-1"] == [event.context.key for event in ld_events.of("revenue.impact")]


def test_client_chooses_where() -> None:
    """`client=` takes the event; nobody else's client is touched."""
    mine, theirs = RecordingClient(), RecordingClient()
    with ld.session("u-1", client=theirs):  # type: ignore[arg-type]
        ld.track_revenue(3, context="u-1", client=mine)  # type: ignore[arg-type]

    assert [3] == mine.values("revenue.impact")
    assert theirs.values("revenue.impact") == []


def test_without_session_and_context_it_is_counted(ld_events: RecordingClient) -> None:
    """Nobody to attribute it to: dropped with its reason, said once, never raised."""
    ld.track_revenue(3)
    ld.track_revenue(4)

    assert stats().values.discarded == {"no_context": 2}
