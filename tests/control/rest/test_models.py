"""What answers become, and what LaunchDarkly leaves out of them."""

from __future__ import annotations

from typing import Any

import pytest

from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import differences
from ldinstrument.rest.bodies import metric_body
from ldinstrument.rest.models import remote_metric


def test_what_an_answer_leaves_out_is_launchdarklys_default(latency: Metric) -> None:
    """Older answers have `randomizationUnits` only; absent fields are mean, average, zero-fill on,
    higher is better.
    """
    raw: dict[str, Any] = {"key": "a.b", "kind": "custom", "eventKey": "a.b", "isNumeric": True}
    found = remote_metric({**raw, "randomizationUnits": ["request"]}, "p", "https://ld.test")
    assert (found.aggregation, found.percentile, found.zero_fill) == ("average", None, True)
    assert (found.analysis_units, found.name, found.archived) == (("request",), "a.b", False)
    assert remote_metric({**raw, "eventDefault": {}}, "p", "https://ld.test").zero_fill
    assert not remote_metric(
        {**raw, "eventDefault": {"disabled": True}}, "p", "https://ld.test"
    ).zero_fill
    assert [
        difference.field
        for difference in differences(metric_body(latency.replace(key="a.b")), found)
    ] == ["successCriteria", "unit", "eventDefault/disabled"]


@pytest.mark.parametrize(
    ("site", "address"),
    [
        (
            {"href": "/projects/p/metrics/a.b/details"},
            "https://ld.test/projects/p/metrics/a.b/details",
        ),
        ({"href": "//evil.test/x"}, "https://ld.test/projects/p/metrics/a.b"),
        ({"href": "https://evil.test/x"}, "https://ld.test/projects/p/metrics/a.b"),
        (None, "https://ld.test/projects/p/metrics/a.b"),
    ],
)
def test_the_address_of_a_metric_stays_with_its_host(site: Any, address: str) -> None:
    """People click it: an answer does not lead them elsewhere."""
    assert remote_metric({"key": "a.b", "_site": site}, "p", "https://ld.test").url == address
