"""Sessions under LDINSTRUMENT_DISABLED: everything works, and nothing leaves."""

from __future__ import annotations

import os

import pytest
from session_values import USER, expose

import ldinstrument as ld
from ldinstrument import settings
from ldinstrument.sessions.current import current_session
from ldinstrument.sessions.inert import InertSession
from ldinstrument.sessions.postponed import postpone
from ldinstrument.sessions.registry import open_sessions, stats
from ldinstrument.sessions.scopes import open_session
from ldinstrument.testing import RecordingClient


def test_disabled_makes_everything_inert(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LDINSTRUMENT_DISABLED=1: everything works, nothing is recorded, sent, counted or said."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")

    @ld.track_task("area.work")
    def work() -> int:
        return 7

    with ld.session("u-1") as s:
        s.record("nobody.declared", float("nan"))
        s.conversion("x")
        s.identify("u-2")
        s.add_data(step=1)
        expose("flag", USER)
        s.see_exposure(USER)
        assert work() == 7
        assert s.summary().tasks == {}
    work()
    ld.track_revenue(3)

    assert len(ld_events) == 0
    assert stats().values.recorded == 0
    assert stats().warnings == {}


def test_what_makes_it_inert_may_come_and_go(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session asks anew: the environment, whatever stands for it by now, and scans."""
    with settings.scan_in_progress(), ld.session("u-1"):
        assert type(open_session("u-1")) is InertSession
    monkeypatch.setattr(os, "environ", {**os.environ, "LDINSTRUMENT_DISABLED": "1"})
    with ld.session("u-1"):
        assert type(open_session("u-1")) is InertSession
    assert len(ld_events) == 0

    monkeypatch.setattr(os, "environ", {})
    with ld.session("u-1"):
        pass
    assert len(ld_events.of("session.duration")) == 1


def test_an_inert_session_lives_and_ends_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is current inside its block, keeps its id, and has nothing for a store."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    with ld.session("u-1", id="s-1", name="chat") as s:
        assert current_session() is s
        assert (s.id, s.name, s.context, s.ended) == ("s-1", "chat", None, False)
        s.interaction()
        assert s.summary().interactions == 0
    assert s.ended
    assert open_session("u-1").hand_over() is None


def test_tracked_functions_leave_nothing_in_it(
    monkeypatch: pytest.MonkeyPatch, ld_events: RecordingClient
) -> None:
    """However many run: what they append is dropped as it fills."""

    @ld.track_task("area.work")
    def work() -> None: ...

    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    with ld.session("u-1") as s:
        for _ in range(5000):
            work()
        assert len(s.entries) < 5000
    assert len(ld_events) == 0


def test_it_sends_nothing_of_others(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What finalizers have left waits for a session that counts."""
    done: list[str] = []
    postpone(lambda: done.append("postponed"))
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    with ld.session("u-1"):
        assert (done, open_sessions()) == ([], [])
    monkeypatch.delenv("LDINSTRUMENT_DISABLED")
    with ld.session("u-1"):
        assert done == ["postponed"]
