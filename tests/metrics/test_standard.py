"""The standard metrics: what sessions, tasks and requests feed, under LaunchDarkly's names."""

from __future__ import annotations

import pytest

from ldinstrument.metrics.catalogs import Catalog
from ldinstrument.metrics.standard import (
    DEFAULT_SESSION_METRICS,
    DEFAULT_TASK_METRICS,
    REQUEST_METRICS,
    SESSION_METRICS,
    STANDARD_METRICS,
    TASK_METRICS,
    session_metrics,
    task_metrics,
)

LOWER_IS_BETTER = {
    "session.duration",
    "session.unfinished",
    "user.negative_feedback",
    "k.duration",
    "k.unfinished",
    "k.time_to_first_item",
    "http.request.duration_ms",
    "http.response.4xx",
    "http.response.5xx",
}
EVERY = (
    *STANDARD_METRICS,
    *session_metrics("session", SESSION_METRICS),
    *task_metrics("k", TASK_METRICS).values(),
    *REQUEST_METRICS,
)


def test_the_recipes_metrics_are_all_there() -> None:
    """LaunchDarkly's recipe for user sessions names these."""
    assert [metric.key for metric in STANDARD_METRICS] == [
        "session.duration",
        "session.success_rate",
        "session.interactions",
        "business.conversion",
        "revenue.impact",
        "user.satisfaction",
        "user.negative_feedback",
        "task.success_rate",
    ]


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.key)
def test_each_says_what_is_better_and_what_it_is(metric) -> None:
    """Unit, name and description, and the direction that an experiment goes by."""
    lower = metric.key in LOWER_IS_BETTER
    assert metric.success_criteria == ("LowerThanBaseline" if lower else "HigherThanBaseline")
    assert metric.description.endswith(".")
    assert metric.name
    assert bool(metric.unit) == (metric.measure == "value")


def test_one_catalog_takes_them_all() -> None:
    """No two of them have one key; counts per session add up, the others are averaged."""
    catalog = Catalog(EVERY)
    sums = {metric.key for metric in catalog if metric.aggregation == "sum"}
    assert sums == {
        "session.interactions",
        "session.successes",
        "business.conversion",
        "revenue.impact",
    }


def test_sessions_of_another_name_have_metrics_of_their_own() -> None:
    """The default ones, or those that are asked for, in that order; made once."""
    assert [metric.key for metric in session_metrics("chat")] == [
        f"chat.{suffix}" for suffix in DEFAULT_SESSION_METRICS
    ]
    (one,) = session_metrics("chat", ("successes",))
    assert (one.key, one.name) == ("chat.successes", "chat: successes")
    assert session_metrics("chat") is session_metrics("chat")
    with pytest.raises(KeyError):
        session_metrics("chat", ("colour",))


def test_tasks_have_metrics_by_suffix() -> None:
    """What each decorator feeds by itself is among them."""
    found = task_metrics("shop.pay")
    assert {suffix: metric.key for suffix, metric in found.items()} == {
        "success_rate": "shop.pay.success_rate",
        "duration": "shop.pay.duration",
    }
    assert found["success_rate"].name == "shop.pay: success rate"
    for suffixes in DEFAULT_TASK_METRICS.values():
        assert set(suffixes) <= set(TASK_METRICS)
    with pytest.raises(KeyError):
        task_metrics("shop.pay", ("colour",))


def test_requests_are_units_of_their_own() -> None:
    """As guarded rollouts want them."""
    assert {metric.analysis_units for metric in REQUEST_METRICS} == {("request",)}
