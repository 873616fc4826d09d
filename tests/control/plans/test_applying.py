"""`apply`: creates what is missing, patches when asked, deletes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import PlanError
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS
from ldinstrument.plans import apply, plan
from ldinstrument.rest import MetricsAPI

SUM = Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum")


ONCE = Metric("signup.done", measure="occurrence")


def by_key(found: Any) -> dict[str, Any]:
    return {change.metric.key: change for change in found.changes}


def test_apply_creates_and_leaves_the_rest_alone(api: MetricsAPI, latency: Metric) -> None:
    """What drifted stays as it is without update=True."""
    api.create(Metric("signup.done", measure="count"))
    done = apply(plan([latency, ONCE], api), api)
    assert {key: change.result for key, change in by_key(done).items()} == {
        "checkout.latency": "created",
        "signup.done": "",
    }
    assert api.get("signup.done").measure == "count"


def test_apply_with_update_patches_field_by_field(api: MetricsAPI) -> None:
    """Only what differs is sent, and afterwards nothing differs."""
    api.create(Metric("signup.done", measure="count", description="kept"))
    done = apply(plan([ONCE], api), api, update=True)
    assert by_key(done)["signup.done"].result == "updated"
    found = api.get("signup.done")
    assert (found.measure, found.description) == ("occurrence", "kept")
    assert plan([ONCE], api).changes[0].action == "unchanged"


def test_a_percentile_can_be_added_and_taken_away(api: MetricsAPI, latency: Metric) -> None:
    """Mean to percentile and back, by patches."""
    api.create(latency)
    p95 = Metric(
        latency.key, unit="milliseconds", success_criteria="LowerThanBaseline", percentile=95
    )
    apply(plan([p95], api), api, update=True)
    assert api.get(latency.key).percentile == 95
    apply(plan([latency], api), api, update=True)
    assert (api.get(latency.key).percentile, api.get(latency.key).raw["analysisType"]) == (
        None,
        "mean",
    )


def test_context_kinds_are_not_created_for_a_plan_in_error(api: MetricsAPI) -> None:
    """Nothing is applied means nothing at all."""
    api.create(Metric("session.duration", unit="seconds", success_criteria="LowerThanBaseline"))
    made = plan(
        [*STANDARD_METRICS, Metric("org.seats", measure="count", analysis_units=("organization",))],
        api,
    )
    assert len(made.errors) == 2
    with pytest.raises(PlanError, match="seconds"):
        apply(made, api, create_context_kinds=True)
    assert "organization" not in api.context_kinds()


def test_one_refusal_does_not_keep_the_others(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """A metric that LaunchDarkly refuses is reported; the rest is created."""
    ld.fault(
        "/api/v2/metrics/default",
        method="POST",
        status=400,
        body='{"code": "invalid_request", "message": "odd"}',
    )
    done = apply(plan([latency, SUM, ONCE], api), api)
    assert [change.result for change in done.changes] == ["failed", "created", "created"]
    assert "odd" in str(done.failed[0].failure)


def test_a_hopeless_refusal_ends_it(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """After 403 for one, nobody asks for the next twenty."""
    fault = ld.fault("/api/v2/metrics/default", method="POST", status=403, times=None)
    done = apply(plan([latency, SUM, ONCE], api), api)
    assert [change.result for change in done.changes] == ["failed", "not tried", "not tried"]
    assert fault.hits == 1


@pytest.mark.parametrize("status", [409, 400])
def test_created_by_another_in_between(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str, latency: Metric, status: int
) -> None:
    """Already there and equal: fine. Already there and different: drift. Both are said."""
    made = plan([latency, SUM], api)
    with MetricsAPI("default", token=token, base_uri=ld.url) as other:
        other.create(latency)
        other.create(Metric(SUM.key, measure="count"))
    ld.fault(
        "/api/v2/metrics/default",
        method="POST",
        status=status,
        times=2,
        body='{"message": "already exists"}',
    )
    done = by_key(apply(made, api))
    assert (done[latency.key].result, done[latency.key].action) == (
        "created by another",
        "unchanged",
    )
    assert (done[SUM.key].result, done[SUM.key].action) == ("created by another", "drift")


def test_processes_that_start_together_share_the_work(
    ld: LocalLaunchDarkly, api: MetricsAPI
) -> None:
    """Who finds one metric created looks once for all the others, instead of trying each."""
    wanted = [Metric(f"shared.m{number:03}", measure="count") for number in range(30)]
    made = plan(wanted, api)
    for metric in wanted[:25]:
        api.create(metric)
    api.update("shared.m020", {"unitAggregationType": "average"})
    posts: list[str] = []
    ld.fault("*", status=500, times=None, when=lambda m, path, h, b: bool(posts.append(m)))
    done = by_key(apply(made, api))
    assert [change.result for change in done.values()] == ["created by another"] * 25 + [
        "created"
    ] * 5
    assert [key for key, change in done.items() if change.action == "drift"] == ["shared.m020"]
    # One refusal, the look behind it, one list, and those that nobody had created.
    assert posts == ["POST", "GET", "GET", *["POST"] * 5]


def test_created_by_another_with_another_unit(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """An older program, at the same moment, with seconds: an error, as plan would have said."""
    made = plan([latency], api)
    api.create(Metric(latency.key, unit="seconds", success_criteria="LowerThanBaseline"))
    (change,) = apply(made, api).changes
    assert (change.action, change.result) == ("error", "created by another")
    assert "seconds" in change.problem


def test_what_launchdarkly_accepts_and_leaves_out_is_still_different(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """It answers 2xx to fields that it ignores: only its answer tells what became of them."""
    other = {
        "key": latency.key,
        "name": "x",
        "kind": "custom",
        "eventKey": latency.key,
        "isNumeric": True,
        "unit": "milliseconds",
        "successCriteria": "LowerThanBaseline",
        "unitAggregationType": "sum",
        "eventDefault": {"disabled": True},
    }
    ld.fault("/api/v2/metrics/default", method="POST", status=201, body=json.dumps(other))
    (created,) = apply(plan([latency], api), api).not_taken
    assert created.result == "created"
    assert [(difference.field, difference.found) for difference in created.differences] == [
        ("unitAggregationType", "sum")
    ]
    api.create(latency.replace(aggregation="sum"))
    ld.fault(
        f"/api/v2/metrics/default/{latency.key}", method="PATCH", status=200, body=json.dumps(other)
    )
    done = apply(plan([latency], api), api, update=True)
    assert [change.result for change in done.not_taken] == ["not taken"]
    assert done.failed == ()
    assert apply(plan([latency], api), api, update=True).not_taken == ()


def test_a_409_behind_which_there_is_nothing_is_tried_again(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """LaunchDarkly's optimistic lock error: try again later."""
    ld.fault(
        "/api/v2/metrics/default",
        method="POST",
        status=409,
        body='{"code": "optimistic_locking_error"}',
    )
    assert apply(plan([latency], api), api).changes[0].result == "created"


