"""The event that is being handed over: it carries its own date, and nobody else's."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ldclient import Context

from ldinstrument.ledger import ledger
from ldinstrument.sessions.current_event import CurrentEvent, current_event
from ldinstrument.sessions.emission import emit
from ldinstrument.sessions.rollups import Emission

USER = Context.create("u-1")


def event(key: str, at: int = 1, data: dict[str, Any] | None = None) -> Emission:
    return Emission(key, 1.0, data, at)


def handed(key: str, data: Any = None) -> Any:
    """What the SDK makes of a `track`."""
    return SimpleNamespace(key=key, data=data)


def test_what_a_client_emits_of_ours_meanwhile_changes_nothing() -> None:
    """A client that records something itself inside `track` still hands over the event it was
    given.
    """
    seen: list[tuple[str, str | None]] = []

    class Nested:
        def track(
            self, event_name: str, context: Any, data: Any = None, metric_value: Any = None
        ) -> None:
            if event_name == "outer":
                emit(event("inner"), USER, self)
            seen.append((event_name, current_event.emission and current_event.emission.event_key))

    emit(event("outer"), USER, Nested())
    assert seen == [("inner", "inner"), ("outer", "outer")]
    assert current_event.emission is None


@pytest.mark.parametrize("accepted", [True, False])
def test_an_event_whose_fate_is_known_elsewhere_is_not_counted_twice(accepted: bool) -> None:
    """The event processor took it, and the client raised only then: the processor will say what
    became of it.
    """

    class Failing:
        def track(
            self, event_name: str, context: Any, data: Any = None, metric_value: Any = None
        ) -> None:
            current_event.accepted = accepted
            raise OSError("after the queue")

    emit(event("area.key"), USER, Failing())
    read = ledger.stats().events
    assert (read.emitted, read.pending, dict(read.dropped)) == (
        1,
        int(accepted),
        {} if accepted else {"client_error": 1},
    )


def test_an_event_of_ours_carries_its_date_and_is_answered_for() -> None:
    """Once: what the client tracks afterwards, of its own, has the date that it is given."""
    current = CurrentEvent()
    current.emission = event("area.key", at=1234)
    assert current.date_of(handed("area.key")) == 1234
    assert not current.accepted
    assert current.take(handed("area.key")) == 1234
    assert current.accepted
    assert current.take(handed("area.key")) is None
    assert current.accepted


def test_another_event_meanwhile_has_its_own_date() -> None:
    """A client may track something of its own; one that renames ours hands over the same data."""
    current = CurrentEvent()
    assert current.take(handed("area.key")) is None
    data = {"n": 1}
    current.emission = event("area.key", at=1234, data=data)
    assert current.take(handed("other", {"n": 1})) is None
    assert not current.accepted
    assert current.take(handed("renamed", data)) == 1234
    current.accepted, current.emission = False, event("area.key")
    assert current.take(handed("renamed")) is None


def test_each_thread_has_its_own_event() -> None:
    """What one hands over is nothing to another one."""
    current, seen = CurrentEvent(), []
    current.emission = event("area.key")
    thread = threading.Thread(target=lambda: seen.append((current.emission, current.accepted)))
    thread.start()
    thread.join(20)
    assert seen == [(None, False)]
