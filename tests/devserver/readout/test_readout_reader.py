"""The read-out against expectations computed another way: event by event, without SQL."""

from __future__ import annotations

import json
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ldclient import Context

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.devserver.api.metric_rules import checked
from ldinstrument.devserver.database import Database
from ldinstrument.devserver.events.bodies import parse_array
from ldinstrument.devserver.events.event_log import EventLog
from ldinstrument.devserver.events.post_rows import rows_of_post
from ldinstrument.devserver.events.received import Post
from ldinstrument.devserver.readout import readout_reader
from ldinstrument.devserver.readout.readout import Readout
from ldinstrument.devserver.readout.readout_reader import ReadoutReader, analysis_unit, weights_of
from ldinstrument.devserver.server import SCHEMA

from .. import recorded_events
from ..recorded_events import Server, exposure

FLAGS = ["f1", "f2"]
KINDS = ["user", "request"]
EVENT_KEYS = ["latency", "buy"]
NO_ZERO = {"eventDefault": {"disabled": True}}
METRICS = [
    {"key": "sum", "eventKey": "latency", "isNumeric": True, "unitAggregationType": "sum"},
    {
        "key": "sum-no-zero",
        "eventKey": "latency",
        "isNumeric": True,
        "unitAggregationType": "sum",
        **NO_ZERO,
    },
    {"key": "mean", "eventKey": "latency", "isNumeric": True, "eventDefault": {"disabled": True}},
    {"key": "mean-zero", "eventKey": "latency", "isNumeric": True},
    {
        "key": "p75",
        "eventKey": "latency",
        "isNumeric": True,
        "analysisType": "percentile",
        "percentileValue": 75,
    },
    {"key": "count", "eventKey": "buy", "isNumeric": False, "unitAggregationType": "sum"},
    {"key": "share", "eventKey": "buy", "isNumeric": False},
    {"key": "per-request", "eventKey": "buy", "isNumeric": False, "analysisUnits": ["request"]},
]
METRICS = [
    {"kind": "custom", "unit": "ms", "successCriteria": "HigherThanBaseline", **metric}
    for metric in METRICS
]

CONTEXT = st.dictionaries(st.sampled_from(KINDS), st.sampled_from(["a", "b", "c"]), min_size=1)
TIME = st.integers(1, 12)
EXPOSURE = st.tuples(
    st.just("feature"), TIME, CONTEXT, st.sampled_from(FLAGS), st.integers(0, 2), st.booleans()
)
VALUE = st.none() | st.just(True) | st.just("7") | st.integers(-50, 50) | st.floats(-1e6, 1e6)
TRACKED = st.tuples(
    st.just("custom"), TIME, CONTEXT, st.sampled_from(EVENT_KEYS), VALUE, st.booleans()
)


def as_context(keys: dict, old: bool = False) -> dict:
    if old:
        return {"contextKeys": keys}
    if len(keys) == 1:
        ((kind, key),) = keys.items()
        return {"context": {"kind": kind, "key": key}}
    return {"context": {"kind": "multi", **{kind: {"key": key} for kind, key in keys.items()}}}


def as_event(event: tuple) -> dict:
    if event[0] == "feature":
        _, at, keys, flag, variation, in_experiment = event
        reason = {"kind": "FALLTHROUGH", **({"inExperiment": True} if in_experiment else {})}
        return {
            "kind": "feature",
            "creationDate": at,
            "key": flag,
            "variation": variation,
            "value": f"v{variation}",
            "reason": reason,
            **as_context(keys),
        }
    _, at, keys, key, value, old = event
    return {
        "kind": "custom",
        "creationDate": at,
        "key": key,
        **({} if value is None else {"metricValue": value}),
        **as_context(keys, old),
    }


def filled(events: list[tuple]) -> Database:
    """A database with metrics and these events, in posts of three."""
    store = Database(schema=SCHEMA)
    event_log = EventLog(store)
    for metric in METRICS:
        store.put("metric", "default", metric["key"], checked(metric, KINDS))
    for start in range(0, len(events), 3):
        items = [as_event(event) for event in events[start : start + 3]]
        post = Post("/bulk", f"p{start}", 202, 0, len(items), False, 99)
        body = json.dumps(items).encode()
        batch = rows_of_post(body, parse_array(body), 99, event_log.filters())
        event_log.record(post, batch)
    return store