def test_twenty_processes_at_once(ld: LocalLaunchDarkly, api: MetricsAPI, tmp_path: Path) -> None:
    """All succeed, every metric is there once, and each was created by exactly one of them."""
    program = (
        "import json, sys, time\n"
        "from ldinstrument.scan.startup import bootstrap\n"
        "from ldinstrument.metrics.catalogs import catalog; from ldinstrument.metrics.standard "
        "import task_metrics\n"
        "catalog.add(*task_metrics('ai.answer').values())\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "plan = bootstrap('default', token='api-x', timeout=60)\n"
        "print(json.dumps({c.metric.key: [c.action, c.result] for c in plan.changes}))\n"
    )
    environ = {
        **os.environ,
        "LDINSTRUMENT_URL": ld.url,
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            text=True,
            cwd=tmp_path,
        )
        for _ in range(20)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outcomes = []
        for process in processes:
            out, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
            outcomes.append(json.loads(out))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    wanted = {metric.key for metric in STANDARD_METRICS} | {
        "ai.answer.success_rate",
        "ai.answer.duration",
    }
    assert {found.key for found in api.list()} == wanted
    for key in wanted:
        results = [outcome[key] for outcome in outcomes]
        assert sum(result == "created" for _, result in results) == 1
        assert {action for action, result in results if result != "created"} <= {"unchanged"}
