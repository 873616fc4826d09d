"""Metric definitions: what LaunchDarkly must know about an event so that it counts.

The rules come from LaunchDarkly's metrics API (the fields of `MetricPost`), from what its analysis
does with them, and from the rollups that turn the many values of one session into few events
without changing that analysis.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from .metric import Metric

# -- what sessions and tasks emit by themselves --------------------------------------------------


_SESSION_METRICS: dict[str, dict[str, Any]] = {
    "duration": {
        "unit": "milliseconds",
        "success_criteria": "LowerThanBaseline",
        "description": "From the start of a session to its last activity.",
    },
    "success_rate": {
        "unit": "percent",
        "success_criteria": "HigherThanBaseline",
        "description": "Successful interactions of all that succeeded or failed, 0 to 100, per "
        "session that had any.",
    },
    "interactions": {
        "unit": "count",
        "success_criteria": "HigherThanBaseline",
        "aggregation": "sum",
        "description": "Interactions that succeeded or failed, per session.",
    },
    "successes": {
        "unit": "count",
        "success_criteria": "HigherThanBaseline",
        "aggregation": "sum",
        "description": "Interactions that succeeded, per session; unlike all interactions, retries "
        "do not add to it.",
    },
    "unfinished": {
        "unit": "ratio",
        "success_criteria": "LowerThanBaseline",
        "description": "1 for a session that was abandoned, 0 for one that ended otherwise.",
    },
}

SESSION_METRICS: tuple[str, ...] = tuple(_SESSION_METRICS)
DEFAULT_SESSION_METRICS = ("duration", "success_rate", "interactions")
"""What sessions and boundaries feed when `metrics=` is left out."""


@functools.lru_cache(maxsize=256)
def session_metrics(
    name: str = "session", which: tuple[str, ...] = DEFAULT_SESSION_METRICS
) -> tuple[Metric, ...]:
    """Return the metrics of the sessions called *name*, by suffix."""
    return tuple(
        Metric(
            f"{name}.{suffix}",
            name=f"{name}: {suffix.replace('_', ' ')}",
            **_SESSION_METRICS[suffix],
        )
        for suffix in which
    )


_TASK_METRICS: dict[str, dict[str, Any]] = {
    "success_rate": {
        "unit": "ratio",
        "success_criteria": "HigherThanBaseline",
        "description": "1 for a run that succeeded, 0 for one that failed; cancelled and abandoned "
        "runs are left out.",
    },
    "duration": {
        "unit": "milliseconds",
        "success_criteria": "LowerThanBaseline",
        "description": "Wall time of a finished run, from its start to its end.",
    },
    "unfinished": {
        "unit": "ratio",
        "success_criteria": "LowerThanBaseline",
        "description": "1 for a run that was cancelled or abandoned, 0 for one that succeeded or "
        "failed.",
    },
    "within": {
        "unit": "ratio",
        "success_criteria": "HigherThanBaseline",
        "description": "1 for a run that succeeded within the time of within=, 0 for any other "
        "that was started.",
    },
    "time_to_first_item": {
        "unit": "milliseconds",
        "success_criteria": "LowerThanBaseline",
        "description": "From the start of a stream to its first item.",
    },
}


def task_metrics(
    key: str, which: Iterable[str] = ("success_rate", "duration")
) -> dict[str, Metric]:
    """Return the metrics that the runs of the task *key* feed, by suffix."""
    return {
        suffix: Metric(
            f"{key}.{suffix}", name=f"{key}: {suffix.replace('_', ' ')}", **_TASK_METRICS[suffix]
        )
        for suffix in which
    }


TASK_METRICS: tuple[str, ...] = tuple(_TASK_METRICS)
DEFAULT_TASK_METRICS: Mapping[str, tuple[str, ...]] = {
    "track_task": ("success_rate", "duration"),
    "track_interaction": ("success_rate", "duration", "unfinished"),
}
"""What each decorator feeds when `metrics=` is left out."""

REQUEST_METRICS: tuple[Metric, ...] = (
    Metric(
        "http.request.duration_ms",
        unit="milliseconds",
        success_criteria="LowerThanBaseline",
        analysis_units=("request",),
        name="http: request duration",
        description="From the start of a request to the last byte of its complete response.",
    ),
    *(
        Metric(
            f"http.response.{family}",
            measure="occurrence",
            success_criteria="LowerThanBaseline",
            analysis_units=("request",),
            name=f"http: response {family}",
            description=f"Requests that were answered with a status of {family}.",
        )
        for family in ("4xx", "5xx")
    ),
)
"""What boundaries feed with `request_metrics=True`, for contexts of kind `request`."""

BUSINESS_CONVERSION = Metric(
    "business.conversion",
    unit="dollars",
    success_criteria="HigherThanBaseline",
    aggregation="sum",
    name="Conversion value",
    description="Value of conversions. A conversion rate is an occurrence metric on the same event "
    "key.",
)
REVENUE_IMPACT = Metric(
    "revenue.impact",
    unit="dollars",
    success_criteria="HigherThanBaseline",
    aggregation="sum",
    name="Revenue impact",
    description="Revenue; `source` in the data says where it came from.",
)
USER_SATISFACTION = Metric(
    "user.satisfaction",
    unit="percent",
    success_criteria="HigherThanBaseline",
    name="User satisfaction",
    description="Satisfaction score, 0 to 100; `feedbackType` in the data.",
)
NEGATIVE_FEEDBACK = Metric(
    "user.negative_feedback",
    measure="occurrence",
    success_criteria="LowerThanBaseline",
    name="Negative feedback",
    description="A satisfaction score below 50, or a thumb down.",
)
TASK_SUCCESS = Metric(
    "task.success_rate",
    unit="ratio",
    success_criteria="HigherThanBaseline",
    name="Task success rate",
    description="1 for success, 0 for failure; `taskType` in the data.",
)
STANDARD_METRICS: tuple[Metric, ...] = (
    *session_metrics(),
    BUSINESS_CONVERSION,
    REVENUE_IMPACT,
    USER_SATISFACTION,
    NEGATIVE_FEEDBACK,
    TASK_SUCCESS,
)
