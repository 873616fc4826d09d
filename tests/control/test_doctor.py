"""Why is my metric empty: each broken link is found, is the last one, and comes with a reason and a
command.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timezone
from typing import Any

import ldclient
import pytest
import requests

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.diagnostics import warn_once
from ldinstrument.doctor import Finding, access, examine, examine_all
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import task_metrics
from ldinstrument.rest import MetricsAPI
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.task_definition import declared_task

VALUE = Metric(
    "cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum"
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def client_of(ld: LocalLaunchDarkly, **options: Any) -> ldclient.LDClient:
    """A real client of the SDK's."""
    addresses = dict.fromkeys(("base_uri", "events_uri", "stream_uri"), ld.url)
    return ldclient.LDClient(
        ldclient.Config("sdk-test", **addresses, diagnostic_opt_out=True, **options)
    )


def send(ld: LocalLaunchDarkly, *events: tuple[str, Any, Any], exposed: Any = ()) -> None:
    """Real traffic by the real SDK: evaluations, then events of (key, context, value)."""
    client = client_of(ld)
    for context in exposed if isinstance(exposed, (list, tuple)) else [exposed]:
        client.variation("new-cart", context, False)
    for key, context, value in events:
        client.track(key, context, None, value)
    client.close()
    ld.wait_for(lambda: len(ld.custom_events()) >= len(events))


def user(key: str) -> ldclient.Context:
    return ldclient.Context.create(key)


def last(findings: list[Finding]) -> Finding:
    assert [one.check for one in findings if one.status == "broken"] in ([], [findings[-1].check])
    return findings[-1]


def broken(findings: list[Finding]) -> Finding:
    found = last(findings)
    assert found.status == "broken"
    assert found.why
    return found


def statuses(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.status for finding in findings}


# -- access ----------------------------------------------------------------------------------------


def test_a_refused_token_ends_the_walk(token: str) -> None:
    """401: what to make, and which source it came from is known."""
    with (
        LocalLaunchDarkly(tokens=["other"]) as ld,
        MetricsAPI("default", token=token, base_uri=ld.url) as api,
    ):
        finding = broken(examine("a.b", api, []))
    assert (finding.check, "LAUNCHDARKLY_ACCESS_TOKEN" in finding.command) == ("token", True)


def test_an_unknown_project_ends_the_walk(token: str) -> None:
    """404 for the project."""
    with (
        LocalLaunchDarkly(projects=["default"]) as ld,
        MetricsAPI("nope", token=token, base_uri=ld.url) as api,
    ):
        assert broken(examine("a.b", api, [])).check == "project"


def test_a_server_that_is_down_ends_the_walk(token: str) -> None:
    """No answer at all."""
    with MetricsAPI(
        "p", token=token, base_uri="http://127.0.0.1:9", budget=5, sleep=lambda _: None
    ) as api:
        assert "did not answer" in broken(access(api)).what


