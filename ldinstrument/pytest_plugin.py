"""The pytest fixtures. Kept tiny: pytest imports it before anything else, coverage included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .devserver import LocalLaunchDarkly
    from .testing import FakeClock, RecordingClient


@pytest.fixture(name="ld_events")
def _ld_events() -> Iterator[RecordingClient]:
    """Record the events of a test instead of sending them; the ledger begins at zero.

    A session that was opened before, by another fixture, goes on.
    """
    from . import testing

    with testing.fresh_recording() as client:
        yield client


@pytest.fixture(name="ld_strict")
def _ld_strict() -> Iterator[None]:
    """Raise `StrictError` where production would only log a warning."""
    from . import testing

    with testing.strictly():
        yield


@pytest.fixture(name="ld_clock")
def _ld_clock() -> Iterator[FakeClock]:
    """Let durations and dates follow a clock that the test sets: `ld_clock.advance(1.5)`."""
    from . import testing

    with testing.fake_clock() as clock:
        yield clock


@pytest.fixture(name="ld_server")
def _ld_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalLaunchDarkly]:
    """Run a local LaunchDarkly on a free port, with `LDINSTRUMENT_URL` set to it.

    `ld_server.faults` makes it fail as servers do.
    """
    from .devserver import LocalLaunchDarkly

    with LocalLaunchDarkly() as server:
        monkeypatch.setenv("LDINSTRUMENT_URL", server.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        yield server
