"""What a call of a model is worth at its end: values by suffix, and the data of its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..metrics.catalogs import EventRouting, catalog
from ..metrics.model_calls import ai_metrics
from ..sessions.clock import clock
from ..sessions.session import Session
from .config_runs import CallEnd
from .cost import Cost
from .usage import Generation, Usage


@dataclass(frozen=True, slots=True)
class CallValues:
    """What a call is worth.

    Args:
        values: of its metrics, by suffix.
        data: of its events.
        end: what the run of an AI config is told.
    """

    values: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    end: CallEnd = field(default_factory=lambda: CallEnd(Generation(), 0.0, None))

    @property
    def described(self) -> dict[str, Any]:
        """Return values and data together."""
        return {**self.data, **self.values}


def values_of(known: Generation, cost: Cost | None) -> dict[str, Any]:
    """Return the values that are known, by suffix."""
    usage = known.usage or Usage()
    found = {
        "tokens.input": usage.input,
        "tokens.output": usage.output,
        "tokens.total": usage.total,
        "tokens.cached": usage.cached,
        "tokens.reasoning": usage.reasoning,
        "cost": None if cost is None else float(cost.dollars),
        "tool_calls": known.tool_calls,
        "attempts": known.attempts,
    }
    return {suffix: value for suffix, value in found.items() if value is not None}


def times_of(started: float, pieces: int, first: float, last: float) -> dict[str, float]:
    """Return the milliseconds that a stream took which wrote so many *pieces*, by suffix.

    Args:
        started: clock seconds.
        pieces: one or more.
        first, last: when the first and the last one came, in clock seconds.
    """
    found = {"time_to_first_token": (first - started) * 1000}
    if pieces > 1:
        found["time_per_chunk"] = (last - first) * 1000 / (pieces - 1)
    return found


def data_of(known: Generation, cost: Cost | None) -> dict[str, Any]:
    """Return the top-level data: LaunchDarkly's event filters see nothing deeper."""
    found = {
        "model": known.model,
        "provider": known.provider,
        "finishReason": known.finish_reason,
        "usage": known.usage and known.usage.state,
        "priceVersion": cost and cost.version,
    }
    return {name: value for name, value in found.items() if value is not None}


def routing_of(task: str, suffix: str, metrics: Mapping[str, str]) -> EventRouting:
    """Return how values of the metric with this *suffix* travel.

    Args:
        task: the key of the task, for which a metric is declared that the catalog has lost (tests
            clear it).
        suffix: of the metric, which is one of *metrics*.
        metrics: event key by suffix.
    """
    key = metrics[suffix]
    if key not in catalog:
        catalog.declare_implied(task, [key], lambda: [ai_metrics(task, [suffix])[suffix]])
    return catalog.routing(key)


def append_times(
    session: Session, task: str, metrics: Mapping[str, str], times: Mapping[str, float], data: Any
) -> None:
    """Give *session* what was measured of a stream, as far as it is wanted: nothing to check."""
    now = clock()
    for suffix, value in times.items():
        if suffix in metrics:
            session.append((routing_of(task, suffix, metrics), value, data, now, None))
