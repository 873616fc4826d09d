"""What programs said of themselves: told where it concerns the metric, with what mends it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from traffic_and_findings import VALUE

from ldinstrument.diagnostics import warn_once
from ldinstrument.doctor.findings import Finding, Subject
from ldinstrument.doctor.program_warnings import said_by_programs, said_here
from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import MetricsAPI

P95 = Metric(
    "cart.slow",
    unit="dollars",
    success_criteria="HigherThanBaseline",
    percentile=95,
    event_key="cart.value",
)


@pytest.fixture(name="told")
def _told(api: MetricsAPI) -> Any:
    """What is told of `cart.value` when one program has these warnings."""
    found = api.create(VALUE)

    def told(*warnings: Any, key: str = "cart.value") -> list[Finding]:
        said = [{"pid": 7, "warnings": list(warnings)}]
        wanted = {"cart.slow": P95}
        return list(said_by_programs(Subject(key, api, wanted, found, programs=tuple(said))))

    return told


@pytest.mark.parametrize("what", ["cart.value", "cart.slow", "cart", "", "cart of ana"])
def test_a_warning_about_the_metric_is_told(told: Any, what: str) -> None:
    """Its event, another metric on that event, its task or session, and what concerns everything."""
    (finding,) = told(["rate_limited", what, 5])
    assert (finding.check, finding.status) == ("program 7", "warning")
    assert finding.what == "rate limited (5x)"
    assert "limit=" in finding.command


def test_runs_that_were_suspended_are_told_and_no_fault(told: Any) -> None:
    """A retry or a rerun goes on elsewhere: its numbers come from there."""
    (finding,) = told(["suspended", "cart", 3], ["suspended", "till", 2])
    assert (finding.status, finding.what[:24]) == ("ok", "3 runs were suspended: t")


@pytest.mark.parametrize(
    "warning",
    [["rate_limited", "cart.count", 5], ["rate_limited", "car", 5], ["unheard_of", "", 1]],
)
def test_a_warning_about_something_else_is_not(told: Any, warning: Any) -> None:
    """Nor one that nobody knows what to do about."""
    assert told(warning) == []


def test_a_program_without_warnings_has_nothing_to_say(api: MetricsAPI) -> None:
    """Whether it told none, or of none."""
    found = api.create(VALUE)
    said = ({"pid": 7}, {"pid": 8, "warnings": None})
    assert list(said_by_programs(Subject("cart.value", api, {}, found, programs=said))) == []


def test_what_comes_from_outside_is_one_line(told: Any) -> None:
    """A program may tell anything."""
    assert told(["rate_limited\nok: all well", "cart.value", 1]) == []
    assert told(["rate_limited", "cart.value\nx", 1]) == []


def test_this_process_is_asked_too(api: MetricsAPI) -> None:
    """Where a doctor is called from inside the program."""
    warn_once("not_a_number", "cart.value", "is no number")
    warn_once("not_a_number", "cart.value", "is no number")
    (finding,) = said_here(Subject("cart.value", api, {}, api.create(VALUE)))
    assert (finding.check, finding.what) == ("this process", "not a number (2x)")


def test_warnings_go_by_the_event_of_a_metric(api: MetricsAPI) -> None:
    """Which may be called otherwise; a click has none, and goes by its own key."""
    found = api.create(P95)
    said = ({"pid": 7, "warnings": [["rate_limited", "cart.value", 5]]},)
    (finding,) = said_by_programs(Subject("cart.slow", api, {}, found, programs=said))
    assert finding.status == "warning"
    clicked = dataclasses.replace(found, event_key="")
    assert not list(said_by_programs(Subject("cart.slow", api, {}, clicked, programs=said)))
