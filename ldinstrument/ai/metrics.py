"""The metrics that model calls feed beside those of their task, as LaunchDarkly's own are defined:
values, averaged, lower is better, units without events left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..metrics.metric import Metric

_METRICS: dict[str, tuple[str, str]] = {
    "time_to_first_token": (
        "milliseconds",
        "From the start of a call to the first thing that the model wrote, at the consumer; of "
        "streams that wrote something.",
    ),
    "tokens.input": ("tokens", "Tokens read per call, those from a cache included."),
    "tokens.output": ("tokens", "Tokens written per call, those of reasoning included."),
    "tokens.total": ("tokens", "Tokens read and written per call."),
    "tokens.cached": ("tokens", "Of the tokens read per call, those from a cache."),
    "tokens.reasoning": ("tokens", "Of the tokens written per call, those of reasoning."),
    "cost": (
        "dollars",
        "Cost per call whose tokens and price are known; `priceVersion` in the data.",
    ),
    "tool_calls": ("count", "Tool calls that the model asked for, per call."),
    "attempts": ("count", "Requests per call, retries included, where the SDK tells them."),
}
AI_METRICS: tuple[str, ...] = tuple(_METRICS)
_HIGHER = ("tokens.cached",)


def ai_metrics(key: str, which: Iterable[str] = AI_METRICS) -> dict[str, Metric]:
    """Return the metrics that the calls of the task *key* feed, by suffix."""
    return {suffix: _metric(key, suffix) for suffix in which}


def _metric(key: str, suffix: str) -> Metric:
    unit, description = _METRICS[suffix]
    fields: dict[str, Any] = {"unit": unit, "description": description}
    fields["name"] = f"{key}: {suffix.replace('_', ' ').replace('.', ', ')}"
    fields["success_criteria"] = "HigherThanBaseline" if suffix in _HIGHER else "LowerThanBaseline"
    return Metric(f"{key}.{suffix}", **fields)
