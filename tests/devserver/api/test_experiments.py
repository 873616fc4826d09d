"""Experiments over REST: one per flag that randomizes, its iterations and its results."""

from __future__ import annotations

import pytest

from ldinstrument.devserver import experiment_flag

from ..recorded_events import event, exposure
from .rest_answers import refused

SEMANTIC = {"Content-Type": "application/json; domain-model=launchdarkly.semanticpatch"}
BASE = "/api/v2/projects/default/environments/production/experiments"


@pytest.fixture(name="experiment")
def _experiment(ld, metric):
    """An experiment on the flag `f` with one goal."""
    metric(key="latency", eventKey="latency", unit="ms")
    ld.set_flag(experiment_flag("f", ["v0", "v1"], metrics=["latency"]))


def current(http, key="f"):
    return http("GET", f"{BASE}/{key}").json()["currentIteration"]


def instruct(http, *kinds):
    body = {"instructions": [{"kind": kind} for kind in kinds]}
    return http("PATCH", f"{BASE}/f", json=body, headers=SEMANTIC)


def test_only_a_flag_that_randomizes_is_an_experiment(http, ld, experiment):
    """It ends with its flag; a flag for everybody is none."""
    ld.set_flag({"key": "plain", "on": True, "variations": [1, 2], "fallthrough": {"variation": 0}})
    listed = http("GET", BASE).json()
    assert [item["key"] for item in listed["items"]] == ["new-prompt", "f"]
    assert listed["total_count"] == 2
    refused(http("GET", f"{BASE}/plain"), 404, "not_found")
    ld.delete_flag("f")
    refused(http("GET", f"{BASE}/f"), 404, "not_found")


def test_an_experiment_names_its_treatments_and_its_goal(http, experiment):
    """The control is marked; shares are in percent."""
    found = current(http)
    assert [
        (each["name"], each["allocationPercent"], each["baseline"]) for each in found["treatments"]
    ] == [
        ("v0", "50", True),
        ("v1", "50", False),
    ]
    assert found["primaryMetric"]["key"] == "latency"
    assert (found["randomizationUnit"], found["status"]) == ("user", "running")
    assert list(found["flags"]) == ["f"]


def test_a_goal_that_does_not_exist_is_left_out(http, ld):
    """An experiment may have none."""
    ld.set_flag(experiment_flag("f", ["v0", "v1"], metrics=["nobodys"]))
    assert current(http)["metrics"] == []
    assert "primaryMetric" not in current(http)


def test_iterations_are_started_and_stopped(http, experiment):
    """Those before are listed; one that was stopped has its end."""
    assert instruct(http, "startIteration").status_code == 200
    first = current(http)
    assert (first["status"], "endedAt" in first) == ("running", False)
    assert instruct(http, "startIteration", "stopIteration").status_code == 200
    found = http("GET", f"{BASE}/f").json()
    assert (len(found["previousIterations"]), found["currentIteration"]["status"]) == (1, "stopped")
    assert found["currentIteration"]["endedAt"] >= found["currentIteration"]["startedAt"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"instructions": "startIteration"},
        {"instructions": [{"kind": "startIteration"}, {"kind": "archive"}]},
        {"instructions": [{"kind": "startIteration"}, "stopIteration"]},
        {"instructions": [{"kind": ["startIteration"]}]},
    ],
)
def test_a_patch_that_cannot_be_done_is_not_begun(http, experiment, body):
    """Neither is what stands before the wrong instruction."""
    before = http("GET", f"{BASE}/f").json()
    refused(http("PATCH", f"{BASE}/f", json=body, headers=SEMANTIC))
    assert http("GET", f"{BASE}/f").json() == before


def test_results_are_there_when_somebody_was_exposed(http, experiment):
    """Before that, and for a metric that does not exist, there is a reason."""
    results = f"{BASE}/f/metrics/latency/results"
    assert "nobody was exposed" in refused(http("GET", results), 404, "not_found")
    events = [exposure(f"u{n}", n % 2) for n in range(60)]
    events += [event(f"u{n}", float(n % 7 + n % 2)) for n in range(60)]
    assert http("POST", "/bulk", json=events).status_code == 202
    found = http("GET", results).json()
    assert [each["treatmentName"] for each in found["treatmentResults"]] == ["v0", "v1"]
    assert [each["units"] for each in found["treatmentResults"]] == [30, 30]
    assert found["metricSeen"]["ever"] is True
    refused(http("GET", f"{BASE}/f/metrics/nobodys/results"), 404, "not_found")
