"""The metrics of model calls: as LaunchDarkly defines its own, and its recipe for AI configs."""

from __future__ import annotations

import pytest

from ldinstrument.metrics.model_calls import (
    AGENT_METRICS,
    AI_METRICS,
    AI_RECIPE_METRICS,
    DEFAULT_AI_METRICS,
    ai_metrics,
)
from ldinstrument.metrics.standard import TASK_METRICS


@pytest.mark.parametrize("suffix", AI_METRICS)
def test_a_call_is_averaged_and_lower_is_better(suffix: str) -> None:
    """But for tokens out of a cache; a unit without a call is left out, not 0."""
    metric = ai_metrics("support.answer")[suffix]
    assert metric.key == f"support.answer.{suffix}"
    assert (metric.measure, metric.aggregation, metric.zero_fill) == ("value", "average", False)
    better = "HigherThanBaseline" if suffix == "tokens.cached" else "LowerThanBaseline"
    assert metric.success_criteria == better
    assert metric.description.endswith(".")


def test_metrics_are_made_by_suffix() -> None:
    """Those that are asked for, with a name for people."""
    found = ai_metrics("k", ("tokens.input", "time_to_first_token"))
    assert {suffix: metric.name for suffix, metric in found.items()} == {
        "tokens.input": "k: tokens, input",
        "time_to_first_token": "k: time to first token",
    }
    with pytest.raises(KeyError):
        ai_metrics("k", ("speed",))


def test_what_is_fed_by_itself_exists() -> None:
    """The number of model calls only on request, or by a run of an agent."""
    for suffix in (*DEFAULT_AI_METRICS, *AGENT_METRICS):
        assert suffix in AI_METRICS or suffix in TASK_METRICS
    assert "inference_calls" not in DEFAULT_AI_METRICS
    assert "inference_calls" in AGENT_METRICS
    assert len(set(DEFAULT_AI_METRICS)) == len(DEFAULT_AI_METRICS)


def test_the_recipe_for_ai_configs_has_launchdarklys_keys() -> None:
    """Nothing feeds them by itself; more is better for each."""
    assert {metric.key: metric.measure for metric in AI_RECIPE_METRICS} == {
        "quality.accuracy": "value",
        "quality.relevance": "value",
        "ai.task.completion": "value",
        "ai.recommendation.conversion": "occurrence",
    }
    assert {metric.success_criteria for metric in AI_RECIPE_METRICS} == {"HigherThanBaseline"}
