"""One metric of every kind that can be sent: ours of each measure, page views, clicks."""

from __future__ import annotations

from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS, task_metrics
from ldinstrument.rest.bodies import ClickMetric, PageViewMetric, UrlMatch

EVERY_KIND = (
    *STANDARD_METRICS,
    *task_metrics("ai.answer", ("success_rate", "duration", "time_to_first_item")).values(),
    Metric(
        "cart.adds",
        measure="count",
        event_key="Item added",
        analysis_units=("user", "request"),
        tags=("a", "b"),
    ),
    Metric("signup.done", measure="occurrence", description="Signed up", name="Signed up"),
    Metric(
        "search.latency", unit="milliseconds", success_criteria="LowerThanBaseline", percentile=95
    ),
    PageViewMetric(
        "pricing.seen",
        (UrlMatch("substring", "/pricing"), UrlMatch("exact", "https://example.org/p")),
    ),
    PageViewMetric(
        "docs.seen",
        (UrlMatch("regex", "^/docs"), UrlMatch("canonical", "https://example.org/docs")),
    ),
    ClickMetric(
        "buy.clicked", (UrlMatch("canonical", "https://example.org/"),), "#buy", name="Buy"
    ),
)
