"""What a test's client was given of the model calls of one key."""

from __future__ import annotations

from typing import Any

from ldinstrument.testing import RecordingClient


def values(events: RecordingClient, key: str = "k") -> dict[str, list[float]]:
    """The values by suffix."""
    return {
        event_key.removeprefix(f"{key}."): [float(value or 0) for value in events.values(event_key)]
        for event_key in events.keys()  # noqa: SIM118
        if event_key.startswith(f"{key}.")
    }


def data(events: RecordingClient, suffix: str = "success_rate") -> dict[str, Any]:
    """The data of the one event with this suffix."""
    found: dict[str, Any] = events.only(f"k.{suffix}").data or {}
    return found
