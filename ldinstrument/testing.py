"""Test your instrumentation: a client that records instead of sending, a clock that you set, and a
clean slate for every test.

With pytest, ask for the fixtures `ld_events`, `ld_clock`, `ld_strict` and `ld_server`; anywhere
else, `with recording() as events:`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import CellType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from .diagnostics import diagnostics
from .ledger import ledger
from .metrics.catalogs import catalog
from .metrics.standard import STANDARD_METRICS
from .sessions import clients, emission
from .sessions import clock as clocks
from .sessions.current import current_session, set_current
from .sessions.exposures import exposures
from .sessions.outcomes import forget_exceptions
from .sessions.registry import forget_open_sessions, open_sessions, stats
from .sessions.scopes import observe_sessions
from .sessions.unattached import forget_unattached_runs
from .tasks.tracked_functions import forget_functions

if TYPE_CHECKING:
    from ldclient import Context

    from .sessions.session import Session


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One `track` call: what LaunchDarkly would have received."""

    key: str
    context: Context
    data: Any
    value: float | int | None


class RecordingClient:
    """Keeps `track` calls, oldest first. Give it as `client=`, or let `recording()` do it."""

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
        """Return the events with this event key."""
        return [event for event in self.events if event.key == key]

    def values(self, key: str) -> list[float | int | None]:
        """Return the metric values of the events with this event key."""
        return [event.value for event in self.of(key)]

    def keys(self) -> list[str]:
        """Return the event keys, sorted, each once."""
        return sorted({event.key for event in self.events})

    def only(self, key: str) -> RecordedEvent:
        """Return the one event with this event key.

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
    """Record every event of the block, whichever client it was meant for.

    Nothing leaves the process: what an `LDClient` with our event processor tracks by itself is
    recorded, too, its evaluations are noted and go no further, and visits that a store reports are
    recorded.

    Args:
        strict: raise `StrictError` where production would only log a warning.
    """
    client = RecordingClient()
    before = clients.set_recorder(client)
    try:
        with strictly() if strict else nullcontext():
            yield client
    finally:
        emission.settle()
        clients.set_recorder(before)


@contextmanager
def strictly() -> Iterator[None]:
    """Raise `StrictError` in the block where production would only log a warning."""
    before, diagnostics.strict = diagnostics.strict, True
    try:
        yield
    finally:
        diagnostics.strict = before


@contextmanager
def fresh_recording() -> Iterator[RecordingClient]:
    """Record every event of the block, with the ledger at zero and a clean slate after it.

    Sessions that were open before, as a fixture's are, go on, and what they hold stays counted.
    What the block leaves open ends with it.
    """
    before, current_before = open_sessions(), current_session()
    _forget_all_but(before)
    try:
        with recording() as client:
            try:
                yield client
            finally:
                for session in open_sessions():
                    if session not in before:
                        session.end("abandoned")
    finally:
        _forget_all_but(before)
        set_current(current_before)


def _forget_all_but(kept: list[Session]) -> None:
    held = stats().values.open if kept else 0
    strict = diagnostics.strict  # the other fixture's, whichever of the two comes first
    forget_everything(keeping=kept)
    diagnostics.strict = strict
    ledger.count(recorded=held)


class FakeClock:
    """The clock that durations and dates are made of, while it is installed: it stands still.

    Args:
        seconds: what it shows.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self) -> float:
        """Return what it shows, in seconds."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        if seconds < 0:
            raise ValueError("a clock goes forward: advance() takes seconds from 0 on")
        self._seconds += seconds


@contextmanager
def fake_clock() -> Iterator[FakeClock]:
    """Let durations and dates follow a clock that the block sets: `clock.advance(1.5)`.

    Functions that are decorated already follow it, too. Time-outs, stores and what your program
    reads by itself go by the real time.
    """
    real, fake = clocks.clock, FakeClock(clocks.clock())
    # Half a millisecond off, so that no rounding of a date depends on how long ago the epoch is.
    date = int(fake() * 1000 + clocks.wall_offset()) + 0.5
    offset, wall = date / 1000 - fake(), clocks.wall
    clocks.wall = SimpleNamespace(time=lambda: fake() + offset)
    _replace_everywhere(real, fake)
    try:
        yield fake
    finally:
        _replace_everywhere(fake, real)
        clocks.wall = wall


def _replace_everywhere(old: Any, new: Any) -> None:
    """Put *new* in the place of *old* in our modules, and in the functions compiled for users."""
    frozen = gc.get_freeze_count()
    if frozen:  # what is frozen is hidden from `get_referrers`
        gc.unfreeze()
    # No closure in here: its cell would be a referrer, too.
    for holder in gc.get_referrers(old):
        if isinstance(holder, CellType):
            holder.cell_contents = new
        elif isinstance(holder, dict) and str(holder.get("__name__")).startswith(_PACKAGE):
            for name, value in list(holder.items()):
                if value is old:
                    holder[name] = new
    if frozen:
        gc.freeze()


_PACKAGE = f"{__package__}."


def forget_everything(keeping: Collection[Session] = ()) -> None:
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
    observe_sessions(None)
    memory_spool = sys.modules.get("ldinstrument.delivery.memory_spool")
    if memory_spool is not None:
        memory_spool.memory_spool.clear()
    catalog.forget_callbacks()
    catalog.clear()
    catalog.add(*STANDARD_METRICS)
