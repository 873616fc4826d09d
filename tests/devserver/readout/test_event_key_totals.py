"""Totals by event key: percentiles as Python's sorting gives them, found anew only when needed."""

from __future__ import annotations

import random
import statistics

import pytest

from ldinstrument.devserver.events import newest_values

from ..recorded_events import Server, event


@pytest.fixture(name="server")
def _server():
    server = Server()
    yield server
    server.database.close()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1_001])
def test_percentiles_are_those_of_the_values(server, count):
    """Equal values included."""
    rng = random.Random(count)
    values = [rng.choice([rng.uniform(-5, 5), 3.0]) for _ in range(count)]
    server.post(*[event("u", value) for value in values])
    total = server.reader.read().total("latency")
    assert (total.events, total.values) == (count, count)
    assert total.mean == pytest.approx(statistics.fmean(values))
    cuts = statistics.quantiles(values, n=100, method="inclusive") if count > 1 else values * 99
    found = total.distribution
    assert (found.p50, found.p90, found.p95, found.p99) == pytest.approx(
        tuple(cuts[share - 1] for share in (50, 90, 95, 99))
    )


def test_only_the_newest_values_make_the_percentiles(server, monkeypatch):
    """The mean is that of all."""
    monkeypatch.setattr(newest_values, "KEPT", 3)
    server.post(*[event("u", float(value)) for value in (1000, 1)])
    server.post(*[event("u", float(value)) for value in (2, 3)])
    total = server.reader.read().total("latency")
    assert (total.distribution.p50, total.mean) == (2.0, 251.5)


def test_a_key_without_new_values_is_not_sorted_again(server, monkeypatch):
    """Sorting is what costs."""
    server.post(event("u", 1.0), event("u", 2.0, key="other"))
    newest = server.reader.totals.newest
    asked: list[str] = []
    of = newest.of
    monkeypatch.setattr(newest, "of", lambda key: asked.append(key) or of(key))
    server.reader.read()
    server.post(event("u", 3.0, key="other"))
    assert server.reader.read().total("other").distribution.p50 == 2.5
    assert asked == ["latency", "other", "other"]


def test_events_without_numbers_have_no_percentiles(server):
    """They are counted all the same."""
    server.post(event("u", "seven"))
    total = server.reader.read().total("latency")
    assert (total.events, total.values, total.mean) == (1, 0, None)
