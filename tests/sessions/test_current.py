"""The current session: which is innermost, which joins, and never one that has ended."""

from __future__ import annotations

from typing import Any

import pytest
from ldclient import Context
from session_values import USER, value

import ldinstrument as ld
from ldinstrument.sessions import current
from ldinstrument.sessions.current import (
    add_finder,
    current_session,
    entered,
    identify,
    observe_sessions,
    open_session,
)
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


def test_a_nested_session_without_identity_is_of_the_outer_ones(ld_events: RecordingClient) -> None:
    """A chat inside a request belongs to the request's user."""
    with ld.session("u-1", name="request"), ld.session(name="chat"):
        pass

    assert ld_events.only("chat.duration").context == USER


def test_current_session_never_answers_an_ended_one(ld_events: RecordingClient) -> None:
    """An ended inner session falls back to the open outer one, then to None."""
    with ld.session("u-1") as outer:
        with ld.session("u-2") as inner:
            inner.end()
            assert current_session() is outer
        outer.end()
        assert current_session() is None


def test_a_session_is_current_only_where_it_is_entered(ld_events: RecordingClient) -> None:
    """Also nobody's: what was current before is current again, whatever came out."""
    opened = open_session("u-1")
    assert current_session() is None
    with pytest.raises(KeyError), entered(opened):
        with entered(None) as nobody:
            assert current_session() is nobody is None
        assert current_session() is opened
        raise KeyError
    assert current_session() is None
    opened.end()


def test_work_whose_session_has_ended_asks_for_another(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finders are asked in turn, and only where a session was; each is added once."""
    monkeypatch.setattr(current, "_finders", [])
    ended, found = open_session("u-1"), open_session("u-2")
    ended.end()
    asked: list[str] = []

    def finds_nothing() -> None:
        asked.append("nothing")

    for _ in range(2):
        add_finder(finds_nothing)
        add_finder(lambda: found)
    assert current_session() is None
    assert asked == []
    with entered(ended):
        assert current_session() is found
    assert asked == ["nothing"]
    found.end()


def test_identify_names_whose_the_current_session_is(ld_events: RecordingClient) -> None:
    """Without a session it does nothing."""
    identify("u-1")
    with ld.session() as s:
        identify("u-1")
        assert s.context == USER


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
