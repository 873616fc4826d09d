"""The data under `/dev`: events, read-out, flags, for programs and the command line."""

from __future__ import annotations

import pytest

from ldinstrument.devserver import experiment_flag, simple_flag

from ..traffic import EVIL, traffic, won


def test_events_can_be_followed_by_their_id(http):
    """An event is neither skipped nor shown twice."""
    for i in range(5):
        http(
            "POST",
            "/bulk",
            json=[{"kind": "custom", "key": f"k{i}", "context": {"kind": "user", "key": "u"}}],
        )
    first = http("GET", "/dev/events?since=0&limit=3").json()
    assert [item["event"]["key"] for item in first["items"]] == ["k0", "k1", "k2"]
    rest = http("GET", f"/dev/events?since={first['last']}").json()
    assert [item["event"]["key"] for item in rest["items"]] == ["k3", "k4"]
    assert http("GET", f"/dev/events?since={rest['last']}").json() == {
        "items": [],
        "last": rest["last"],
    }
    assert [
        item["event"]["key"] for item in http("GET", "/dev/events?limit=2").json()["items"]
    ] == ["k3", "k4"]
    assert [
        item["event"]["key"] for item in http("GET", "/dev/events?since=0&key=k1").json()["items"]
    ] == ["k1"]
    assert http("GET", "/dev/events?limit=0").status_code == 400


def test_the_read_out_as_json_is_the_read_out(ld, http, metric):
    """Of the Python interface, number by number."""
    metric(eventDefault={"disabled": True})
    http("POST", "/bulk", json=traffic())
    said = http("GET", "/dev/readout").json()
    row = ld.readout().row("session.duration", "new-prompt", 1)
    (found,) = [line for line in said["rows"] if line["variation"] == 1]
    assert (
        (found["mean"], found["units"], found["events"])
        == (row.mean, row.units, row.events)
        == (1234.0, 1, 1)
    )
    assert found["value"] == EVIL
    assert http("GET", "/dev/readout?project=other").json()["rows"] == []
    assert [finding.ok for finding in ld.health() if finding.subject == "session.duration"] == [
        True
    ] * 4
    assert [
        f["ok"] for f in http("GET", "/dev/health").json() if f["subject"] == "session.duration"
    ] == [True] * 4


def test_flags_can_be_changed_from_another_process(ld, http):
    """Each change is a new version; what is no flag is refused."""
    path = "/dev/flags/some-flag"
    assert http("PUT", path, json=simple_flag("some-flag", [1, 2])).json()["version"] == 1
    assert http("PUT", path, json=experiment_flag("some-flag", [1, 2])).json()["version"] == 2
    assert {flag["key"] for flag in http("GET", "/dev/flags").json()} == {"new-prompt", "some-flag"}
    for body in (
        {},
        [],
        {"key": "other", "variations": []},
        {"variations": 3},
        {"variations": [], "version": "x"},
    ):
        assert http("PUT", path, json=body).status_code == 400
    assert http("PUT", path, data=b"{").status_code == 400
    assert http("DELETE", path).status_code == 204
    assert http("DELETE", path).status_code == 404
    assert "some-flag" not in http("GET", "/sdk/latest-all").json()["flags"]


def test_the_read_out_carries_the_analysis_of_each_metric(http, metric):
    """In the shape of LaunchDarkly's results, ours beside; with a reason where there is none."""
    metric(key="answer.duration", eventKey="answer.duration", eventDefault={"disabled": True})
    metric(key="per-request", eventKey="answer.duration", analysisUnits=["request"])
    http("POST", "/bulk", json=won("new-prompt"))
    (experiment,) = http("GET", "/dev/readout").json()["experiments"]
    assert (experiment["flag"], experiment["iteration"]) == ("new-prompt", 1)
    assert [variation["units"] for variation in experiment["variations"]] == [300, 300]
    found = {each["metric"]: each for each in experiment["metrics"]}
    result = found["answer.duration"]["result"]
    assert {"treatmentId", "relativeDifferences", "pBest"} <= set(result["treatmentResults"][1])
    (comparison,) = result["ldinstrument"]["comparisons"]
    assert comparison["verdict"]["word"] == "better"
    assert found["per-request"]["result"] is None
    assert "nobody was exposed as request" in found["per-request"]["reason"]


class AwayStore:
    """Open visits in a store that does not answer."""

    def open(self) -> int:
        raise ConnectionError("connection refused")

    def end(self) -> int:
        raise ConnectionError("connection refused")


def test_the_page_goes_on_while_the_store_of_visits_is_away(ld, http):
    """It says so, and ending the visits is refused with the reason."""
    ld.visits = AwayStore()
    assert "The store does not answer: connection refused" in http("GET", "/").text
    refused = http("POST", "/dev/forms/visits", data={"back": "visits"})
    assert refused.status_code == 503
    assert "connection refused" in refused.text


def test_without_a_store_the_page_says_how_visits_are_seen_and_ended(http):
    """Those in a program's memory can only be ended by the program."""
    shown = http("GET", "/").text
    assert "ldinstrument dev --store sqlite:///visits.db" in shown
    assert "can only be ended by that program" in shown


@pytest.mark.parametrize(
    "flag",
    [
        {"variations": []},
        {"variations": [1, 2], "fallthrough": {"variation": 9}},
        {"variations": [1, 2], "fallthrough": []},
        {"variations": [1, 2], "rules": 7},
        {"variations": [1, 2], "on": "yes"},
        {"variations": [1, 2], "targets": [{"variation": 0, "values": 1}]},
    ],
)
def test_a_flag_that_no_sdk_can_evaluate_is_refused(http, flag):
    """An SDK that got it might end its stream."""
    assert http("PUT", "/dev/flags/odd", json=flag).status_code == 400
    assert "odd" not in {known["key"] for known in http("GET", "/dev/flags").json()}


def test_a_form_that_is_refused_says_so_in_words_with_the_way_back(http):
    """Markup in the key is text there, too."""
    form = {"key": EVIL, "mode": "experiment", "variations": "a", "back": "flags"}
    answer = http("POST", "/dev/forms/flag", data=form)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert "two or more variations" in answer.text
    assert 'href="/#flags"' in answer.text
    assert "<img" not in answer.text
