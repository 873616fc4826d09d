"""Plan, apply and bootstrap against the local LaunchDarkly: what is created, what is refused, what
is never touched.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.diagnostics import diagnostics
from ldinstrument.errors import CredentialsError, PlanError, Unauthorized, Unreachable
from ldinstrument.metrics.catalogs import Catalog, catalog
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS
from ldinstrument.plans import apply, bootstrap, plan, starting
from ldinstrument.rest import MetricsAPI, PageViewMetric, UrlMatch
from ldinstrument.scan import scan

SUM = Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum")
ONCE = Metric("signup.done", measure="occurrence")


def by_key(found: Any) -> dict[str, Any]:
    return {change.metric.key: change for change in found.changes}


# -- plan ------------------------------------------------------------------------------------------


def test_plan_tells_create_unchanged_drift_and_unmanaged_apart(
    api: MetricsAPI, latency: Metric
) -> None:
    """One of each; nothing is changed by looking."""
    wanted = Catalog([latency, SUM, ONCE])
    api.create(SUM)
    api.create(Metric("signup.done", measure="count"))
    api.create(Metric("stray.metric", measure="count"))
    made = plan(wanted, api)
    assert {key: change.action for key, change in by_key(made).items()} == {
        "checkout.latency": "create", "cart.value": "unchanged", "signup.done": "drift",
    }  # fmt: skip
    assert [one.key for one in made.unmanaged or ()] == ["stray.metric"]
    (difference,) = made.drift[0].differences
    assert (difference.field, difference.wanted, difference.found) == (
        "unitAggregationType",
        "average",
        "sum",
    )
    assert made.changes[0].place.startswith(str(Path(__file__)))
    assert api.find("checkout.latency") is None
    json.dumps(made.to_json())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"unit": "cents"}, "unit"), ({"eventKey": "Cart.value"}, "eventKey"), ({"isNumeric": False}, "isNumeric"),
        ({"successCriteria": "LowerThanBaseline"}, "successCriteria"),
        ({"unitAggregationType": "average"}, "unitAggregationType"),
        ({"eventDefault/disabled": True}, "eventDefault/disabled"), ({"archived": True}, "archived"),
        ({"analysisUnits": ["request"]}, None), ({"name": "Renamed"}, None), ({"description": "by hand"}, None),
    ],
)  # fmt: skip
def test_each_field_that_drifts_is_named(
    api: MetricsAPI, change: dict[str, Any], field: str | None
) -> None:
    """Semantics are drift; names and what the code leaves open are not."""
    api.create(SUM)
    api.update(SUM.key, change)
    made = plan([SUM], api)
    assert [one.field for one in made.changes[0].differences] == ([field] if field else [])
    assert made.changes[0].action == ("drift" if field else "unchanged")


def test_percentile_and_analysis_units_drift(api: MetricsAPI) -> None:
    """Declared analysis units and percentiles are compared; the order of units is nothing."""
    api.create(
        Metric(
            "a.lat",
            unit="ms",
            success_criteria="LowerThanBaseline",
            analysis_units=("user", "request"),
        )
    )
    same = Metric(
        "a.lat", unit="ms", success_criteria="LowerThanBaseline", analysis_units=("request", "user")
    )
    other = Metric(
        "a.lat",
        unit="ms",
        success_criteria="LowerThanBaseline",
        analysis_units=("user",),
        percentile=95,
    )
    assert plan([same], api).changes[0].action == "unchanged"
    drifted = plan([other], api).changes[0]
    assert [one.field for one in drifted.differences] == [
        "analysisType",
        "percentileValue",
        "analysisUnits",
    ]


def test_labels_alone_are_no_drift(api: MetricsAPI) -> None:
    """A metric that somebody renamed in LaunchDarkly is listed under labels."""
    named = Metric("a.count", measure="count", name="Count", tags=("x",))
    api.create(named)
    api.update("a.count", {"name": "By hand", "tags": ["y"]})
    made = plan([named], api)
    assert made.drift == ()
    assert [one.field for one in made.labels[0].differences] == ["name", "tags"]


@pytest.mark.parametrize("unit", ["seconds", "s", "calls"])
def test_another_unit_of_time_is_an_error_and_nothing_is_applied(
    api: MetricsAPI, unit: str
) -> None:
    """An existing session.duration in seconds would be mixed with our milliseconds."""
    api.create(Metric("session.duration", unit=unit, success_criteria="LowerThanBaseline"))
    made = plan([*STANDARD_METRICS], api)
    assert [change.metric.key for change in made.errors] == ["session.duration"]
    with pytest.raises(PlanError, match=r"ldinstrument metrics delete session\.duration"):
        apply(made, api, update=True)
    assert api.count() == 1


def test_another_word_for_the_same_unit_is_drift(api: MetricsAPI, latency: Metric) -> None:
    """`ms` is milliseconds: nothing would be mixed."""
    api.create(Metric(latency.key, unit="ms", success_criteria="LowerThanBaseline"))
    assert plan([latency], api).changes[0].action == "drift"


def test_another_kind_is_an_error(api: MetricsAPI, latency: Metric) -> None:
    """The kind of a metric never changes."""
    from ldinstrument.rest.bodies import PageViewMetric, UrlMatch

    api.create(PageViewMetric(latency.key, (UrlMatch("exact", "https://example.org"),)))
    assert "pageview" in plan([latency], api).errors[0].problem


def test_a_finer_metric_on_the_same_event_is_pointed_out(api: MetricsAPI) -> None:
    """A count in LaunchDarkly on an event that sessions fold into one sum would count sessions."""
    api.create(Metric("cart.count", measure="count", event_key="cart.value"))
    api.create(Metric("cart.any", measure="occurrence", event_key="cart.value"))
    (finer,) = plan([SUM], api).finer
    assert finer.found.key == "cart.count"
    assert "rollup='each' on cart.value" in finer.advice()
    both = [SUM, Metric("cart.count", measure="count", event_key="cart.value")]
    assert plan(both, api).finer == ()
    api.update("cart.count", {"archived": True})
    assert plan([SUM], api).finer == ()


# -- apply -----------------------------------------------------------------------------------------


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


def test_missing_analysis_units_are_an_error_with_the_way_out(api: MetricsAPI) -> None:
    """Opt-in creates the kind and makes it available, beside those that are."""
    metric = Metric("org.seats", measure="count", analysis_units=("organization",))
    made = plan([metric], api)
    assert made.missing_units[0][0] == "organization"
    assert "--create-context-kinds" in made.missing_units[0][1]
    with pytest.raises(PlanError, match="organization"):
        apply(made, api)
    done = apply(made, api, create_context_kinds=True)
    assert done.changes[0].result == "created"
    assert api.analysis_units() == ("user", "request", "organization")
    assert plan([metric], api).missing_units == ()


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
    other = {"key": latency.key, "name": "x", "kind": "custom", "eventKey": latency.key, "isNumeric": True,
             "unit": "milliseconds", "successCriteria": "LowerThanBaseline", "unitAggregationType": "sum",
             "eventDefault": {"disabled": True}}  # fmt: skip
    ld.fault("/api/v2/metrics/default", method="POST", status=201, body=json.dumps(other))
    (created,) = apply(plan([latency], api), api).not_taken
    assert created.result == "created"
    assert [(one.field, one.found) for one in created.differences] == [
        ("unitAggregationType", "sum")
    ]
    api.create(replace(latency, aggregation="sum"))
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


# -- bootstrap -------------------------------------------------------------------------------------


def test_bootstrap_is_idempotent_and_cheap(
    ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default catalog, created once; the second time one call says that all is there."""
    monkeypatch.setenv("LDINSTRUMENT_URL", ld.url)
    monkeypatch.setattr(starting, "standard_metrics_in_use", lambda: None)
    catalog.add(SUM)
    first = bootstrap()
    assert first is not None
    assert {change.result for change in first.changes} == {"created"}
    assert {change.metric.key for change in first.changes} >= {
        metric.key for metric in (*STANDARD_METRICS, SUM)
    }
    calls: list[str] = []
    ld.fault(
        "*",
        times=None,
        status=500,
        when=lambda method, path, h, b: bool(calls.append(f"{method} {path}")),
    )
    second = bootstrap("default")
    assert second is not None
    assert {change.action for change in second.changes} == {"unchanged"}
    assert calls == ["GET /api/v2/metrics/default"]


