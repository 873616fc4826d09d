"""Why a metric is empty: each check names what is wrong, and is quiet where nothing is."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.readout.health import FEW, HealthCheck, health_checks

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    yield server
    server.database.close()


def checked(server: Server, **options) -> dict[tuple[str, str], HealthCheck]:
    """The checks by subject and name."""
    server.reader.unit_values.aggregate()
    return {
        (check.subject, check.check): check for check in health_checks(server.database, **options)
    }


def test_a_metric_that_is_well_has_no_warning(server):
    """Received, with its unit, a number, and after an exposure."""
    server.define()
    for number in range(10):
        server.post(exposure(f"u{number}", at=5), event(f"u{number}", 120.0, at=6))
    found = checked(server)
    assert {check for _, check in found} == {
        "event receipt",
        "analysis unit",
        "numeric value",
        "exposure",
    }
    assert all(check.ok and not check.warning for check in found.values())


def test_an_event_that_never_came_is_looked_for_under_other_spellings(server):
    """Event keys are case-sensitive; nothing more is checked then."""
    server.define(eventKey="Latency")
    server.define(key="other", eventKey="other")
    server.post(event("a"))
    found = checked(server)
    assert "'latency': event keys are case-sensitive" in found["latency", "event receipt"].detail
    assert found["other", "event receipt"].detail == "no event 'other'"
    assert not found["other", "event receipt"].ok
    assert ("other", "exposure") not in found


def test_events_without_the_analysis_unit_or_a_number_are_counted(server):
    """Some are enough for it to be said."""
    server.define(analysisUnits=["user"])
    server.post(event("a"), {**event("b", "7"), "context": {"kind": "request", "key": "b"}})
    found = checked(server)
    assert found["latency", "analysis unit"].detail == "1 of 2 events carry user"
    assert found["latency", "numeric value"].detail == "1 of 2 events carry a number"
    assert not found["latency", "analysis unit"].ok
    assert not found["latency", "numeric value"].ok


def test_an_occurrence_needs_no_number(server):
    """Nor is its magnitude looked at."""
    server.define(isNumeric=False, unit=None, successCriteria=None)
    server.post(event("a", "no number"))
    assert {check for _, check in checked(server)} == {"event receipt", "analysis unit", "exposure"}


@pytest.mark.parametrize(
    ("unit", "values", "said"),
    [
        ("milliseconds", [0.25] * FEW, "are they seconds?"),
        ("percent", [0.5, 0.25, 1.0, 0.75, 0.5], "are they shares from 0 to 1?"),
        ("milliseconds", [0.25] * (FEW - 1), ""),
        ("milliseconds", [5.0] * FEW, ""),
        ("milliseconds", [0.25] * FEW + [75.5], ""),
        ("dollars", [0.25] * FEW, ""),
    ],
)
def test_values_in_another_unit_look_wrong(server, unit, values, said):
    """They pass: LaunchDarkly converts nothing, so only a person can tell."""
    server.define(unit=unit)
    server.post(*[event("a", value) for value in values])
    found = checked(server).get(("latency", "magnitude"))
    if not said:
        assert found is None
    else:
        assert said in found.detail
        assert (found.ok, found.warning) == (True, True)


def test_what_ldinstrument_measures_itself_may_be_short(server):
    """A fast function lasts less than a millisecond."""
    server.define(key="answer.duration", eventKey="answer.duration")
    server.post(*[event("a", 0.25, key="answer.duration") for _ in range(FEW)])
    assert ("answer.duration", "magnitude") not in checked(server)


@pytest.mark.parametrize(
    ("exposures", "events", "ok", "warning", "said"),
    [
        ([], "a", False, False, "nobody was exposed at all"),
        ([("z", 1)], "a", False, False, "1 other units were exposed"),
        ([("a", 1), ("b", 1)], "ab", True, False, "2 of 2 units"),
        ([("a", 1)], "abc", True, True, "the others count for nothing"),
        ([("a", 9)], "a", False, False, "0 before their last event"),
        ([("a", 1), ("b", 9), ("c", 9)], "abc", True, True, "what the others did before it"),
    ],
)
def test_units_count_when_they_were_exposed_in_time(server, exposures, events, ok, warning, said):
    """Who was not, or only afterwards, counts for nothing."""
    server.define()
    server.post(*[exposure(unit, at=at) for unit, at in exposures])
    server.post(*[event(unit, at=5) for unit in events])
    found = checked(server)["latency", "exposure"]
    assert (found.ok, found.warning) == (ok, warning)
    assert said in found.detail


def test_keys_that_are_made_anew_in_each_call_are_named(server):
    """From the sixth on: a few may be so by chance; keys of people are none."""
    server.define()
    server.post(*[event(f"{number:032x}") for number in range(FEW)])
    assert "look generated" not in checked(server)["latency", "exposure"].detail
    server.post(event("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"))
    assert "look generated" in checked(server)["latency", "exposure"].detail
    server.post(event("ana"))
    assert "look generated" not in checked(server)["latency", "exposure"].detail


def test_events_that_no_metric_reads_are_listed(server):
    """But those of LaunchDarkly's own."""
    server.define()
    for key in ("latency", "b.stray", "a.stray", "$ld:ai:tokens", "otel.http"):
        server.post(event("a", key=key))
    stray = [check.subject for check in checked(server).values() if check.check == "definition"]
    assert stray == ["a.stray", "b.stray"]


def test_only_the_metrics_of_a_project_are_checked(server):
    """Of another one nothing is said."""
    server.define()
    server.post(event("a"))
    assert ("latency", "exposure") in checked(server, project="default")
    assert set(checked(server, project="shop")) == {("latency", "definition")}
