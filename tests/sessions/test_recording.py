"""What a program says becomes samples: LaunchDarkly's recipe, without a session or a client; and
whose they are: as given, identified or adopted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from ldclient import Context
from session_values import adds_up, expose, keys, multi, value

import ldinstrument as ld
from ldinstrument.sessions.clock import clock
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.recording import SampleRecorder
from ldinstrument.sessions.registry import stats
from ldinstrument.testing import RecordingClient


class Recorder(SampleRecorder):
    """Keeps its samples."""

    def __init__(self) -> None:
        self.samples: list[Any] = []

    def append(self, entry: Any) -> None:
        self.samples.append(entry)

    def told(self) -> list[tuple[str, float | None, Mapping[str, Any] | None]]:
        """Event key, value and data of each recorded value."""
        return [(routing.event_key, value, data) for routing, value, data, *_ in self.samples]


@pytest.fixture(name="said")
def _said() -> Recorder:
    return Recorder()


def test_an_interaction_ends_as_it_is_said(said: Recorder) -> None:
    """An outcome stays itself; anything else is a success or a failure."""
    for success in (True, False, "yes", 0, Outcome.ABANDONED, Outcome.FAILURE):
        said.interaction(success)  # type: ignore[arg-type]
    assert [outcome for _, outcome, *_ in said.samples] == [
        Outcome.SUCCESS,
        Outcome.FAILURE,
        Outcome.SUCCESS,
        Outcome.FAILURE,
        Outcome.ABANDONED,
        Outcome.FAILURE,
    ]


def test_an_interaction_is_dated_now_unless_it_says_when(said: Recorder) -> None:
    """By the clock that measures everything here."""
    before = clock()
    said.interaction()
    said.interaction(at=12.5)
    (_, _, started, ended, _), (_, _, *given, _) = said.samples
    assert before <= started == ended <= clock()
    assert given == [12.5, 12.5]


def test_the_recipe_has_launchdarklys_names(said: Recorder) -> None:
    """Event keys, and the words of their data on the wire; other words stay as they are."""
    said.conversion(9.5, config_key="prompt", plan="pro")
    said.satisfaction(80, feedback_type="survey")
    said.revenue(3, task_type="x")
    said.task_success("search", True, config_key="prompt")
    said.task_success("search", False)
    assert said.told() == [
        ("business.conversion", 9.5, {"configKey": "prompt", "plan": "pro"}),
        ("user.satisfaction", 80, {"feedbackType": "survey"}),
        ("revenue.impact", 3, {"taskType": "x"}),
        ("task.success_rate", 1.0, {"configKey": "prompt", "taskType": "search"}),
        ("task.success_rate", 0.0, {"taskType": "search"}),
    ]


@pytest.mark.parametrize(
    ("score", "negative"), [(0, True), (49.9, True), (50, False), (100, False)]
)
def test_a_score_below_50_is_negative_feedback(
    said: Recorder, score: float, negative: bool
) -> None:
    """Both ends of the scale belong to it."""
    said.satisfaction(score)
    keys = [key for key, _, _ in said.told()]
    assert keys == ["user.satisfaction", *["user.negative_feedback"] * negative]


@pytest.mark.parametrize("score", [-0.1, 100.1, "5", None, float("nan")])
def test_a_score_that_is_none_is_counted_once(said: Recorder, score: Any) -> None:
    """And makes nobody unhappy."""
    said.satisfaction(score)
    assert said.samples == []
    assert sum(stats().values.discarded.values()) == 1


@pytest.mark.parametrize(("value", "recorded"), [(0, False), (-3, False), (0.01, True)])
def test_only_revenue_above_0_is_any(said: Recorder, value: float, recorded: bool) -> None:
    """What is no number is counted, as everywhere; 0 is no mistake."""
    said.revenue(value)
    assert bool(said.samples) is recorded
    assert not stats().values.discarded
    said.revenue("5")
    assert stats().values.discarded == {"not_a_number": 1}


def test_a_comment_stays_here_unless_it_may_leave(said: Recorder) -> None:
    """A thumb down is a score of 0 and negative feedback."""
    said.feedback(True, comment="lovely")
    said.feedback(False, comment="no", send_comment=True, plan="pro")
    thumb = {"feedbackType": "thumb"}
    assert said.told() == [
        ("user.satisfaction", 100, thumb),
        ("user.satisfaction", 0, {**thumb, "comment": "no", "plan": "pro"}),
        ("user.negative_feedback", None, {**thumb, "comment": "no", "plan": "pro"}),
    ]


def test_late_identity(ld_events: RecordingClient) -> None:
    """What was recorded before anybody was known belongs to whom identify() names."""
    ld.catalog.add(value("area.a"))
    with ld.session() as s:
        s.record("area.a", 1)
        s.identify("u-1")

    assert {"u-1"} == {event.context.key for event in ld_events}
    assert [1] == ld_events.values("area.a")


def test_another_key_emits_what_was_recorded_under_the_old_one(ld_events: RecordingClient) -> None:
    """Login: the visitor's sum is the visitor's, the user's the user's."""
    ld.catalog.add(value("area.sum", aggregation="sum"))
    with ld.session("visitor") as s:
        s.record("area.sum", 1)
        s.identify("u-1")
        s.record("area.sum", 10)

    assert [("visitor", 1), ("u-1", 10)] == [
        (event.context.key, event.value) for event in ld_events.of("area.sum")
    ]


def test_an_inherited_identity_is_emitted_before_another_takes_over(
    ld_events: RecordingClient,
) -> None:
    """A chat without identity of its own was the request's user's until it says otherwise."""
    ld.catalog.add(value("area.sum", aggregation="sum"))
    with ld.session("visitor", name="request"), ld.session(name="chat") as s:
        s.record("area.sum", 1)
        s.identify("u-1")
        s.record("area.sum", 10)

    assert [("visitor", 1), ("u-1", 10)] == [
        (event.context.key, event.value) for event in ld_events.of("area.sum")
    ]


def test_another_kind_widens(ld_events: RecordingClient) -> None:
    """Identifying a kind that was not known yet loses nothing."""
    with ld.session("u-1") as s:
        s.identify(Context.create("acme", "org"))

    assert {"user", "org"} == set(ld_events.only("session.duration").context.to_dict()) - {"kind"}


def test_no_identity_at_the_end_is_counted(ld_events: RecordingClient) -> None:
    """Dropped with its reason; said once; nothing raised."""
    with ld.session() as s:
        s.interaction()

    assert len(ld_events) == 0
    assert stats().values.discarded == {"no_context": 3}
    assert adds_up()


def test_a_session_that_ended_before_its_request_was_known(ld_events: RecordingClient) -> None:
    """A chat in a request whose login comes later is that user's; nobody else's client gets it."""
    other = RecordingClient()
    with ld.session(name="request") as request:
        with ld.session(name="chat") as chat:
            chat.revenue(1)
            with ld.session(name="step"):
                pass
        chat.revenue(2)
        with ld.session(name="elsewhere", client=other):
            pass
        assert len(ld_events) == 0
        request.identify("u-1")

    assert {"u-1"} == {event.context.key for event in ld_events}
    assert {"request.duration", "chat.duration", "step.duration", "revenue.impact"} <= set(
        ld_events.keys()
    )
    assert sorted(value or 0 for value in ld_events.values("revenue.impact")) == [1, 2]
    assert stats().values.discarded == {"no_context": 2}
    assert adds_up()


def test_exposures_give_identity_and_evaluations_do_not(ld_events: RecordingClient) -> None:
    """A session without identity adopts an exposure's context; one that shares a kind and agrees
    widens it; another user's, and one of another kind, change nothing.
    """
    with ld.session() as s:
        s.see_exposure(multi(user="u-1", request="r-1"))
        s.see_exposure(Context.create("u-2"))
        s.see_exposure(Context.create("acme", "org"))
    with ld.session("u-9") as t:
        t.see_exposure(Context.builder("u-9").set("plan", "pro").build())
        t.see_exposure(Context.create("u-1"))

    first, second = ld_events.of("session.duration")
    assert {"user": "u-1", "request": "r-1"} == keys(first.context)
    assert second.context.get("plan") == "pro"


def test_the_items_of_a_list_do_not_label_the_session(ld_events: RecordingClient) -> None:
    """A flag that is evaluated for each item shows nobody's session."""
    with ld.session("u-1") as s:
        for n in range(3):
            expose("item-flag", Context.create(f"item-{n}", "item"))
            s.record(value("r.shown"), n)

    assert [{"user": "u-1"}] * 3 == [keys(event.context) for event in ld_events.of("r.shown")]


