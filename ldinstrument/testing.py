"""Test your instrumentation: a client that records instead of sending, and a clean slate for every
test.

With pytest, ask for the fixture `ld_events`; anywhere else, `with recording() as events:`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .diagnostics import diagnostics
from .ledger import ledger
from .metrics.catalogs import catalog
from .metrics.standard import STANDARD_METRICS
from .sessions import clients, emission
from .sessions.current import current_session, set_current
from .sessions.exposures import exposures
from .sessions.outcomes import forget_exceptions
from .sessions.registry import OpenSession, forget_open_sessions, open_sessions, stats
from .sessions.unattached import forget_unattached_runs
from .tasks.tracked_functions import forget_functions

if TYPE_CHECKING:
    from ldclient import Context


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One `track` call: what LaunchDarkly would have received."""

    key: str
    context: Context
    data: Any
    value: float | int | None


class RecordingClient:
    """Takes `track` calls and keeps them, oldest first. Give it as `client=`, or let `recording()`
    do it.
    """

    sees_exposures = True
    """Sums fold as they do for a client whose exposures are seen."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []

    def track(
        self,
        event_name: str,
        context: Context,
        data: Any | None = None,
        metric_value: Any | None = None,
    ) -> None:
        """Record one event."""
        self.events.append(RecordedEvent(event_name, context, data, metric_value))

    def of(self, key: str) -> list[RecordedEvent]:
        """The events with this event key."""
        return [event for event in self.events if event.key == key]

    def values(self, key: str) -> list[float | int | None]:
        """The metric values of the events with this event key."""
        return [event.value for event in self.of(key)]

    def keys(self) -> list[str]:
        """The event keys, sorted, each once."""
        return sorted({event.key for event in self.events})

    def only(self, key: str) -> RecordedEvent:
        """The one event with this event key.

        Raises:
            AssertionError: there is none, or more than one; says which keys there are.
        """
        found = self.of(key)
        if len(found) != 1:
            raise AssertionError(
                f"expected one event {key!r}, found {len(found)}; recorded keys: {self.keys()}"
            )
        return found[0]

    def clear(self) -> None:
        """Forget what was recorded."""
        self.events.clear()

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[RecordedEvent]:
        return iter(self.events)


@contextmanager
def recording(*, strict: bool = False) -> Iterator[RecordingClient]:
    """Record every event of the block, whichever client it was meant for; nothing leaves the
    process.

    Args:
        strict: raise `StrictError` where production would only log a complaint.
    """
    client = RecordingClient()
    before, strict_before = emission.set_recorder(client), diagnostics.strict
    diagnostics.strict = strict
    try:
        yield client
    finally:
        emission.settle()
        emission.set_recorder(before)
        diagnostics.strict = strict_before


@contextmanager
def fresh_recording() -> Iterator[RecordingClient]:
    """Record every event of the block, with the ledger at zero and a clean slate after it.

    Sessions that were open before, as a fixture's are, go on; what they hold stays counted.
    """
    before = open_sessions()
    held = stats().values.open if before else 0
    forget_everything(keeping=before)
    ledger.recorded(held)
    with recording() as client:
        yield client
    forget_everything(keeping=before)


def forget_everything(keeping: Collection[OpenSession] = ()) -> None:
    """Forget open sessions, runs without one, held events and the ledger; the catalog stays.

    Args:
        keeping: open sessions that go on.
    """
    forget_open_sessions(keeping)
    exposures.clear()
    clients.forget()
    forget_unattached_runs()
    emission.forget()
    ledger.clear()
    diagnostics.clear()
    diagnostics.strict = False
    if current_session() is None:
        set_current(None)


def reset() -> None:
    """Forget everything global: open sessions, ledger, held events, and the catalog but for the
    standard metrics.
    """
    forget_everything()
    forget_functions()
    forget_exceptions()
    undelivered = sys.modules.get("ldinstrument.delivery.undelivered")
    if undelivered is not None:
        undelivered.undelivered.clear()
    catalog.clear()
    catalog.add(*STANDARD_METRICS)
