"""Whose a session is: as given, identified or adopted; and what leaves when it changes hands."""

from __future__ import annotations

import time

from ldclient import Context
from session_values import adds_up, expose, keys, multi, value

import ldinstrument as ld
from ldinstrument.sessions.registry import stats
from ldinstrument.testing import RecordingClient


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
