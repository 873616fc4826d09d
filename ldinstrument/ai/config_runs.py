"""Runs of LaunchDarkly's AI configs: their data as LaunchDarkly's events carry it, by session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from ..sessions.session import Session


@dataclass(frozen=True, slots=True)
class ConfigRun:
    """One run of an AI config.

    Args:
        data: `runId`, `configKey`, `variationKey` and the rest, as LaunchDarkly's own events of
            this run carry it.
    """

    data: dict[str, Any]


_latest: WeakKeyDictionary[Session, ConfigRun] = WeakKeyDictionary()


def note_run(session: Session | None, run: ConfigRun) -> None:
    """Remember *run* as the latest one of *session*."""
    if session is not None:
        _latest[session] = run


def latest_run(session: Session) -> ConfigRun | None:
    """Return the latest run of *session*, or of one around it."""
    around: Session | None = session
    while around is not None:
        if (found := _latest.get(around)) is not None:
            return found
        around = around.outer
    return None


def run_of(data: Mapping[str, Any]) -> ConfigRun | None:
    """Return the run that *data* names; None when it names none."""
    if not isinstance(data.get("runId"), str) or not isinstance(data.get("configKey"), str):
        return None
    return ConfigRun({name: value for name, value in data.items() if value not in (None, "")})