def read_out(database: Database, project: str | None = None) -> Readout:
    return ReadoutReader(database, EventLog(database)).read(project)


def expected(events: list[tuple]) -> dict:
    """LaunchDarkly's semantics, spelt out as loops."""
    rows = {}
    for metric in METRICS:
        kinds = metric.get("analysisUnits", ["user"])
        for flag in FLAGS:
            exposures = [e for e in events if e[0] == "feature" and e[3] == flag and e[5]]
            kind = next((k for k in kinds if any(k in e[2] for e in exposures)), None)
            first: dict[str, tuple[int, int]] = {}
            for event in exposures:
                if kind in event[2]:
                    unit = event[2][kind]
                    if unit not in first or event[1] < first[unit][0]:
                        first[unit] = (event[1], event[4])
            for variation in {variation for _, variation in first.values()}:
                units = [unit for unit, (_, seen) in first.items() if seen == variation]
                rows[metric["key"], flag, variation] = one(metric, kind, units, first, events)
    return rows


def one(metric, kind, units, first, events):
    values, used = [], 0
    for unit in units:
        mine = [
            e[4]
            for e in events
            if e[0] == "custom"
            and e[3] == metric["eventKey"]
            and e[2].get(kind) == unit
            and e[1] >= first[unit][0]
        ]
        numbers = [float(value) for value in mine if type(value) in (int, float)]
        zero = not metric.get("eventDefault", {}).get(
            "disabled", metric.get("analysisType") == "percentile"
        )
        if metric["isNumeric"]:
            used += len(numbers)
            if numbers:
                values.append(
                    sum(numbers)
                    if metric.get("unitAggregationType") == "sum"
                    else statistics.fmean(numbers)
                )
            elif zero:
                values.append(0.0)
        else:
            used += len(mine)
            values.append(
                float(len(mine))
                if metric.get("unitAggregationType") == "sum"
                else float(bool(mine))
            )
    return kind, len(units), used, sorted(values)


@settings(max_examples=300, deadline=None)
@given(events=st.lists(EXPOSURE | TRACKED, max_size=25))
def test_every_row_is_what_a_count_by_hand_gives(events):
    """For generated event_log."""
    readout = read_out(filled(events))
    wanted = expected(events)
    found = {(row.metric, row.flag, row.variation): row for row in readout.rows}
    assert set(wanted) <= set(found)
    for place in set(found) - set(wanted):
        assert (found[place].units, found[place].estimate) == (0, None)
        assert found[place].reason
    for place, (kind, units, used, values) in wanted.items():
        row = found[place]
        assert (row.context_kind, row.units, row.events) == (kind, units, used)
        assert row.value == f"v{row.variation}"
        if not values:
            assert (row.mean, row.p50, row.estimate) == (None, None, None)
            continue
        within = max(map(abs, values)) * 0.004 + 1e-6  # what a bucket may hide
        assert row.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
        assert row.p50 == pytest.approx(statistics.median(values), abs=within)
        if row.metric != "p75":
            assert row.estimate == pytest.approx(statistics.fmean(values), abs=1e-6)
        elif len(values) == 1:
            assert row.estimate == pytest.approx(values[0], abs=within)
        else:
            hundredths = statistics.quantiles(values, n=100, method="inclusive")
            assert row.estimate == pytest.approx(hundredths[74], abs=within)


@settings(max_examples=100, deadline=None)
@given(events=st.lists(EXPOSURE | TRACKED, max_size=25))
def test_totals_count_every_event_whoever_was_exposed(events):
    """For generated event_log."""
    totals = {total.event_key: total for total in read_out(filled(events)).totals}
    for key in EVENT_KEYS:
        tracked = [event[4] for event in events if event[0] == "custom" and event[3] == key]
        numbers = [float(value) for value in tracked if type(value) in (int, float)]
        if not tracked:
            assert key not in totals
            continue
        assert (totals[key].events, totals[key].values) == (len(tracked), len(numbers))
        assert totals[key].sum == pytest.approx(sum(numbers), abs=1e-6)
        assert totals[key].metrics == tuple(
            metric["key"] for metric in METRICS if metric["eventKey"] == key
        )


