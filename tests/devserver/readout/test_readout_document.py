"""The read-out as JSON: everything that the page and the terminal show."""

from __future__ import annotations

import json

import pytest

from ldinstrument.devserver import experiment_flag
from ldinstrument.devserver.readout.readout_document import readout_document, statistic_of

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    server.define()
    server.database.put("flag", "", "f", experiment_flag("f", ["v0", "v1"], metrics=["latency"]))
    yield server
    server.database.close()


def document(server: Server) -> dict:
    """As it is after its way through JSON, in which no number is none."""
    return json.loads(json.dumps(readout_document(server.reader.read(), 7), allow_nan=False))


def test_an_experiment_is_told_with_its_variations_and_metrics(server):
    """Each metric with its rows and its analysis."""
    server.post(*[exposure(f"u{n}", n % 2) for n in range(60)])
    server.post(*[event(f"u{n}", float(n % 7 + n % 2)) for n in range(60)])
    found = document(server)
    assert found["revision"] == 7
    (experiment,) = found["experiments"]
    assert (experiment["flag"], experiment["iteration"], experiment["running"]) == ("f", 1, True)
    assert experiment["kinds"] == ["user"]
    assert [variation["value"] for variation in experiment["variations"]] == ["v0", "v1"]
    (metric,) = experiment["metrics"]
    assert (metric["metric"], metric["project"], metric["unit"]) == ("latency", "default", "ms")
    assert (metric["statistic"], metric["higherIsBetter"], metric["reason"]) == ("mean", False, "")
    assert [row["units"] for row in metric["rows"]] == [30, 30]
    assert metric["result"]["treatmentResults"][1]["units"] == 30
    assert found["rows"] == metric["rows"]
    assert found["totals"][0]["p50"] is not None


def test_a_distribution_stands_beside_the_other_fields(server):
    """Also one of nothing; then there is a reason."""
    server.post(exposure("a"))
    (row, _) = document(server)["rows"]
    assert "distribution" not in row
    assert (row["mean"], row["p99"], row["estimate"]) == (None, None, None)
    assert row["reason"] == "no exposed unit has a value yet"


def test_a_metric_without_an_analysis_says_why(server):
    """Nobody was exposed by its unit."""
    server.define(key="per-request", analysisUnits=["request"])
    server.post(exposure("a"), event("a"))
    (experiment,) = document(server)["experiments"]
    found = next(metric for metric in experiment["metrics"] if metric["metric"] == "per-request")
    assert found["result"] is None
    assert "nobody was exposed as request" in found["reason"]


def test_nothing_is_a_document_too(server):
    """Before anything has arrived."""
    assert document(server) == {"revision": 7, "experiments": [], "rows": [], "totals": []}


@pytest.mark.parametrize(
    ("metric", "statistic"),
    [
        ({"analysisType": "percentile", "percentileValue": 95, "isNumeric": True}, "p95"),
        ({"isNumeric": True}, "mean"),
        ({"isNumeric": True, "unitAggregationType": "sum"}, "total"),
        ({"unitAggregationType": "sum"}, "events per unit"),
        ({}, "share"),
    ],
)
def test_what_a_metric_compares_has_a_word(metric, statistic):
    """Which follows from three of its fields."""
    assert statistic_of(metric) == statistic
