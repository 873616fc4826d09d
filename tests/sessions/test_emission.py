"""From a value to `track`: in which order, how often, and what a client may do meanwhile."""

from __future__ import annotations

import os

import pytest
from ldclient import Context

from ldinstrument import sdk
from ldinstrument.ledger import ledger
from ldinstrument.sessions import emission
from ldinstrument.sessions.emission import emit
from ldinstrument.sessions.rollups import Emission
from ldinstrument.testing import RecordingClient

USER = Context.create("u-1")


@pytest.fixture(autouse=True)
def _no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "singleton_client", lambda: None)


def event(key: str, at: int = 1) -> Emission:
    return Emission(key, 1.0, None, at)


def test_held_events_leave_before_the_one_that_finds_a_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were meant for the `ldclient` singleton: a client that somebody names does not get
    them.
    """
    singleton, named = RecordingClient(), RecordingClient()
    emit(event("early"), USER, None)
    emit(event("named"), USER, named)
    monkeypatch.setattr(sdk, "singleton_client", lambda: singleton)
    emit(event("late"), USER, None)

    assert [event.key for event in named] == ["named"]
    assert [event.key for event in singleton] == ["early", "late"]


def test_what_waits_for_a_client_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first, and are counted."""
    monkeypatch.setattr(emission, "HELD_EVENTS", 3)
    for n in range(5):
        emit(event(f"area.{n}"), USER, None)
    late = RecordingClient()
    emission.release_held(late)

    assert [event.key for event in late] == ["area.2", "area.3", "area.4"]
    assert dict(ledger.stats().values.discarded) == {"no_client": 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_waits_in_a_parent_is_not_sent_by_its_child() -> None:
    """Held events are copied by a fork; only one of the two may hand them over."""
    emit(event("parents"), USER, None)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        emit(event("childs"), USER, None)
        late = RecordingClient()
        emission.release_held(late)
        os.write(writer, " ".join(event.key for event in late).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == "childs"
    os.waitpid(child, 0)
    late = RecordingClient()
    emission.release_held(late)
    assert [event.key for event in late] == ["parents"]


def test_a_key_from_outside_makes_no_log_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With `LDINSTRUMENT_DEBUG`, a context's key and an event's are one line, without escapes."""
    monkeypatch.setenv("LDINSTRUMENT_DEBUG", "1")
    context = Context.create("u\nERROR forged\x1b[31m")
    emit(event("bought\r\nERROR forged"), context, RecordingClient())
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("event bought")
    assert line.isprintable()


def test_a_line_per_event_may_be_asked_for_at_any_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also by another mapping in the place of `os.environ`."""
    monkeypatch.delenv("LDINSTRUMENT_DEBUG", raising=False)
    context = Context.create("u")
    emit(event("bought"), context, RecordingClient())
    monkeypatch.setattr(os, "environ", {"LDINSTRUMENT_DEBUG": "1"})
    emit(event("sold"), context, RecordingClient())
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("event sold")
