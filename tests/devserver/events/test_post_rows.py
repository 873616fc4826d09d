"""What the events of a POST become: each unit and series once, and columns that refer to them."""

from __future__ import annotations

import json

from ldinstrument.devserver.events.bodies import parse_array
from ldinstrument.devserver.events.post_rows import PostRows, rows_of_post

from ..recorded_events import event, exposure


def batch(*events: object, filters=None) -> PostRows:
    body = json.dumps(events).encode()
    return rows_of_post(body, parse_array(body), 99, filters)


def measurements(found: PostRows) -> list[tuple]:
    rows = found.builder.rows
    return [
        (rows.series[series], rows.units[unit], *rest)
        for series, unit, *rest in zip(
            rows.series_of, rows.unit_of, rows.created, rows.values, rows.is_first, strict=True
        )
    ]


def test_units_and_series_are_named_once():
    """Rows refer to them by their place."""
    found = batch(event("a", 1.0), event("a", 2.0), event("b", 3.0, key="other"), exposure("a", 1))
    rows = found.builder.rows
    assert (rows.units, rows.series) == ([("user", "a"), ("user", "b")], ["=latency", "=other"])
    assert measurements(found) == [
        ("=latency", ("user", "a"), 2, 1.0, 1),
        ("=latency", ("user", "a"), 2, 2.0, 1),
        ("=other", ("user", "b"), 2, 3.0, 1),
    ]
    assert rows.exposures == [("f", 0, 1, 1)]


def test_an_event_of_several_kinds_is_measured_for_each_and_counted_once():
    """One measurement for each kind of its context."""
    context = {"kind": "multi", "user": {"key": "u"}, "org": {"key": "o"}}
    found = batch({"kind": "custom", "key": "k", "context": context, "metricValue": 4})
    assert [(unit, first) for _, unit, _, _, first in measurements(found)] == [
        (("user", "u"), 1),
        (("org", "o"), 0),
    ]
    assert (found.keys["k"].events, found.keys["k"].kinds) == (1, {"user,org": 1})


def test_only_evaluations_in_an_experiment_are_exposures():
    """Summaries, debug events and impossible variations are none."""
    outside = {**exposure("a"), "reason": {"kind": "FALLTHROUGH"}}
    debug = {**exposure("a"), "kind": "debug"}
    huge = {**exposure("a"), "variation": 2**70}
    found = batch(
        outside, debug, huge, exposure("b", 1), {"kind": "summary", "features": {"g": {}}}
    )
    assert found.builder.rows.exposures == [("f", 0, 1, 1)]
    assert found.builder.rows.units == [("user", "b")]
    assert found.variations == {("f", 1): '"v1"'}
    assert found.evaluated == {"f": 1, "g": 99}


def test_events_that_pass_a_filter_have_a_series_of_their_own():
    """They also stay in the series of all events of the key."""
    filters = {"latency": [("~pro~latency", lambda item: item.get("data") == {"plan": "pro"})]}
    found = batch(event("a", 1.0, plan="pro"), event("b", 2.0, plan="free"), filters=filters)
    assert [(series, unit) for series, unit, *_ in measurements(found)] == [
        ("=latency", ("user", "a")),
        ("=latency", ("user", "b")),
        ("~pro~latency", ("user", "a")),
    ]


def test_what_is_no_event_is_left_out():
    """The others of the same POST count."""
    found = batch(1, None, [], {}, {"kind": 3}, {"kind": "custom"})
    assert (found.events, found.counts) == (1, {("custom", ""): 1})
    assert measurements(found) == []