def test_many_events_are_asked_for_in_few_calls(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """Not in one whose address no proxy lets through, and not one by one."""
    wanted = [Metric(f"many.m{number:03}", measure="count") for number in range(90)]
    for metric in wanted:
        api.create(metric)
    asked: list[str] = []
    ld.fault("*", status=500, times=None, when=lambda m, path, h, b: bool(asked.append(path)))
    made = plan(wanted, api, unmanaged=False)
    assert {change.action for change in made.changes} == {"unchanged"}
    assert asked == ["/api/v2/metrics/default"] * 3


def test_a_first_start_looks_at_a_small_project_as_a_whole(
    ld: LocalLaunchDarkly, api: MetricsAPI
) -> None:
    """And asks for each metric by its key only where that takes fewer calls."""
    wanted = [Metric(f"first.m{number:03}", measure="count") for number in range(4)]
    api.create(Metric("first.m003", measure="count", event_key="under.another.event"))
    asked: list[str] = []

    def remember(method: str, path: str, headers: Any, body: bytes) -> bool:
        asked.append(path.rpartition("/")[2])
        return False

    ld.fault("*", status=500, times=None, when=remember)
    made = plan(wanted, api, unmanaged=False)
    assert [change.action for change in made.changes] == ["create", "create", "create", "drift"]
    assert asked == ["default"] * 3
    for number in range(160):
        api.create(Metric(f"many.m{number:03}", measure="count"))
    asked.clear()
    assert plan(wanted, api, unmanaged=False) == made
    assert asked == ["default", "default", *(metric.key for metric in wanted)]


def test_bootstrap_begins_anywhere(
    ld: LocalLaunchDarkly, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that processes which start together share the work; what it says is in the order of the
    catalog.
    """
    monkeypatch.setattr(random, "shuffle", list.reverse)
    wanted = [Metric(f"any.m{number}", measure="count") for number in range(4)]
    done = bootstrap("p", token=token, base_uri=ld.url, catalog=wanted)
    assert [change.metric for change in done.changes] == wanted
    with MetricsAPI("p", token=token, base_uri=ld.url) as api:
        assert [metric.key for metric in api.list()] == ["any.m3", "any.m2", "any.m1", "any.m0"]


def test_bootstrap_reports_what_only_a_refused_create_shows(
    ld: LocalLaunchDarkly, token: str
) -> None:
    """A metric that no list had, of a kind that cannot be fed: the others are created, and it is an
    error.
    """
    with MetricsAPI("p", token=token, base_uri=ld.url) as api:
        api.create(PageViewMetric(ONCE.key, (UrlMatch("substring", "/x"),)))
        empty = json.dumps({"items": [], "totalCount": 0})
        ld.fault("/api/v2/metrics/p", method="GET", status=200, body=empty, times=None)
        with pytest.raises(PlanError, match=r"signup\.done: it exists as kind"):
            bootstrap("p", token=token, base_uri=ld.url, catalog=[ONCE, SUM])
        assert api.get(SUM.key).unit == "dollars"


def test_bootstrap_reports_drift_and_changes_nothing(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line per metric, once, however often it runs."""
    api.create(Metric("signup.done", measure="count"))
    for _ in range(3):
        done = bootstrap("default", catalog=[ONCE], token=token, base_uri=ld.url)
    assert done is not None
    assert [change.metric.key for change in done.drift] == ["signup.done"]
    assert api.get("signup.done").measure == "count"
    assert [record.getMessage() for record in caplog.records if record.name == "ldinstrument"] == [
        "metric 'signup.done' in LaunchDarkly differs from the code in unitAggregationType; see: "
        "ldinstrument plan"
    ]


def test_bootstrap_is_inert_when_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """LDINSTRUMENT_DISABLED=1: no search for tokens, no network, an empty plan."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    done = bootstrap()
    assert done is not None
    assert done.changes == ()
    assert bootstrap(wait=False) is None


def test_bootstrap_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, ld: LocalLaunchDarkly, token: str
) -> None:
    """No token, a wrong one: the errors of each."""
    with pytest.raises(CredentialsError, match="no LaunchDarkly API token"):
        bootstrap("p")
    ld.fault("*", status=401, times=None)
    with pytest.raises(Unauthorized):
        bootstrap("p", token=token, base_uri=ld.url)


def created_in_time(api: MetricsAPI, key: str) -> bool:
    """Wait until LaunchDarkly has the metric *key*; False after ten seconds."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if api.find(key) is not None:
            return True
        time.sleep(0.05)
    return False


def test_what_is_declared_after_bootstrap_is_created_too(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str
) -> None:
    """Middleware, a URLconf and tasks declare theirs when they are loaded."""
    own = Catalog([Metric("a.first", "count")])

    bootstrap("default", catalog=own, token=token, base_uri=ld.url, wait=False)
    first = created_in_time(api, "a.first")
    own.add(Metric("b.later", "count"), Metric("c.later", "count"))

    assert first
    assert created_in_time(api, "b.later")
    assert created_in_time(api, "c.later")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_creates_what_it_declares_itself(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str
) -> None:
    """The thread of the parent is not there."""
    own = Catalog([Metric("a.parent", "count")])
    bootstrap("default", catalog=own, token=token, base_uri=ld.url, wait=False)
    assert created_in_time(api, "a.parent")

    child = os.fork()
    if not child:
        own.add(Metric("b.child", "count"))
        time.sleep(5)
        os._exit(0)
    try:
        assert created_in_time(api, "b.child")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


PROGRAM = """
import sys, time
import ldinstrument as ld

@ld.track_task("shop.search")
def search(): ...

def checkout():
    with ld.session("user-1"):
        if sys.argv[1] == "sell":
            ld.track_revenue(3.0)
            getattr(ld, "track_" + "satisfaction")(80)

if __name__ == "__main__":
    ld.bootstrap("default", wait=False)
    checkout()
    time.sleep(float(sys.argv[2]))
"""


def test_bootstrap_and_plan_agree_on_one_file(
    ld: LocalLaunchDarkly, api: MetricsAPI, tmp_path: Path
) -> None:
    """Of the standard metrics those that the program uses."""
    program = tmp_path / "agreeing.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "LDINSTRUMENT_URL": ld.url}

    subprocess.run(
        [sys.executable, program, "look", "1.5"], env=environment, check=True, timeout=60
    )

    wanted = {metric.key for metric in scan(str(program)).metrics}
    assert {metric.key for metric in api.list()} == wanted
    assert "revenue.impact" in wanted
    assert "user.satisfaction" not in wanted


def test_a_standard_metric_that_no_source_shows_is_created_at_its_first_use(
    ld: LocalLaunchDarkly, api: MetricsAPI, tmp_path: Path
) -> None:
    """No number without a metric."""
    program = tmp_path / "hiding.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "LDINSTRUMENT_URL": ld.url}

    with subprocess.Popen([sys.executable, program, "sell", "30"], env=environment) as process:
        try:
            assert created_in_time(api, "user.satisfaction")
        finally:
            process.kill()


def test_bootstrap_has_a_deadline(ld: LocalLaunchDarkly, token: str) -> None:
    """A server that hangs on every call: over soon after the time-out for everything together."""
    ld.fault("*", times=None, delay=30, status=200)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        bootstrap("p", token=token, base_uri=ld.url, timeout=1)
    assert time.monotonic() - began < 15


def test_a_name_that_never_resolves_does_not_hold_bootstrap(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """Name resolution has no time-out; bootstrap has."""
    released = threading.Event()

    def never(*_: Any, **__: Any) -> Any:
        released.wait(60)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    began = time.monotonic()
    try:
        with pytest.raises(Unreachable, match="within"):
            bootstrap("p", token=token, base_uri="https://launchdarkly.invalid", timeout=0.2)
    finally:
        released.set()
    assert time.monotonic() - began < 30
    wait_until(lambda: not bootstrap_threads())


def test_bootstrap_says_where_another_token_stands(
    ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two variables that differ: one line, without the tokens."""
    monkeypatch.setenv("LAUNCHDARKLY_API_HOST", ld.url)
    monkeypatch.setenv("LD_API_KEY", "api-secret-one")
    monkeypatch.setenv("LAUNCHDARKLY_ACCESS_TOKEN", "api-secret-two")
    bootstrap("default", catalog=[ONCE])
    assert (
        "another token stands in LAUNCHDARKLY_ACCESS_TOKEN; the one from LD_API_KEY is used"
        in caplog.text
    )
    assert "secret" not in caplog.text


# -- at start-up -----------------------------------------------------------------------------------


def wait_until(done: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.01)
    assert done()


def bootstrap_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ldinstrument-bootstrap"]


def test_at_start_up_it_returns_at_once_and_works_behind(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str
) -> None:
    """The host goes on while LaunchDarkly is slow; the metrics are there later."""
    slow = ld.fault("/api/v2/metrics/default", method="GET", delay=1.0, after=True)
    assert bootstrap("default", catalog=[ONCE], token=token, base_uri=ld.url, wait=False) is None
    assert bootstrap_threads()[0].daemon
    wait_until(lambda: not bootstrap_threads())
    assert slow.hits == 1
    assert api.get("signup.done").measure == "occurrence"


def test_at_start_up_it_creates_what_was_declared_by_then_first(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the catalog has lost it before the thread comes to it; what came since follows."""
    late = threading.Event()

    def slow(*arguments: Any, **options: Any) -> MetricsAPI:
        assert late.wait(60)
        return MetricsAPI(*arguments, **options)

    monkeypatch.setattr(starting, "MetricsAPI", slow)
    own = Catalog([ONCE])
    bootstrap("default", token=token, base_uri=ld.url, catalog=own, wait=False)
    own.clear()
    own.add(Metric("x.later", measure="count"))
    late.set()
    wait_until(lambda: not bootstrap_threads())
    assert [metric.key for metric in api.list(sort="createdAt")] == [ONCE.key, "x.later"]


@pytest.mark.parametrize("strict", [False, True])
def test_at_start_up_failures_are_one_line(
    token: str, caplog: pytest.LogCaptureFixture, ld: LocalLaunchDarkly, strict: bool
) -> None:
    """A server that is down, a token that is wrong, no project: logged once, nothing raised, no
    secret.
    """
    diagnostics.strict = strict
    ld.fault("*", status=401, times=None)
    for _ in range(3):
        assert (
            bootstrap("p", token=token, base_uri="http://127.0.0.1:9", timeout=0.3, wait=False)
            is None
        )
        assert bootstrap("p", token=token, base_uri=ld.url, wait=False) is None
        assert bootstrap(token="sdk-secret", wait=False) is None
        wait_until(lambda: not bootstrap_threads())
    lines = [record.getMessage() for record in caplog.records if record.name == "ldinstrument"]
    assert len(lines) == (0 if strict else 3)
    assert not any("secret" in line for line in lines)


def test_at_start_up_one_metric_in_error_does_not_keep_the_others(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """session.duration in seconds is said; the other metrics are created."""
    api.create(Metric("session.duration", unit="seconds", success_criteria="LowerThanBaseline"))
    bootstrap("default", catalog=STANDARD_METRICS, token=token, base_uri=ld.url, wait=False)
    wait_until(lambda: not bootstrap_threads())
    assert api.count() == len(STANDARD_METRICS)
    assert "seconds" in caplog.text


def test_twenty_processes_at_once(ld: LocalLaunchDarkly, api: MetricsAPI, tmp_path: Path) -> None:
    """All succeed, every metric is there once, and each was created by exactly one of them."""
    program = (
        "import json, sys, time\n"
        "from ldinstrument.plans import bootstrap\n"
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
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=environ, text=True, cwd=tmp_path)
        for _ in range(20)
    ]  # fmt: skip
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


def test_a_project_with_5000_metrics(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """plan reads every page; bootstrap does not need to."""
    api.create(latency)
    template = ld.database.document("metric", "default", latency.key)
    assert template is not None
    for number in range(5000):
        ld.database.put(
            "metric",
            "default",
            f"m{number}",
            {**template, "key": f"m{number}", "eventKey": f"m{number}"},
        )
    told: list[tuple[str, int, int]] = []
    made = plan([latency, ONCE], api, progress=lambda *step: told.append(step))
    assert len(made.unmanaged or ()) == 5000
    assert {change.metric.key: change.action for change in made.changes} == {
        latency.key: "unchanged",
        ONCE.key: "create",
    }
    assert ("reading metrics", 5001, 0) in told
    calls: list[str] = []
    ld.fault("*", times=None, status=500, when=lambda method, path, h, b: bool(calls.append(path)))
    assert plan([latency], api, unmanaged=False).changes[0].action == "unchanged"
    assert len(calls) == 1


def test_what_apply_creates_is_logged_without_noise(
    ld: LocalLaunchDarkly, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One info line that names what was created."""
    caplog.set_level(logging.INFO, "ldinstrument")
    bootstrap("default", catalog=[ONCE, SUM], token=token, base_uri=ld.url)
    assert [record.getMessage() for record in caplog.records if record.name == "ldinstrument"] == [
        "created in LaunchDarkly project default: signup.done, cart.value"
    ]