def test_a_fresh_request_beside_a_steady_user_is_one_session(ld_events: RecordingClient) -> None:
    """Each value carries the request that it was recorded in; the user's account goes on."""
    with ld.session("u-1") as s:
        for n in range(4):
            expose("flag", multi(user="u-1", request=f"r-{n}"))
            s.record(value("r.each"), n)
            s.interaction()

    assert [{"user": "u-1", "request": f"r-{n}"} for n in range(4)] == [
        keys(event.context) for event in ld_events.of("r.each")
    ]
    totals = ld_events.of("session.success_rate")
    users = [event for event in totals if "user" in keys(event.context)]
    assert [4] == [event.data["interactions"] for event in users]
    assert {f"r-{n}" for n in range(1, 4)} <= {
        keys(event.context).get("request") for event in totals
    }
    reasons = [event.data["endReason"] for event in totals if keys(event.context).get("request")]
    assert sorted(reasons) == ["ended", "identified", "identified", "identified"]


def test_a_bare_exposure_never_replaces_a_richer_identity(ld_events: RecordingClient) -> None:
    """LaunchDarkly would forget the attributes."""
    with ld.session(Context.builder("u-1").name("Ana").build()) as s:
        s.see_exposure(Context.create("u-1"))

    assert ld_events.only("session.duration").context.name == "Ana"


def test_an_heir_keeps_what_it_recorded_under_the_old_identity(ld_events: RecordingClient) -> None:
    """A login in the request around a chat does not rewrite the chat's past."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    with ld.session("visitor", name="request") as request, ld.session(name="chat") as chat:
        chat.record("r.sum", 1)
        request.identify("u-1")
        chat.record("r.sum", 2)

    assert [("visitor", 1), ("u-1", 2)] == [
        (event.context.key, event.value) for event in ld_events.of("r.sum")
    ]


def test_learning_who_it_is_is_no_activity(ld_events: RecordingClient) -> None:
    """A session that is identified at its start and records nothing lasts as long as its block."""
    with ld.session() as s:
        s.identify("u-1")
        time.sleep(0.03)

    assert ld_events.only("session.duration").value >= 30


def test_none_as_user_waits_for_identity(ld_events: RecordingClient) -> None:
    """None is somebody not known yet, not an error."""
    ld.catalog.add(value("in.value"))
    with ld.session(None) as s:
        s.record("in.value", 1)
        s.identify("u-1")

    assert [1] == ld_events.values("in.value")
