"""The read-out as values: rows and totals are found by name, and what is not there is said."""

from __future__ import annotations

import pytest

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="readout")
def _readout():
    server = Server()
    server.define()
    server.define(key="share", isNumeric=False, unit=None, successCriteria=None)
    server.post(exposure("a"), exposure("b", 1), event("a", 3.0), event("b", 5.0))
    yield server.reader.read()
    server.database.close()


def test_a_row_is_found_by_metric_flag_and_variation(readout):
    """There is one for each metric and variation."""
    assert readout.row("latency", "f", 1).mean == 5.0
    assert readout.row("share", "f", 0).estimate == 1.0
    assert len(readout.rows) == 4
    for wrong in (("nobodys", "f", 0), ("latency", "g", 0), ("latency", "f", 2)):
        with pytest.raises(KeyError):
            readout.row(*wrong)


def test_a_total_is_found_by_event_key(readout):
    """Whoever was exposed, with the metrics that read it."""
    total = readout.total("latency")
    assert (total.events, total.sum, total.metrics) == (2, 8.0, ("latency", "share"))
    with pytest.raises(KeyError):
        readout.total("nobodys")


def test_a_row_tells_its_distribution(readout):
    """The mean and four percentiles of its units."""
    row = readout.row("latency", "f", 0)
    assert (row.mean, row.p50, row.p90, row.p95, row.p99) == (3.0,) * 5


def test_a_result_is_found_by_metric_and_flag():
    """Where nobody was exposed it says so."""
    server = Server()
    server.define()
    server.define(key="per-request", analysisUnits=["request"])
    server.post(exposure("a"), exposure("b", 1), event("a", 3.0), event("b", 5.0))
    readout = server.reader.read()
    assert readout.result("latency", "f").treatment("1").data_mean.value == 5.0
    with pytest.raises(KeyError, match=r"per-request by f: .*nobody was exposed as request"):
        readout.result("per-request", "f")
    with pytest.raises(KeyError):
        readout.result("latency", "g")
    server.database.close()
