"""The table of open sessions is capped."""

from __future__ import annotations

import pytest

from ldinstrument.sessions import open_table
from ldinstrument.sessions.registry import open_sessions, stats
from ldinstrument.sessions.scopes import open_session
from ldinstrument.testing import RecordingClient


def test_open_sessions_are_capped(
    ld_events: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is ended as abandoned, and counted."""
    monkeypatch.setattr(open_table, "MAX_OPEN", 3)
    held = [open_session(f"u-{n}") for n in range(5)]

    assert [True, True, False, False, False] == [session.ended for session in held]
    assert stats().evicted_sessions == 2
    assert open_sessions() == held[2:]
    assert all(event.data["endReason"] == "abandoned" for event in ld_events)
