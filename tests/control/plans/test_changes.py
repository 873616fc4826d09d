"""A plan is a value: what it says of its changes, and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ldinstrument.errors import Conflict
from ldinstrument.metrics.metric import Metric
from ldinstrument.plans.changes import Change, Finer, Plan
from ldinstrument.rest import Difference, RemoteMetric
from ldinstrument.rest.models import remote_metric

SUM = Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum")
NAMED = Difference("name", "Cart", "by hand", label=True)
UNIT = Difference("unit", "dollars", "cents")


def found(**fields: Any) -> RemoteMetric:
    raw = {"key": "cart.other", "eventKey": "cart.value", "isNumeric": True, **fields}
    return remote_metric(raw, "default", "https://ld.test")


def test_changes_are_told_apart_by_their_action() -> None:
    """Labels alone are no drift."""
    create, same, renamed, drift, error = (
        Change(SUM, "create"),
        Change(SUM, "unchanged", found()),
        Change(SUM, "unchanged", found(), (NAMED,)),
        Change(SUM, "drift", found(), (UNIT, NAMED)),
        Change(SUM, "error", problem="two definitions"),
    )
    plan = Plan("default", "https://ld.test", (create, same, renamed, drift, error))
    assert plan.create == (create,)
    assert plan.drift == (drift,)
    assert plan.errors == (error,)
    assert plan.labels == (renamed,)
    assert plan.failed == plan.not_taken == ()


def test_what_apply_did_is_in_the_plan() -> None:
    """Failed or never tried; accepted, and not made as asked, also where it was created."""
    results = {
        result: Change(SUM, "create", result=result)  # type: ignore[arg-type]
        for result in (
            "",
            "created",
            "created by another",
            "updated",
            "not taken",
            "failed",
            "not tried",
        )
    }
    half = replace(results["created"], differences=(UNIT,))
    plan = Plan("default", "", (*results.values(), half))
    assert plan.failed == (results["failed"], results["not tried"])
    assert plan.not_taken == (results["not taken"], half)


@pytest.mark.parametrize(
    ("fields", "statistic"),
    [
        ({}, "the average of values"),
        ({"unitAggregationType": "sum"}, "the sum of values"),
        ({"analysisType": "percentile", "percentileValue": 95}, "percentile 95 of the values"),
        ({"isNumeric": False, "unitAggregationType": "sum"}, "a count of events"),
        ({"isNumeric": False}, "an occurrence"),
    ],
)
def test_a_metric_that_needs_finer_values_says_what_to_do(fields: Any, statistic: str) -> None:
    """With the statistic that it reads, the rollup that spoils it, and both ways out."""
    advice = Finer(found(**fields), "cart.value", "sum", ("cart.value", "cart.more")).advice()
    assert advice == (
        f"cart.other reads the event 'cart.value' as {statistic}, but sessions send one sum of it: "
        "declare that metric in the code too, or set rollup='each' on cart.value"
    )


def test_a_plan_is_json() -> None:
    """Every part of it; what nobody looked at is null, and an error is its text."""
    failure = Conflict("key is taken", status=409)
    plan = Plan(
        "default",
        "https://ld.test",
        (
            Change(SUM, "drift", found(experimentCount=2), (UNIT,), place="shop.py:3", result="failed",
                   failure=failure),
            Change(SUM, "create"),
        ),
        unmanaged=(found(name="Other"),),
        finer=(Finer(found(), "cart.value", "sum", ("cart.value",)),),
        missing_units=(("request", "add the context kind"),),
        remarks=("groups could not be read",),
    )  # fmt: skip
    told = json.loads(json.dumps(plan.to_json()))
    drifted, created = told["changes"]
    assert drifted["differences"] == [
        {"field": "unit", "wanted": "dollars", "found": "cents", "label": False}
    ]
    assert (drifted["experiments"], drifted["declaredAt"]) == (2, "shop.py:3")
    assert drifted["failure"] == "key is taken (409)"
    assert drifted["url"].startswith("https://ld.test/")
    assert (created["experiments"], created["url"], created["failure"]) == (None, None, "")
    assert [metric["name"] for metric in told["unmanaged"]] == ["Other"]
    assert told["finer"][0]["advice"].startswith("cart.other reads")
    assert told["missingAnalysisUnits"] == [{"unit": "request", "advice": "add the context kind"}]
    assert Plan("default", "").to_json()["unmanaged"] is None