def test_order_of_arrival_does_not_matter():
    """SDKs flush in parallel: an exposure may arrive after the event that followed it, or twice."""
    events = [
        ("custom", 5, {"user": "a"}, "buy", None, False),
        ("feature", 7, {"user": "a"}, "f1", 1, True),
        ("feature", 3, {"user": "a"}, "f1", 0, True),
        ("feature", 3, {"user": "b"}, "f1", 1, True),
        ("custom", 2, {"user": "b"}, "buy", None, False),
    ]
    for seed in range(20):
        random.Random(seed).shuffle(events)
        readout = read_out(filled(events))
        assert (readout.row("share", "f1", 0).mean, readout.row("share", "f1", 1).mean) == (
            1.0,
            0.0,
        )


def test_the_randomization_unit_goes_before_the_first_listed_one():
    """Where a metric allows several units."""
    events = [("feature", 1, {"user": "a", "request": "r"}, "f1", 0, True)]
    store = filled(events)
    store.put(
        "metric",
        "default",
        "both",
        checked({**METRICS[6], "key": "both", "analysisUnits": KINDS}, KINDS),
    )
    assert read_out(store).row("both", "f1", 0).context_kind == "user"
    store.put("flag", "", "f1", experiment_flag("f1", context_kind="request"))
    assert read_out(store).row("both", "f1", 0).context_kind == "request"


def test_archived_metrics_and_unknown_rows():
    """Neither has a row."""
    store = filled([("feature", 1, {"user": "a"}, "f1", 0, True)])
    store.put(
        "metric",
        "default",
        "share",
        {**store.document("metric", "default", "share"), "archived": True},
    )
    with pytest.raises(KeyError):
        read_out(store).row("share", "f1", 0)
    with pytest.raises(KeyError):
        read_out(store).total("buy")
    assert read_out(store, "elsewhere").rows == ()


def test_real_traffic_of_the_sdk_reads_out_as_it_was(ld: LocalLaunchDarkly, sdk, metric):
    """Whole way: real evaluations decide who is where, and the read-out has to agree with the
    program's own books.
    """
    metric(key="latency", eventKey="latency", eventDefault={"disabled": True})
    metric(
        key="revenue",
        eventKey="buy",
        unit="dollars",
        unitAggregationType="sum",
        successCriteria="HigherThanBaseline",
    )
    client = sdk()
    rng = random.Random(7)
    books: dict[str, list[tuple[list[float], float]]] = {"short": [], "long": []}
    client.track("latency", Context.create("early"), None, 1e9)
    for i in range(300):
        context = Context.create(f"u-{i}")
        value = client.variation("new-prompt", context, "none")
        latencies = [rng.uniform(1, 1000) for _ in range(rng.randrange(4))]
        spent = float(rng.randrange(50)) if rng.random() < 0.4 else 0.0
        for latency in latencies:
            client.track("latency", context, None, latency)
        if spent:
            client.track("buy", context, {"category": "books"}, spent)
        books[value].append((latencies, spent))
    client.flush()
    ld.wait_for(lambda: ld.count("feature") == 300 and ld.count("summary") >= 1)
    readout = ld.readout()
    for variation, value in enumerate(["short", "long"]):
        row = readout.row("latency", "new-prompt", variation)
        means = [statistics.fmean(latencies) for latencies, _ in books[value] if latencies]
        assert (row.value, row.units, row.measured) == (value, len(books[value]), len(means))
        assert row.events == sum(len(latencies) for latencies, _ in books[value])
        assert row.mean == pytest.approx(statistics.fmean(means))
        revenue = readout.row("revenue", "new-prompt", variation)
        assert revenue.mean == pytest.approx(statistics.fmean(spent for _, spent in books[value]))
    assert (
        readout.total("latency").values
        == sum(len(latencies) for rows in books.values() for latencies, _ in rows) + 1
    )


def test_what_was_reset_is_not_read_out_again():
    """The POSTs after a reset have the numbers of those before."""
    events = [("custom", 5, {"user": key}, "buy", 1.0, False) for key in "abc"]
    store = filled(events)
    event_log = EventLog(store)
    reader = ReadoutReader(store, event_log)
    reader.read()
    event_log.forget()
    reader.unit_values.forget()
    items = [as_event(("custom", 6, {"user": "z"}, "buy", 2.0, False))]
    body = json.dumps(items).encode()
    batch = rows_of_post(body, parse_array(body), 99, event_log.filters())
    event_log.record(Post("/bulk", "q", 202, 0, 1, False, 99), batch)

    assert reader.read().total("buy").sum == 2.0
    assert store.rows("SELECT key FROM units") == [("z",)]


