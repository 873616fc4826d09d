"""Who uses a metric: experiments that run, count it and have its unit."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from traffic_and_findings import VALUE, broken, last, send, statuses, user

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.doctor import Finding, examine
from ldinstrument.rest import MetricsAPI


def test_exposed_units_and_no_experiment_do_not_stand_side_by_side(
    ld: LocalLaunchDarkly, api: MetricsAPI
) -> None:
    """A local LaunchDarkly reads every experiment flag out: that is the experiment."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    send(ld, ("cart.value", user("u-1"), 1.0), exposed=user("u-1"))

    walked = examine(VALUE.key, api, [VALUE])

    assert (
        next(finding for finding in walked if finding.check == "experiments").what
        == "read out by new-cart"
    )


RUNNING = {
    "status": "running",
    "randomizationUnit": "user",
    "flags": {"new-cart": {}},
    "metrics": [{"key": "cart.value", "_versionId": "v2"}],
}


@pytest.fixture(name="far")
def _far(ld: LocalLaunchDarkly, api: MetricsAPI) -> Any:
    """A LaunchDarkly that has received the event, and answers for one experiment as the real one
    does.
    """
    api.create(VALUE)
    raw = api.get(VALUE.key).raw

    def answer(iteration: Any = RUNNING, status: Any = None, **metric: Any) -> list[Finding]:
        ld.clear_faults()
        body = {
            **raw,
            "lastSeen": int(time.time() * 1000),
            "_versionId": "v2",
            "experimentCount": 1,
            "experiments": [{"key": "exp", "name": "Exp", "environmentKey": "production"}],
            **metric,
        }
        pages = {
            "/dev/health": None,
            "/api/v2/metrics/default/cart.value": body,
            "/api/v2/projects/default/environments/production/experiments/exp": iteration
            and {"key": "exp", "name": "Exp", "currentIteration": iteration},
            "/api/v2/flag-statuses/default/production/new-cart": status,
        }
        for page, found in pages.items():
            ld.fault(page, status=404 if found is None else 200, body=json.dumps(found), times=None)
        return examine(VALUE.key, api, [VALUE])

    return answer


def test_an_experiment_that_randomizes_by_something_else(far: Any) -> None:
    """The metric is analysed by user, the experiment randomizes by request, or names another unit
    for the metric.
    """
    finding = broken(far({"randomizationUnit": "request"}))
    assert "Exp randomizes by 'request'" in finding.what
    named = {
        **RUNNING,
        "metrics": [{"key": "cart.value", "_versionId": "v2", "analysisUnit": "organization"}],
    }
    assert "Exp analyses it by 'organization'" in broken(far(named)).what
    other = {
        **RUNNING,
        "randomizationUnit": "request",
        "metrics": [{"key": "cart.value", "_versionId": "v2", "analysisUnit": "user"}],
    }
    assert statuses(far(other))["experiments"] == "ok"


def test_experiments_that_do_not_run(far: Any) -> None:
    """Not started, or stopped: the numbers stand still."""
    finding = last(far({**RUNNING, "status": "not_started"}))
    assert (finding.status, finding.what) == (
        "warning",
        "none of its experiments is running: Exp has not started",
    )


def test_a_running_iteration_without_the_metric(far: Any) -> None:
    """It began before the metric was added; groups and funnels count their members."""
    assert "does not count it" in broken(far({**RUNNING, "metrics": [{"key": "other"}]})).what
    for group in (
        {"metrics": [{"key": "group", "isGroup": True, "metrics": [{"key": "cart.value"}]}]},
        {"metrics": None, "primaryFunnel": {"key": "funnel", "metrics": [{"key": "cart.value"}]}},
        {"metrics": None, "primaryMetric": {"key": "cart.value"}},
        {"metrics": None, "secondaryMetrics": [{"key": "cart.value"}]},
    ):
        assert statuses(far({**RUNNING, **group}))["experiments"] == "ok"


def test_a_running_iteration_with_an_older_version(far: Any) -> None:
    """After apply --update, and before the new iteration that it needs."""
    walked = far({**RUNNING, "metrics": [{"key": "cart.value", "_versionId": "v1"}]})
    (finding,) = [
        finding
        for finding in walked
        if finding.check == "experiments" and finding.status == "warning"
    ]
    assert "counts an older version" in finding.what


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [(0.01, "ok", "minutes ago"), (30, "broken", "30 days ago"), (None, "broken", "never")],
)
def test_when_the_flag_of_an_experiment_was_evaluated(
    far: Any, days: float | None, status: str, words: str
) -> None:
    """What LaunchDarkly knows about exposures: whether anybody evaluates the flag, in this
    environment.
    """
    found: dict[str, Any] = {"name": "active"}
    if days is not None:
        moment = datetime.fromtimestamp(time.time() - days * 86_400, timezone.utc)
        found["lastRequested"] = f"{moment:%Y-%m-%dT%H:%M:%S}.123456789Z"
    finding = next(finding for finding in far(RUNNING, found) if finding.check == "exposure")
    assert (finding.status, words in finding.what, "production" in finding.what) == (
        status,
        True,
        True,
    )


def test_what_the_token_may_not_read_is_unknown(far: Any) -> None:
    """No experiment, no flag status: nothing is claimed."""
    assert statuses(far(None))["experiments"] == "ok"
    assert statuses(far(None))["exposure"] == "unknown"
    assert statuses(far(RUNNING))["exposure"] == "unknown"
    assert statuses(far(RUNNING, {"lastRequested": "yesterday"}))["exposure"] == "unknown"


def test_guarded_rollouts_use_metrics_too(far: Any) -> None:
    """Then no experiment is missed."""
    walked = far(experiments=[], experimentCount=0, guardedRolloutCount=2)
    assert next(finding for finding in walked if finding.check == "experiments").what.endswith(
        "2 guarded rollouts do"
    )


def test_no_guarded_rollout_uses_no_metric(far: Any) -> None:
    """A count of 0 is none: nothing uses the metric."""
    walked = far(experiments=[], experimentCount=0, guardedRolloutCount=0)
    assert statuses(walked)["experiments"] == "warning"


def test_the_experiments_api_is_asked_as_beta_when_it_must_be(
    ld: LocalLaunchDarkly, api: MetricsAPI
) -> None:
    """LaunchDarkly documents it as beta, where every other version is 403."""

    def old(method: str, path: str, headers: Any, body: bytes) -> bool:
        return bool(headers["ld-api-version"] != "beta")

    ld.fault("/api/v2/projects/default/*", status=403, times=None, when=old)
    ld.set_flag(experiment_flag("exp", metrics=["cart.value"]))
    found = api.experiment("production", "exp")
    assert found is not None
    assert found.status == "running"
    assert "user" in api.analysis_units()


def test_a_local_experiment(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """The local LaunchDarkly answers for its experiments, too."""
    ld.set_flag(experiment_flag("new-cart", [False, True], metrics=[VALUE.key]))
    api.create(VALUE)
    send(ld, ("cart.value", user("u"), 2.0), exposed=user("u"))
    walked = examine(VALUE.key, api, [VALUE])
    assert Finding("experiments", "ok", "1 use it") in walked
    assert walked[-1].check == "comparison"
    ld.set_flag({**experiment_flag("new-cart", [False, True], metrics=[VALUE.key]), "on": False})
    stopped = examine(VALUE.key, api, [VALUE])
    assert any("new-cart has stopped" in finding.what for finding in stopped)
