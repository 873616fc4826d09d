"""What arrived, as a local LaunchDarkly saw it, and what this process warned about."""

from __future__ import annotations

import time
import uuid

import ldclient
import pytest
from traffic_and_findings import VALUE, broken, send, user

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.diagnostics import warn_once
from ldinstrument.doctor import Finding, examine, examine_all
from ldinstrument.doctor.received import MOST_NAMED, unread_events
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.model_calls import ai_metrics
from ldinstrument.metrics.standard import task_metrics
from ldinstrument.rest import MetricsAPI
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.task_definition import declared_task


def test_received_under_another_case(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """The local LaunchDarkly saw `Cart.Value`."""
    api.create(VALUE)
    send(ld, ("Cart.Value", user("u"), 1.0))
    finding = broken(examine(VALUE.key, api, [VALUE]))
    assert (finding.check, "'Cart.Value'" in finding.what) == ("event receipt", True)


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
    assert {finding.status for finding in walked} <= {"ok", "warning"}
    assert [finding.check for finding in walked][-2:] == ["experiments", "comparison"]


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
    return next(
        finding for finding in findings if (finding.check, finding.status) == (check, "warning")
    )


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

    found = [
        finding.what
        for finding in examine(metric.key, api, [metric])
        if finding.check == "magnitude"
    ]

    assert bool(found) == bool(suspected)
    assert suspected in "".join(found)


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
    told = [
        finding.what
        for finding in examine(VALUE.key, api, [VALUE])
        if finding.check == "this process"
    ]
    assert told == ["not a number (1x)", "bad data (1x)", "no session (1x)", "offline (1x)"]


@pytest.mark.parametrize("suffix", ["tokens.total", "cost"])
@pytest.mark.parametrize(
    ("cause", "what", "fix"),
    [
        ("untold_usage", "answer", "include_usage"),
        ("unknown_price", "answer gpt-9", "PriceTable"),
        ("doubled_spans", "answer", "instrumentor"),
        ("sampled_spans", "answer", "track_ai"),
    ],
)
def test_the_traps_of_model_calls(
    api: MetricsAPI, suffix: str, cause: str, what: str, fix: str
) -> None:
    """What a model call's program has met is told with the way out, for its metrics only."""
    for key in ("answer", "other"):
        metric = ai_metrics(key, [suffix])[suffix]
        api.create(metric)
        warn_once(cause, what, "x")
        findings = [
            finding
            for finding in examine(metric.key, api, [metric])
            if finding.check == "this process"
        ]
        assert [fix in finding.command for finding in findings] == [True] * (key == "answer")


def test_events_that_no_metric_reads_are_named(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """They arrive, and count for nothing."""
    api.create(VALUE)
    send(ld, ("cart.value", user("u"), 2.0), ("cart.vlaue", user("u"), 2.0))

    shared, _ = examine_all(api, [VALUE])
    (told,) = [finding for finding in shared if finding.check == "events"]

    assert told.status == "warning"
    assert told.what.endswith("reads cart.vlaue")


def test_unfinished_runs_that_no_metric_tells_are_a_warning(api: MetricsAPI) -> None:
    """A task that people leave, measured by those who stay."""
    metrics = [*task_metrics("search").values()]
    for metric in metrics:
        api.create(metric)
    task = declared_task("search", False, ("success_rate", "duration"), False)
    task.count({Outcome.ABANDONED: 60, Outcome.SUCCESS: 40})

    told = [
        finding.command
        for finding in examine("search.duration", api, metrics)
        if finding.check == "this process"
    ]

    assert told == ["metrics=('success_rate', 'duration', 'unfinished') on the task"]


def unread(*keys: str) -> list[dict[str, object]]:
    return [{"check": "definition", "subject": key, "ok": False} for key in keys]


@pytest.mark.parametrize("extra", [0, 1, 7])
def test_the_first_unread_events_are_named(api: MetricsAPI, extra: int) -> None:
    """The first five, and how many more there are."""
    keys = [f"key.{number}" for number in range(MOST_NAMED + extra)]
    (finding,) = unread_events(api, [*unread(*keys), {"check": "other", "subject": "all.well"}])
    assert (finding.check, finding.status) == ("events", "warning")
    more = f" and {extra} more" if extra else ""
    assert finding.what.endswith(f"reads {', '.join(keys[:MOST_NAMED])}{more}")


@pytest.mark.parametrize("health", [None, [], [{"check": "other", "subject": "all.well"}]])
def test_without_unread_events_there_is_nothing_to_say(api: MetricsAPI, health: object) -> None:
    """Nor where no local LaunchDarkly runs."""
    assert list(unread_events(api, health)) == []
