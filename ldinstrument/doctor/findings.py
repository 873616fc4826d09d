"""What a check says, and what it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..metrics.metric import Metric
from ..rest import MetricsAPI, RemoteMetric

Status = Literal["ok", "warning", "broken", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One link of the chain.

    Args:
        check: which link.
        status: `broken` stops the walk; `unknown` could not be looked at.
        what: what was seen.
        why: why it matters; empty when all is well.
        command: what mends it, or where to look next.

    """

    check: str
    status: Status
    what: str
    why: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the checks of one metric look at.

    Args:
        key: the metric's key.
        api: the project.
        wanted: what the code declares, by key.
        found: the metric in LaunchDarkly.
        health: what a local LaunchDarkly found; None elsewhere.
        experiments: the read-out of a local LaunchDarkly; None elsewhere.
        programs: what programs have told a local LaunchDarkly of themselves.
    """

    key: str
    api: MetricsAPI
    wanted: dict[str, Metric]
    found: RemoteMetric
    health: tuple[dict[str, Any], ...] | None = None
    experiments: tuple[dict[str, Any], ...] | None = None
    programs: tuple[dict[str, Any], ...] = ()

    @property
    def exposing_flags(self) -> list[str]:
        """The flags whose experiments expose units for this metric, on a local LaunchDarkly."""
        return [
            experiment["flag"]
            for experiment in self.experiments or ()
            for metric in experiment["metrics"]
            if metric["metric"] == self.key and any(row["units"] for row in metric["rows"])
        ]

    @property
    def declared(self) -> Metric | None:
        """The definition in the code, None when the code has none."""
        return self.wanted.get(self.key)


def ago(seconds: float) -> str:
    """How long *seconds* are, in one word and its number."""
    for length, word in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {word}"
    return f"{max(0, seconds):.0f} seconds"
