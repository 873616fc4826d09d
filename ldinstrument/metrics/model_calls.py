"""The metrics that model calls feed beside those of their task, as LaunchDarkly's own are defined:
values, averaged, lower is better, units without events left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .metric import Metric
from .standard import DEFAULT_TASK_METRICS

_METRICS: dict[str, tuple[str, str]] = {
    "time_to_first_token": (
        "milliseconds",
        "From the start of a call to the first thing that the model wrote, at the consumer; of "
        "streams that wrote something.",
    ),
    "time_per_chunk": (
        "milliseconds",
        "From one thing that the model wrote to the next, at the consumer, on average over the "
        "call; of streams that wrote two or more.",
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
    "inference_calls": ("count", "Calls of a model per operation, such as one run of an agent."),
}
AI_METRICS: tuple[str, ...] = tuple(_METRICS)
DEFAULT_AI_METRICS = (
    *DEFAULT_TASK_METRICS["track_interaction"],
    *(suffix for suffix in AI_METRICS if suffix != "inference_calls"),
)
"""What `track_ai` feeds when `metrics=` is left out."""
AGENT_METRICS = (*DEFAULT_TASK_METRICS["track_interaction"], "inference_calls", "tool_calls")
"""What a run of an agent feeds that OpenTelemetry's spans tell of."""
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


# -- LaunchDarkly's recipe for AI configs ----------------------------------------------------------

QUALITY_ACCURACY = Metric(
    "quality.accuracy",
    unit="percent",
    success_criteria="HigherThanBaseline",
    name="Accuracy of answers",
    description="How accurate an answer is, 0 to 100, as a judge or a check of yours scores it.",
)
QUALITY_RELEVANCE = Metric(
    "quality.relevance",
    unit="percent",
    success_criteria="HigherThanBaseline",
    name="Relevance of answers",
    description="How relevant an answer is, 0 to 100, as a judge or a check of yours scores it.",
)
TASK_COMPLETION = Metric(
    "ai.task.completion",
    unit="ratio",
    success_criteria="HigherThanBaseline",
    name="Tasks completed by AI",
    description="1 for a task that was completed, 0 for one that was not.",
)
RECOMMENDATION_CONVERSION = Metric(
    "ai.recommendation.conversion",
    measure="occurrence",
    success_criteria="HigherThanBaseline",
    name="Recommendation followed",
    description="Somebody did what was recommended.",
)
AI_RECIPE_METRICS = (
    QUALITY_ACCURACY,
    QUALITY_RELEVANCE,
    TASK_COMPLETION,
    RECOMMENDATION_CONVERSION,
)
"""Metrics of LaunchDarkly's recipe that nothing feeds by itself: `session.record(QUALITY_ACCURACY,
80)` adds one to the catalog.
"""
