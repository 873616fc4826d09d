"""Opening a session: which open one is joined, and who observes."""

from __future__ import annotations

from typing import Any

from ldclient import Context
from session_values import value

import ldinstrument as ld
from ldinstrument.sessions.current import current_session
from ldinstrument.sessions.opening import observe_sessions, open_session
from ldinstrument.testing import RecordingClient


def test_the_same_name_and_context_joins(ld_events: RecordingClient) -> None:
    """Inner blocks are part of the outer session and do not end it."""
    with ld.session("u-1") as outer, ld.session("u-1") as inner:
        assert inner is outer
    with ld.session("u-1") as outer:
        with ld.session() as inner:
            assert inner is outer
        assert not outer.ended

    assert len(ld_events.of("session.duration")) == 2


def test_another_kind_of_context_is_somebody_else(ld_events: RecordingClient) -> None:
    """An organisation's session inside a user's is not the user's, though they contradict each
    other nowhere.
    """
    with ld.session("u-1") as outer, ld.session(Context.create("acme", "org")) as inner:
        assert inner is not outer

    assert {"u-1", "org:acme"} == {
        event.context.fully_qualified_key for event in ld_events.of("session.duration")
    }


def test_another_id_or_client_is_independent(ld_events: RecordingClient) -> None:
    """Two conversations of one user are two sessions, and so are the same ones at two clients."""
    other = RecordingClient()
    with ld.session("u-1", id="s-1") as outer:
        with ld.session("u-1", id="s-2") as inner:
            assert (inner is outer, inner.id) == (False, "s-2")
        with ld.session("u-1", id="s-1") as inner:
            assert inner is outer
        with ld.session("u-1", client=other) as inner:
            assert inner is not outer
        with (
            ld.session("u-1", client=other) as one,
            ld.session("u-1", client=other) as two,
            ld.session("u-1") as three,
        ):
            assert one is two is three is not outer

    assert len(ld_events.of("session.duration")) == 4


def test_another_name_or_context_is_independent(ld_events: RecordingClient) -> None:
    """The innermost receives; afterwards the outer is current again."""
    ld.catalog.add(value("area.a"))
    with ld.session("u-1") as outer:
        with ld.session("u-2") as inner:
            assert current_session() is inner
            inner.record("area.a", 1)
        with ld.session("u-1", name="chat") as chat:
            assert chat is not outer
        assert current_session() is outer

    assert ld_events.only("area.a").context.key == "u-2"


def test_sessions_are_observed_from_now_on(ld_events: RecordingClient) -> None:
    """One observer for each that is opened; None ends it."""
    heard: list[tuple[str, str]] = []

    class Observer:
        def ended(self, session: Any, reason: str) -> None:
            heard.append((session.name, reason))

    before = open_session("u-1")
    observe_sessions(lambda session: Observer())  # type: ignore[arg-type,return-value]
    try:
        during = open_session("u-1", name="chat")
    finally:
        observe_sessions(None)
    after = open_session("u-1")
    for opened in (before, during, after):
        opened.end("error")
    assert heard == [("chat", "error")]
