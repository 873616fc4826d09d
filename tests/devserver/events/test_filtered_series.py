"""The events that pass the filters of a metric: a series of its own, of earlier ones, too."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.events.filtered_series import series_of

from ..recorded_events import Server, event, exposure

BOOKS = {"type": "eventProperty", "attribute": "category", "op": "in", "values": ["books"]}
TOYS = {**BOOKS, "values": ["toys"]}


@pytest.fixture(name="server")
def _server():
    server = Server()
    yield server
    server.database.close()


def bought(unit: str, category: str, value: float = 1.0) -> dict:
    return event(unit, value, category=category)


def test_metrics_of_the_same_filters_read_one_series():
    """Whatever the order of the fields; without filters it is that of the key."""
    metric = {"eventKey": "latency", "filters": BOOKS}
    assert series_of(metric) == series_of({**metric, "filters": dict(reversed(BOOKS.items()))})
    assert series_of(metric) != series_of({**metric, "filters": TOYS})
    assert series_of(metric) != series_of({**metric, "eventKey": "other"})
    assert series_of({"eventKey": "latency"}) == series_of({"eventKey": "latency", "filters": None})


def test_events_are_tested_for_the_filters_that_metrics_ask_for(server):
    """By event key, each filter once, asked for anew when a metric changes."""
    assert server.event_log.filters() == {}
    server.define(key="books", filters=BOOKS)
    server.define(key="more-books", filters=BOOKS)
    server.define(key="toys", filters=TOYS)
    ((key, found),) = server.event_log.filters().items()
    assert key == "latency"
    assert len(found) == 2
    assert server.event_log.filters() is server.event_log.filters()
    server.database.remove("metric", "default", "toys")
    assert [len(filters) for filters in server.event_log.filters().values()] == [1]


def test_what_arrived_before_a_metric_was_made_is_measured_for_it(server):
    """A body at a time; what arrives meanwhile is counted once."""
    server.post(exposure("a"), exposure("b"))
    for _ in range(3):
        server.post(bought("a", "books"), bought("b", "toys"))
    metric = server.define(key="books", filters=BOOKS, unitAggregationType="sum")
    filtered = server.event_log.filtered
    server.event_log.filters()
    assert filtered.waiting() == 1
    server.post(bought("a", "books", 10.0))
    steps = 0
    while filtered.fill():
        steps += 1
    assert filtered.waiting() == 0
    assert steps >= 3
    row = server.row(metric=metric["key"])
    assert (row.units, row.measured, row.mean) == (2, 1, 13.0)


def test_a_series_that_is_known_is_not_filled_again(server):
    """Nor one of a metric that is gone by then."""
    server.define(key="books", filters=BOOKS)
    server.post(bought("a", "books"))
    server.event_log.filters()
    while server.event_log.filtered.fill():
        pass
    server.database.remove("metric", "default", "books")
    server.define(key="books-again", filters=BOOKS)
    server.event_log.filters()
    assert server.event_log.filtered.waiting() == 0
    server.post(bought("a", "toys"))
    server.define(key="toys", filters=TOYS)
    server.event_log.filters()
    server.database.remove("metric", "default", "toys")
    assert server.event_log.filtered.fill()
    assert not server.event_log.filtered.fill()