def test_a_reader_is_warned(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """A token that may only read works for the doctor and not for apply."""
    ld.fault("/api/v2/caller-identity", status=200, body=json.dumps({"tokenId": "t1"}))
    ld.fault("/api/v2/tokens/t1", status=200, body=json.dumps({"_id": "t1", "role": "reader"}))
    assert statuses(access(api))["token"] == "warning"


def test_disabled_is_said(api: MetricsAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """LDINSTRUMENT_DISABLED where the doctor runs."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    assert statuses(access(api))["environment"] == "warning"


# -- existence and definition ----------------------------------------------------------------------


def test_missing_in_launchdarkly(api: MetricsAPI) -> None:
    """Declared and not created: apply."""
    assert broken(examine("cart.value", api, [VALUE])).command == "ldinstrument apply"


def test_missing_everywhere_names_the_likely_one(api: MetricsAPI) -> None:
    """Differs by case, by a letter, or is only in LaunchDarkly."""
    assert "did you mean cart.value" in broken(examine("Cart.Value", api, [VALUE])).what
    assert "did you mean cart.value" in broken(examine("cart.vlaue", api, [VALUE])).what
    api.create(VALUE)
    assert broken(examine("cart.val", api, [])).command == "ldinstrument doctor cart.value"
    assert "metrics create nothing.alike" in broken(examine("nothing.alike", api, [])).command


def test_archived(api: MetricsAPI) -> None:
    """Archived metrics are in no experiment."""
    api.create(VALUE)
    api.update(VALUE.key, {"archived": True})
    finding = broken(examine(VALUE.key, api, [VALUE]))
    assert (finding.check, finding.command) == (
        "archived",
        "ldinstrument metrics update cart.value archived=false",
    )


def test_another_kind(api: MetricsAPI) -> None:
    """A page view is not fed by track."""
    from ldinstrument.rest.bodies import PageViewMetric, UrlMatch

    api.create(PageViewMetric("a.page", (UrlMatch("exact", "https://example.org"),)))
    assert broken(examine("a.page", api, [])).check == "kind"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"unit": "euros"}, "warning"),
        ({"isNumeric": False}, "broken"),
        ({"eventKey": "x"}, "broken"),
    ],
)
def test_a_definition_that_differs(api: MetricsAPI, change: dict[str, Any], status: str) -> None:
    """Another unit makes it wrong, another event key makes it empty."""
    api.create(VALUE)
    api.update(VALUE.key, change)
    walked = examine(VALUE.key, api, [VALUE])
    assert statuses(walked)["definition"] == status
    assert "--update" in next(one.command for one in walked if one.check == "definition")


def test_seconds_where_milliseconds_are_sent(api: MetricsAPI, latency: Metric) -> None:
    """The same refusal as in plan."""
    api.create(Metric(latency.key, unit="seconds", success_criteria="LowerThanBaseline"))
    assert "mixed" in broken(examine(latency.key, api, [latency])).what


def test_an_event_key_that_differs_only_by_case(api: MetricsAPI) -> None:
    """Made by hand in LaunchDarkly, with a capital letter."""
    api.create(Metric("by.hand", measure="count", event_key="Cart.Value"))
    finding = broken(examine("by.hand", api, [VALUE]))
    assert finding.command == "ldinstrument metrics update by.hand eventKey=cart.value"


def test_a_numeric_metric_on_an_event_without_numbers(api: MetricsAPI) -> None:
    """The code declares the event as an occurrence; and a value of 0 counts as an occurrence."""
    api.create(
        Metric("by.hand", unit="x", success_criteria="HigherThanBaseline", event_key="signup.done")
    )
    assert (
        broken(examine("by.hand", api, [Metric("signup.done", measure="occurrence")])).check
        == "numbers"
    )
    api.create(Metric("by.hand2", measure="occurrence", event_key="cart.value"))
    assert statuses(examine("by.hand2", api, [VALUE]))["numbers"] == "warning"


def test_an_analysis_unit_that_is_not_available(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """Taken away after the metric was made."""
    api.create(Metric("req.count", measure="count", analysis_units=("request",)))
    settings = json.dumps({"randomizationUnits": [{"randomizationUnit": "user", "default": True}]})
    ld.fault(
        "/api/v2/projects/default/experimentation-settings", status=200, body=settings, times=None
    )
    finding = broken(examine("req.count", api, []))
    assert (finding.check, "request is not available" in finding.what) == ("analysis unit", True)
    api.create(Metric("both.count", measure="count", analysis_units=("request", "user")))
    assert statuses(examine("both.count", api, []))["analysis unit"] == "warning"


def test_zero_fill_on_a_latency_and_percentiles(
    ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric
) -> None:
    """Both pitfalls are warnings with the command that mends them."""
    api.create(latency)
    api.update(latency.key, {"eventDefault/disabled": False})
    walked = examine(latency.key, api, [])
    assert statuses(walked)["zero-fill"] == "warning"
    assert "ldinstrument metrics update checkout.latency eventDefault/disabled=true" in [
        one.command for one in walked
    ]
    api.create(Metric("p.lat", unit="ms", success_criteria="LowerThanBaseline", percentile=95))
    percentile = next(one for one in examine("p.lat", api, []) if one.check == "percentile")
    assert "CUPED" in percentile.why
    body = {**api.get("p.lat").raw}
    del body["percentileValue"]
    ld.fault("/api/v2/metrics/default/p.lat", status=200, body=json.dumps(body), times=None)
    assert broken(examine("p.lat", api, [])).check == "percentile"


# -- what arrived ----------------------------------------------------------------------------------


def test_never_received(api: MetricsAPI) -> None:
    """All definitions are right, and nothing came."""
    api.create(VALUE)
    finding = broken(examine(VALUE.key, api, [VALUE]))
    assert finding.check == "last seen"
    assert "flush" in finding.command
    assert "postfork" in finding.why


def test_received_under_another_case(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """The local LaunchDarkly saw `Cart.Value`."""
    api.create(VALUE)
    send(ld, ("Cart.Value", user("u"), 1.0))
    finding = broken(examine(VALUE.key, api, [VALUE]))
    assert (finding.check, "'Cart.Value'" in finding.what) == ("event receipt", True)


def test_long_ago(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """An event that stopped coming is a warning."""
    api.create(VALUE)
    body = {
        **api.get(VALUE.key).raw,
        "lastSeen": int((time.time() - 30 * 86400) * 1000),
        "experiments": [],
    }
    ld.fault("/api/v2/metrics/default/cart.value", status=200, body=json.dumps(body), times=None)
    ld.fault("/dev/health", status=404, times=None)
    walked = examine(VALUE.key, api, [VALUE])
    assert next(one for one in walked if one.check == "last seen").what == "30 days ago"
    assert statuses(walked)["exposure"] == "unknown"


def test_the_wrong_context_kind(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """Events of another kind than the metric's analysis unit."""
    api.create(VALUE)
    send(ld, ("cart.value", ldclient.Context.create("org-1", "organization"), 1.0))
    finding = broken(examine(VALUE.key, api, [VALUE]))
    assert (finding.check, "Context.create" in finding.command) == ("analysis unit", True)


def test_events_without_a_number(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """A numeric metric whose events carry none."""
    api.create(VALUE)
    send(ld, ("cart.value", user("u"), None))
    assert broken(examine(VALUE.key, api, [VALUE])).check == "numeric value"


def test_never_exposed_and_all_well(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """The events of u-1 come without an exposure; those of u-2 after one; then every link holds."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    send(ld, ("cart.value", user("u-1"), 1.0))
    never = broken(examine(VALUE.key, api, [VALUE]))
    assert (never.check, never.what.endswith("nobody was exposed at all")) == ("exposure", True)
    send(ld, ("cart.value", user("u-2"), 2.0), exposed=user("u-2"))
    walked = examine(VALUE.key, api, [VALUE])
    assert {one.status for one in walked} <= {"ok", "warning"}
    assert [one.check for one in walked][-2:] == ["experiments", "comparison"]


def test_a_context_that_is_made_anew_in_each_call(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """A generated key per event, while others are exposed: nothing ever matches, and it says why."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    generated = [str(uuid.UUID(int=number)) for number in range(6)]
    events = [("cart.value", user(key), 1.0) for key in generated]
    send(ld, *events, exposed=user("u-1"))

    finding = broken(examine(VALUE.key, api, [VALUE]))

    assert "1 other units were exposed; their keys look generated" in finding.what
    assert "made anew in each call" in finding.command


@pytest.mark.parametrize("keys", [["u-2"] * 6, [f"ana-{number}" for number in range(6)]])
def test_users_with_one_event_each_are_no_fault(
    ld: LocalLaunchDarkly, api: MetricsAPI, keys: list[str]
) -> None:
    """Nobody made their keys anew: they are simply not in the experiment."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    send(ld, *(("cart.value", user(key), 1.0) for key in keys), exposed=user("u-1"))

    assert "generated" not in broken(examine(VALUE.key, api, [VALUE])).what


def warned(findings: list[Finding], check: str) -> Finding:
    return next(one for one in findings if (one.check, one.status) == (check, "warning"))


def test_few_units_exposed_is_said(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """One of sixty: the experiment compares one, and everything looks well."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    send(ld, ("cart.value", user("u-0"), 1.0), exposed=user("u-0"))
    send(ld, *(("cart.value", user(f"u-{number}"), 1.0) for number in range(1, 60)))

    assert "1 of 60 units" in warned(examine(VALUE.key, api, [VALUE]), "exposure").what


def test_units_recorded_before_their_exposure_are_said(
    ld: LocalLaunchDarkly, api: MetricsAPI
) -> None:
    """The flag is evaluated after the work: what was done before counts for nothing."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    send(ld, *(("cart.value", user(f"u-{number}"), 1.0) for number in range(20)))
    time.sleep(0.01)
    everybody = [user(f"u-{number}") for number in range(20)]
    send(ld, ("cart.value", user("u-0"), 1.0), exposed=everybody)

    finding = warned(examine(VALUE.key, api, [VALUE]), "exposure")

    assert "20 of 20 units" in finding.what
    assert "1 before their last event" in finding.what


@pytest.mark.parametrize(
    ("unit", "values", "suspected"),
    [
        ("milliseconds", [0.2, 1.4, 3.1, 0.9, 12.5], "are they seconds?"),
        ("milliseconds", [180.0, 1400.2, 310.5, 95.1, 1200.0], ""),
        ("milliseconds", [1, 2, 3, 4, 5], ""),
        ("percent", [0.88, 0.1, 0.95, 0.7, 0.31], "are they shares"),
        ("percent", [88, 10, 95.5, 70, 31], ""),
        ("dollars", [0.88, 0.1, 0.95, 0.7, 0.31], ""),
    ],
)
def test_seconds_under_milliseconds_are_suspected(
    ld: LocalLaunchDarkly, api: MetricsAPI, unit: str, values: list[float], suspected: str
) -> None:
    """LaunchDarkly converts nothing: the magnitude is the only trace."""
    metric = Metric("answer.latency", unit=unit, success_criteria="LowerThanBaseline")
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(metric)
    events = [("answer.latency", user("u-1"), value) for value in values]
    send(ld, *events, exposed=user("u-1"))

    found = [one.what for one in examine(metric.key, api, [metric]) if one.check == "magnitude"]

    assert bool(found) == bool(suspected)
    assert suspected in "".join(found)


def test_a_broken_split_is_no_comparison(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """As many units as allocated in each variation, or nothing can be said."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    silent = client_of(ld, send_events=False)
    users = [user(f"u-{number}") for number in range(600)]
    arms = [bool(silent.variation("new-cart", context, False)) for context in users]
    silent.close()
    # Two of three in one arm never come.
    came = [user for nth, user in enumerate(users) if not arms[nth] or nth % 3 == 0]
    send(ld, *(("cart.value", context, 1.0 + len(context.key)) for context in came), exposed=came)

    finding = broken(examine(VALUE.key, api, [VALUE]))

    assert finding.check == "comparison"
    assert "sample ratio mismatch" in finding.what


def test_a_typing_error_is_recognised(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """Of a metric of ours, of the code, of the project."""
    api.create(VALUE)

    assert "did you mean session.duration?" in broken(examine("session.duratoin", api, [])).what
    assert "did you mean cart.value?" in broken(examine("cart.vlaue", api, [])).what


def test_exposed_units_and_no_experiment_do_not_stand_side_by_side(
    ld: LocalLaunchDarkly, api: MetricsAPI
) -> None:
    """A local LaunchDarkly reads every experiment flag out: that is the experiment."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    send(ld, ("cart.value", user("u-1"), 1.0), exposed=user("u-1"))

    walked = examine(VALUE.key, api, [VALUE])

    assert next(one for one in walked if one.check == "experiments").what == "read out by new-cart"


def test_payloads_that_were_refused(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """A program that tracks NaN by itself, and one that sends with no key: each event in those
    payloads is lost.
    """
    assert [one.check for one in access(api)] == ["token", "project"]
    for key, body in (
        ("sdk-x", b'[{"kind": "custom", "key": "a", "metricValue": NaN}]'),
        ("", b"[]"),
    ):
        requests.post(f"{ld.url}/bulk", data=body, headers={"Authorization": key}, timeout=60)
    told = [(one.status, one.what) for one in access(api) if one.check == "payloads"]
    assert told == [
        ("warning", "1 refused (401): Invalid SDK key"),
        ("warning", "1 refused (400): body is not a JSON array of events"),
    ]


# -- who uses it -----------------------------------------------------------------------------------

RUNNING = {"status": "running", "randomizationUnit": "user", "flags": {"new-cart": {}},
           "metrics": [{"key": "cart.value", "_versionId": "v2"}]}  # fmt: skip


@pytest.fixture(name="far")
def _far(ld: LocalLaunchDarkly, api: MetricsAPI) -> Any:
    """A LaunchDarkly that has received the event, and answers for one experiment as the real one
    does.
    """
    api.create(VALUE)
    raw = api.get(VALUE.key).raw

    def answer(iteration: Any = RUNNING, status: Any = None, **metric: Any) -> list[Finding]:
        ld.clear_faults()
        body = {**raw, "lastSeen": int(time.time() * 1000), "_versionId": "v2", "experimentCount": 1,
                "experiments": [{"key": "exp", "name": "Exp", "environmentKey": "production"}], **metric}  # fmt: skip
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
    other = {**RUNNING, "randomizationUnit": "request",
             "metrics": [{"key": "cart.value", "_versionId": "v2", "analysisUnit": "user"}]}  # fmt: skip
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
    (finding,) = [one for one in walked if one.check == "experiments" and one.status == "warning"]
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
    finding = next(one for one in far(RUNNING, found) if one.check == "exposure")
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
    assert next(one for one in walked if one.check == "experiments").what.endswith(
        "2 guarded rollouts do"
    )


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


def test_all_metrics_at_once(ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric) -> None:
    """For each the warnings and the first broken link; nothing for those that are well."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    send(ld, ("cart.value", user("u"), 2.0), exposed=user("u"))
    shared, told = examine_all(api, [VALUE, latency])
    assert {one.status for one in shared} == {"ok"}
    assert [one.check for one in told[latency.key]] == ["metric"]
    assert [one for one in told[VALUE.key] if one.status == "broken"] == []


def test_what_this_process_complained_about(api: MetricsAPI) -> None:
    """Inside the program, the ledger's warnings about this event are part of the walk; others' are
    not.
    """
    api.create(VALUE)
    warn_once("not_a_number", "cart.value", "x")
    warn_once("bad_data", "cart.value data['when']", "x")
    warn_once("no_session", "cart", "x")
    warn_once("offline", "", "x")
    warn_once("bad_data", "other.key data", "x")
    told = [one.what for one in examine(VALUE.key, api, [VALUE]) if one.check == "this process"]
    assert told == ["not a number (1x)", "bad data (1x)", "no session (1x)", "offline (1x)"]


# -- what is missing in LaunchDarkly ---------------------------------------------------------------


def test_the_other_projects_with_metrics_are_named(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str
) -> None:
    """Whoever looks at an empty project may have applied to another one."""
    with MetricsAPI("elsewhere", base_uri=ld.url, token=token) as other:
        other.create(VALUE)

    empty = access(api)[-1]
    api.create(VALUE)
    filled = access(api)[-1]

    assert (empty.check, empty.status) == ("project", "warning")
    assert "--project elsewhere" in empty.command
    assert filled.status == "ok"
    assert "elsewhere has metrics, too" in filled.what


def test_events_that_no_metric_reads_are_named(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """They arrive, and count for nothing."""
    api.create(VALUE)
    send(ld, ("cart.value", user("u"), 2.0), ("cart.vlaue", user("u"), 2.0))

    shared, _ = examine_all(api, [VALUE])
    (told,) = [finding for finding in shared if finding.check == "events"]

    assert told.status == "warning"
    assert "cart.vlaue (1 events" in told.what
    assert "cart.value" not in told.what


def test_what_may_never_happen_is_not_broken(api: MetricsAPI) -> None:
    """No answer of 5xx, no negative feedback, no websocket: all may be well."""
    bad = Metric("user.negative_feedback", "occurrence", success_criteria="LowerThanBaseline")
    good = Metric("cart.filled", "occurrence")
    socket = Metric("websocket.duration", unit="milliseconds", success_criteria="LowerThanBaseline")
    wanted = [bad, good, socket]
    for metric in wanted:
        api.create(metric)

    seen = {
        metric.key: statuses(examine(metric.key, api, wanted))["last seen"] for metric in wanted
    }

    assert seen == {bad.key: "unknown", good.key: "broken", socket.key: "unknown"}


def test_unfinished_runs_that_no_metric_tells_are_a_warning(api: MetricsAPI) -> None:
    """A task that people leave, measured by those who stay."""
    metrics = [*task_metrics("search").values()]
    for metric in metrics:
        api.create(metric)
    task = declared_task("search", False, ("success_rate", "duration"), False)
    for outcome in [Outcome.ABANDONED] * 60 + [Outcome.SUCCESS] * 40:
        task.values(outcome, 5.0)

    told = [
        finding.command
        for finding in examine("search.duration", api, metrics)
        if finding.check == "this process"
    ]

    assert told == ["metrics=('success_rate', 'duration', 'unfinished') on the task"]
