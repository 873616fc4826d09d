"""What the events of sessions show, from a bounded part of what has arrived."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.readout import session_health
from ldinstrument.devserver.readout.session_health import dilution

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    for i in range(12):
        server.post(exposure(f"u{i}", at=10_000))
        over = event(f"u{i}", 8_000.0, 14_000, key="session.duration", sessionId=f"s{i}")
        server.post(over)
    server.reader.read()
    yield server
    server.database.close()


def test_time_before_the_exposure_dilutes(server):
    """The share of that time is said; other metrics have none."""
    assert dilution(server.database, "session.duration").startswith(
        "12 of 12 sessions that count were active before their exposure, for 50% of their time"
    )
    assert dilution(server.database, "other.key") == ""


def test_only_so_much_of_the_newest_bodies_is_read(server, monkeypatch):
    """Millions of events must not be read for a page: a few sessions say too little then."""
    monkeypatch.setattr(session_health, "MOST_BYTES", 1)
    assert dilution(server.database, "session.duration") == ""
    monkeypatch.setattr(session_health, "MOST_BYTES", 1_500)
    found = dilution(server.database, "session.duration")
    assert found.partition(" of ")[0] in map(str, range(5, 12))


def test_a_session_that_ends_as_it_is_exposed_lies_before_the_exposure():
    """All of its time does; one that was over before is none that counts."""
    server = Server()
    for i in range(6):
        over = 10_000 if i else 9_999
        server.post(exposure(f"u{i}", at=10_000))
        server.post(event(f"u{i}", 8_000.0, over, key="session.duration", sessionId=f"s{i}"))
    server.reader.read()
    assert dilution(server.database, "session.duration").startswith(
        "5 of 5 sessions that count were active before their exposure, for 100% of their time"
    )
    server.database.close()
