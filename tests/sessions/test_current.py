"""The current session: which is innermost, and never one that has ended."""

from __future__ import annotations

import pytest
from session_values import USER

import ldinstrument as ld
from ldinstrument.sessions import current
from ldinstrument.sessions.current import add_finder, current_session, entered, identify
from ldinstrument.sessions.opening import open_session
from ldinstrument.testing import RecordingClient


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

    add_finder(finds_nothing)
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
