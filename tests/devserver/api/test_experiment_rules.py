"""Experiments made over REST by LaunchDarkly's own client: drafted, started, measured."""

from __future__ import annotations

import launchdarkly_api as api
import ldclient
import pytest
from launchdarkly_api import exceptions

from ldinstrument.devserver import simple_flag

from ..recorded_events import event, exposure
from .rest_answers import refused

BASE = "/api/v2/projects/default/environments/local/experiments"
SEMANTIC = "application/json; domain-model=launchdarkly.semanticpatch"


@pytest.fixture(name="experiments")
def _experiments(ld, metric):
    metric(key="latency", eventKey="latency", unit="ms")
    metric(key="buy", eventKey="buy")
    ld.set_flag(simple_flag("f", ["v0", "v1", "v2"]))
    configuration = api.Configuration(host=ld.url, api_key={"ApiKey": "api-token"})
    with api.ApiClient(configuration) as client:
        yield api.ExperimentsApi(client)


@pytest.fixture(name="ids")
def _ids(experiments, http):
    flag = http("GET", "/api/v2/flags/default/f").json()
    return [variation["_id"] for variation in flag["variations"]]


def treatment(id: str, percent: str = "50", baseline: bool = False, flag: str = "f") -> dict:
    parameters = [{"flagKey": flag, "variationId": id}]
    return {
        "name": id,
        "baseline": baseline,
        "allocationPercent": percent,
        "parameters": parameters,
    }


def body(ids: list[str], **iteration: object) -> dict:
    return {
        "key": "exp",
        "name": "Which voice",
        "iteration": {
            "hypothesis": "The newer one is faster.",
            "metrics": [{"key": "buy"}, {"key": "latency"}],
            "primarySingleMetricKey": "latency",
            "treatments": [treatment(ids[0], "20"), treatment(ids[2], "80", baseline=True)],
            "flags": {"f": {"ruleId": "fallthrough", "flagConfigVersion": 1}},
            **iteration,
        },
    }


def test_an_experiment_is_a_draft_until_it_is_started(experiments, ids, ld, http, sdk):
    """Then SDKs get its rollout, and its results name the treatments by their variations."""
    made = experiments.create_experiment(
        "default", "local", api.ExperimentPost.from_dict(body(ids))
    )
    assert (made.key, made.name, made.current_iteration.status) == (
        "exp",
        "Which voice",
        "not_started",
    )
    assert made.current_iteration.primary_metric.key == "latency"
    assert [
        (each.id, each.allocation_percent, each.baseline)
        for each in made.current_iteration.treatments
    ] == [(ids[0], "20", False), (ids[2], "80", True)]
    client, context = sdk(), ldclient.Context.create("u")
    assert client.variation("f", context, "") == "v0"
    started = experiments.patch_experiment(
        "default",
        "local",
        "exp",
        api.ExperimentPatchInput.from_dict({"instructions": [{"kind": "startIteration"}]}),
        _content_type=SEMANTIC,
    )
    assert started.current_iteration.status == "running"
    assert started.current_iteration.hypothesis == "The newer one is faster."
    rollout = ld.flags.all()["f"]["fallthrough"]["rollout"]
    assert [(each["variation"], each["weight"]) for each in rollout["variations"]] == [
        (0, 20_000),
        (2, 80_000),
    ]
    ld.wait_for(
        lambda: client.variation_detail("f", context, "").reason.get("inExperiment"), timeout=60
    )
    at = started.current_iteration.started_at + 10
    events = [exposure(f"u{i}", i % 2 * 2, at) for i in range(60)]
    events += [event(f"u{i}", float(i), at + 1, key="latency") for i in range(60)]
    http("POST", "/bulk", json=events)
    found = http("GET", f"{BASE}/exp/metrics/latency/results").json()
    assert [each["treatmentId"] for each in found["treatmentResults"]] == [ids[2], ids[0]]
    against = found["treatmentResults"][1]["relativeDifferences"][0]["fromTreatmentId"]
    assert against == ids[2]


def test_a_taken_key_is_a_conflict(experiments, ids):
    """That of an experiment, or of a flag that is one."""
    post = api.ExperimentPost.from_dict(body(ids))
    experiments.create_experiment("default", "local", post)
    with pytest.raises(exceptions.ConflictException):
        experiments.create_experiment("default", "local", post)
    listed = experiments.get_experiments("default", "local").items
    assert [experiment.key for experiment in listed] == ["new-prompt", "exp"]


@pytest.mark.parametrize(
    "change",
    [
        {"key": "no spaces"},
        {"name": ""},
        {"iteration": None},
        {"iteration": {"hypothesis": None}},
        {"iteration": {"flags": {}}},
        {"iteration": {"flags": {"f": {"ruleId": "r-1"}}}},
        {"iteration": {"flags": {"nowhere": {"ruleId": "fallthrough"}}}},
        {"iteration": {"metrics": [{"key": "nowhere"}]}},
        {"iteration": {"metrics": "latency"}},
        {"iteration": {"primarySingleMetricKey": "other"}},
        {"iteration": {"randomizationUnit": 7}},
        {"iteration": {"treatments": "all"}},
    ],
)
def test_what_is_no_experiment_is_refused(ids, http, change):
    """400 with a sentence, and the flag stays what it was."""
    sent = body(ids)
    for name, value in change.items():
        nested = name == "iteration" and isinstance(value, dict)
        sent[name] = {**sent[name], **value} if nested else value
    refused(http("POST", BASE, json=sent))
    assert http("GET", BASE).json()["total_count"] == 1


@pytest.mark.parametrize(
    "treatments",
    [
        lambda ids: [treatment(ids[0], "100", True)],
        lambda ids: [treatment(ids[0]), treatment(ids[1])],
        lambda ids: [treatment(ids[0], "50", True), treatment(ids[1], "50", True)],
        lambda ids: [treatment(ids[0], "50", True), treatment(ids[0])],
        lambda ids: [treatment(ids[0], "50", True), treatment("other")],
        lambda ids: [treatment(ids[0], "50", True), treatment(ids[1], flag="g")],
        lambda ids: [treatment(ids[0], "50", True), treatment(ids[1], "20")],
        lambda ids: [treatment(ids[0], "50", True), treatment(ids[1], "half")],
        lambda ids: [treatment(ids[0], "50", True), {"name": "x"}],
    ],
)
def test_treatments_divide_the_traffic_among_variations(ids, http, treatments):
    """One baseline, each variation once, a hundred percent."""
    refused(http("POST", BASE, json=body(ids, treatments=treatments(ids))))


def test_thirds_add_up(ids, http, ld):
    """What rounding leaves over goes to the last one."""
    thirds = [treatment(id, "33.33", baseline=not place) for place, id in enumerate(ids)]
    assert http("POST", BASE, json=body(ids, treatments=thirds)).status_code == 201
    patch = {"instructions": [{"kind": "startIteration"}]}
    http("PATCH", f"{BASE}/exp", json=patch, headers={"Content-Type": SEMANTIC})
    shares = ld.flags.all()["f"]["fallthrough"]["rollout"]["variations"]
    assert sum(share["weight"] for share in shares) == 100_000


def test_the_page_starts_a_draft_too(ids, http, ld):
    """By its button, as REST does."""
    assert http("POST", BASE, json=body(ids)).status_code == 201
    http("POST", "/dev/forms/iteration", data={"key": "f", "do": "start"})
    assert "rollout" in ld.flags.all()["f"]["fallthrough"]
    assert http("GET", f"{BASE}/exp").json()["currentIteration"]["status"] == "running"
