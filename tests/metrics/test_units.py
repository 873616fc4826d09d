"""Units: which values may be in another one, without converting any."""

from __future__ import annotations

import pytest

from ldinstrument.metrics.model_calls import ai_metrics
from ldinstrument.metrics.standard import (
    REQUEST_METRICS,
    TASK_METRICS,
    session_metrics,
    task_metrics,
)
from ldinstrument.metrics.units import is_confusable, other_unit


@pytest.mark.parametrize(
    ("unit", "greatest", "other"),
    [
        ("milliseconds", 59.9, "seconds"),
        ("Milliseconds", 60.0, "seconds"),
        ("ms", 60.1, ""),
        ("percent", 1.0, "shares from 0 to 1"),
        ("%", 1.1, ""),
        ("dollars", 0.0, ""),
        (None, 0.5, ""),
        ("", 0.5, ""),
    ],
)
def test_small_values_may_be_in_another_unit(unit: str | None, greatest: float, other: str) -> None:
    """Up to a minute of seconds, up to a whole of shares; both limits belong to them."""
    assert other_unit(unit, greatest) == other


def test_only_values_recorded_by_hand_are_easily_confused() -> None:
    """What ldinstrument measures itself is in its unit, however small."""
    assert is_confusable("answer.latency", "MS")
    assert is_confusable("answer.score", "%")
    for key in ("answer.duration", "http.request.duration_ms", "answer.success_rate"):
        assert not is_confusable(key, "milliseconds")
    for unit in ("dollars", "", None):
        assert not is_confusable("answer.latency", unit)


def test_nothing_that_ldinstrument_measures_is_easily_confused() -> None:
    """Neither of sessions, tasks, requests nor of a model's calls."""
    measured = [
        *session_metrics(),
        *task_metrics("answer", TASK_METRICS).values(),
        *REQUEST_METRICS,
        *ai_metrics("answer").values(),
    ]

    assert len(measured) > 15
    assert [metric.key for metric in measured if is_confusable(metric.key, metric.unit)] == []