@pytest.mark.parametrize(
    ("flag", "weights"),
    [
        ({}, {}),
        ({"fallthrough": {"variation": 0}}, {}),
        (experiment_flag("f", ["a", "b"], weights=[1, 3]), {0: 25_000.0, 1: 75_000.0}),
        ({"rules": [{"rollout": {"kind": "rollout", "variations": []}}]}, {}),
        (
            {
                "fallthrough": {
                    "rollout": {
                        "kind": "experiment",
                        "variations": [
                            {"variation": 0, "weight": 10},
                            {"variation": 1, "weight": 20},
                            {"variation": 0, "weight": 30},
                            {"variation": 1, "weight": 40, "untracked": True},
                        ],
                    }
                }
            },
            {0: 40.0, 1: 20.0},
        ),
    ],
)
def test_shares_are_those_of_the_experiment(flag, weights):
    """What is outside of it has none; parts of one variation add up."""
    assert weights_of(flag) == weights


@pytest.mark.parametrize(
    ("units", "exposed", "randomized", "expected"),
    [
        (["user"], ["user"], "user", "user"),
        (["user", "request"], ["request", "user"], "request", "request"),
        (["user", "request"], ["request"], "user", "request"),
        (["request", "user"], ["request", "user"], None, "request"),
        (["request"], ["user"], "user", None),
        (["user"], [], "user", None),
    ],
)
def test_a_metric_is_analysed_by_a_unit_that_was_exposed(units, exposed, randomized, expected):
    """The experiment's own before others."""
    flag = experiment_flag("f", context_kind=randomized) if randomized else None
    assert analysis_unit({"analysisUnits": units}, flag, exposed) == expected


def test_a_read_out_is_computed_once_for_each_state():
    """Until something arrives or is defined; per project."""
    store = filled([("feature", 1, {"user": "a"}, "f1", 0, True)])
    event_log = EventLog(store)
    reader = ReadoutReader(store, event_log)
    first = reader.current()
    assert reader.current() is first
    assert reader.current("default") is not first
    store.put("flag", "", "f1", experiment_flag("f1"))
    assert reader.current() is not first


def test_the_control_comes_first_and_what_has_a_share_is_listed():
    """Whoever was exposed; values are those that were served, else those of the flag."""
    store = filled([("feature", 1, {"user": "a"}, "f1", 1, True)])
    flag = experiment_flag("f1", ["x", "y", "z"])
    store.put("flag", "", "f1", {**flag, "experimentControl": 2})
    (experiment,) = read_out(store).experiments
    found = [
        (variation.index, variation.value, variation.units) for variation in experiment.variations
    ]
    assert found == [(2, "z", 0), (0, "x", 0), (1, "v1", 1)]


def test_only_metrics_that_something_came_for_are_analysed_anew(monkeypatch):
    """The others say what they said; a unit more or another definition changes it."""
    server = Server()
    server.define(key="busy", eventKey="busy")
    server.define(key="quiet", eventKey="quiet")
    server.post(*(exposure(f"u{i}", i % 2) for i in range(40)))
    server.post(
        *(
            recorded_events.event(f"u{i}", float(i), key=key)
            for i in range(40)
            for key in ("busy", "quiet")
        )
    )
    server.reader.read()
    analysed = []
    real = readout_reader.analyse
    monkeypatch.setattr(
        readout_reader, "analyse", lambda *given: analysed.append(given[0].key) or real(*given)
    )
    server.post(recorded_events.event("u1", 5.0, key="busy"))
    server.reader.read()
    assert analysed == ["busy"]
    server.post(exposure("u99", 1))
    server.reader.read()
    assert sorted(analysed) == ["busy", "busy", "quiet"]
    server.define(key="quiet", eventKey="quiet", successCriteria="HigherThanBaseline")
    server.reader.read()
    assert sorted(analysed) == ["busy", "busy", "quiet", "quiet"]
