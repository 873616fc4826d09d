"""What arrives in any order and in many pieces comes to the same statistics as all at once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldinstrument.analysis import SufficientStatistics
from ldinstrument.devserver.events.filtered_series import series_of
from ldinstrument.devserver.readout import unit_values

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    server.define()
    yield server
    server.database.close()


MOMENTS = st.lists(
    st.one_of(
        st.tuples(st.just("e"), st.sampled_from("ab"), st.integers(0, 1), st.integers(1, 9)),
        st.tuples(st.just("m"), st.sampled_from("ab"), st.integers(-9, 9), st.integers(1, 9)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(moments=MOMENTS, looks=st.lists(st.booleans(), min_size=12, max_size=12))
def test_reading_in_between_changes_nothing(moments, looks):
    """The statistics that were kept up to date equal those of one look at the end."""
    events = [
        exposure(unit, number, at) if what == "e" else event(unit, number, at)
        for what, unit, number, at in moments
    ]
    kept, fresh = Server(), Server()
    for server in (kept, fresh):
        server.define()
    for one_event, look in zip(events, looks, strict=False):
        kept.post(one_event)
        fresh.post(one_event)
        if look:
            kept.reader.read()
    kept_cells, fresh_cells = [cell_of(s) for s in (kept, fresh)]
    assert kept_cells == fresh_cells
    for server in (kept, fresh):
        server.database.close()


def cell_of(server: Server) -> list[tuple]:
    (experiment,) = server.reader.read().experiments or (None,)
    if experiment is None:
        return []
    (metric,) = experiment.metrics
    return [
        (
            row.variation,
            row.units,
            row.measured,
            row.events,
            row.mean,
            row.p50,
            statistics_of(metric, row.variation),
        )
        for row in metric.rows
    ]


def statistics_of(metric, variation: int) -> SufficientStatistics | None:
    return metric.statistics.of(variation).copy() if metric.statistics else None


def test_pieces_smaller_than_a_post_come_to_the_same(monkeypatch):
    """One row at a time, and all at once."""
    rng = random.Random(5)
    events = [exposure(f"u{i}", i % 2, 5) for i in range(20)]
    events += [event(f"u{rng.randrange(20)}", rng.random(), rng.randrange(10)) for _ in range(60)]
    found = []
    for chunk in (1, 7, 4_000):
        monkeypatch.setattr(unit_values, "CHUNK", max(chunk, 2))
        monkeypatch.setattr(unit_values, "MEASUREMENTS", max(chunk, 2))
        monkeypatch.setattr(unit_values, "LATE_CHUNK", max(chunk, 2))
        server = Server()
        server.define()
        server.post(*events[:50])
        server.post(*events[50:])
        found.append([server.row(0), server.row(1)])
        server.database.close()
    assert found[0] == found[1] == found[2]


def test_a_fold_that_is_cut_short_goes_on_later(server):
    """And ends with the same numbers."""
    server.post(*(exposure(f"u{i}") for i in range(30)))
    server.post(*(event(f"u{i}") for i in range(30)))
    assert server.reader.unit_values.aggregate(seconds=0) is False
    assert server.reader.unit_values.pending() > 0
    assert server.reader.unit_values.aggregate() is True
    assert server.reader.unit_values.pending() == 0
    assert server.row().measured == 30


def test_a_database_file_is_read_out_as_before(tmp_path):
    """After a restart the statistics are made from the values of units that were kept."""
    path = str(tmp_path / "dev.db")
    rows = []
    for step in range(3):
        server = Server(path)
        server.posts = step * 10
        if step == 0:
            server.define()
            server.post(exposure("a"), exposure("b"), event("a", 3), event("b", 5))
        if step == 1:
            server.post(event("a", 10))
        rows.append((server.row().mean, server.row().events))
        server.database.close()
    assert rows == [(4.0, 2), (5.75, 3), (5.75, 3)]


def test_events_count_ninety_days_from_the_exposure(server):
    """One millisecond later is too late."""
    ninety_days = 7_776_000_000
    server.post(exposure("a", at=1000))
    server.post(event("a", 1, at=999 + ninety_days), event("a", 100, at=1000 + ninety_days))
    assert (server.row().events, server.row().mean) == (1, 1.0)


def test_an_event_at_the_very_moment_of_the_exposure_counts(server):
    """One before it does not."""
    server.post(event("a", 7, at=5), event("a", 100, at=4), exposure("a", at=5))
    assert (server.row().events, server.row().mean) == (1, 7.0)


def test_iterations_have_exposures_and_events_of_their_own(server):
    """What comes between two counts in neither."""
    server.post(exposure("a", 0, at=10), event("a", 1, at=20))
    server.reader.start_iteration("f", at=100)
    server.post(exposure("a", 1, at=110), event("a", 5, at=120))
    server.reader.stop_iteration("f", at=200)
    server.post(exposure("b", 0, at=210), event("a", 50, at=220))
    assert [(it.number, it.running) for it in server.reader.iterations.of("f")] == [
        (1, False),
        (2, False),
    ]
    assert (server.row(0, iteration=1).mean, server.row(0, iteration=1).events) == (1.0, 1)
    assert (server.row(1, iteration=2).mean, server.row(1).units) == (5.0, 1)
    with pytest.raises(KeyError):
        server.row(0, iteration=2)


def test_an_event_counts_for_the_iteration_of_its_date_only(server):
    """Events of a unit that was exposed in both: by their dates, not by when they arrived."""
    server.post(exposure("a", 0, at=10))
    server.reader.start_iteration("f", at=100)
    server.post(exposure("a", 0, at=110))
    server.post(event("a", 1, at=50), event("a", 3, at=150))
    assert (server.row(iteration=1).mean, server.row(iteration=2).mean) == (1.0, 3.0)


def test_filters_choose_events_of_data_and_context(server):
    """Also for events that were there before the metric, and beside the unfiltered metric."""
    chat = {"type": "eventProperty", "attribute": "kind", "op": "in", "values": ["chat"]}
    server.post(exposure("a"), event("a", 1, kind="chat"), event("a", 100, kind="mail"))
    server.define(key="chat", filters={**chat, "negate": False})
    server.define(key="not-chat", filters={**chat, "negate": True})
    assert [server.row(metric=key).mean for key in ("latency", "chat", "not-chat")] == [
        50.5,
        1.0,
        100.0,
    ]
    server.post(event("a", 3, kind="chat"), event("a", 3), event("a", 3, kind=["chat"]))
    assert (server.row(metric="chat").events, server.row(metric="chat").mean) == (2, 2.0)
    assert server.row(metric="not-chat").events == 3


def test_values_beyond_the_winsor_percentile_are_cut(server):
    """In the metric that asks for it only."""
    server.define(key="cut", winsorUpperPercentile=90)
    for i in range(10):
        unit = f"u{i}"
        server.post(exposure(unit, i % 2), event(unit, 1000 if i == 9 else i))
    result = server.reader.read().result("cut", "f")
    plain = server.reader.read().result("latency", "f")
    assert plain.treatment("1").data_mean.value == pytest.approx((1 + 3 + 5 + 7 + 1000) / 5)
    assert result.treatment("1").data_mean.value == pytest.approx((1 + 3 + 5 + 7 + 8) / 5)


def test_a_metric_whose_kind_was_never_exposed_has_rows_with_the_reason(server):
    """Instead of rows that are missing."""
    server.define(key="per-request", analysisUnits=["request"])
    server.post(exposure("a"), event("a", 1))
    row = server.row(metric="per-request")
    assert (row.units, row.estimate, row.context_kind) == (0, None, "")
    assert "nobody was exposed as request" in row.reason
    with pytest.raises(KeyError, match="nobody was exposed as request"):
        server.reader.read().result("per-request", "f")


def test_the_analysis_is_that_of_the_units(server):
    """Difference, interval, probability and split check come from `analysis`."""
    rng = random.Random(3)
    for i in range(400):
        unit, variation = f"u{i}", i % 2
        server.post(exposure(unit, variation), event(unit, rng.gauss(100 - 20 * variation, 10)))
    result = server.reader.read().result("latency", "f")
    (comparison,) = result.comparisons
    assert comparison.verdict.word == "better"
    assert comparison.difference.lower < -20 < comparison.difference.upper
    assert comparison.probability_to_beat_control.value > 0.999
    assert result.sample_ratio.value < 0.5


def test_unit_values_are_remembered_without_their_bodies():
    """What is too much to keep goes, oldest first; the numbers stay."""
    server = Server()
    server.event_log.max_body_bytes = 2_000
    server.define()
    server.post(exposure("a"))
    for i in range(50):
        server.post(event("a", i))
    assert len(server.event_log.reader.events()) < 30
    assert server.event_log.reader.events()[-1]["metricValue"] == 49
    assert (server.row().events, server.event_log.reader.count("custom")) == (50, 50)
    server.database.close()


def test_an_exposure_that_becomes_earlier_while_a_late_one_is_computed(monkeypatch):
    """Each of the unit's events counts once, however many pieces the computation takes."""
    monkeypatch.setattr(unit_values, "LATE_CHUNK", 3)
    server = Server()
    server.define()
    server.post(*[event("a", 1.0, at) for at in range(10, 30)])
    server.reader.read()
    server.post(exposure("a", 0, 20))
    assert not server.reader.unit_values.aggregate(seconds=0)  # unpacked
    assert not server.reader.unit_values.aggregate(seconds=0)  # exposed, late
    assert not server.reader.unit_values.aggregate(seconds=0)  # some of the late ones
    server.post(exposure("a", 1, 11))
    assert server.row(1).events == 19
    assert server.reader.unit_values.pending() == 0
    server.database.close()


def test_a_filtered_metric_that_is_new_is_filled_from_many_bodies_in_pieces():
    """What had arrived counts, and what arrives meanwhile, each once."""
    server = Server()
    server.define()
    for number in range(40):
        at = 2 + number
        server.post(exposure(f"u{number}"), event(f"u{number}", 1.0, at, plan="pro"))
        server.post(event(f"u{number}", 1.0, at, plan="free"))
    server.reader.read()
    filters = {"type": "eventProperty", "attribute": "plan", "op": "in", "values": ["pro"]}
    server.define(key="pro", filters=filters)
    server.event_log.filters()
    assert not server.reader.unit_values.aggregate(seconds=0)
    assert server.reader.unit_values.pending() > 0
    server.post(event("u1", 1.0, 90, plan="pro"))
    assert (server.row(0, "pro").measured, server.row(0, "pro").events) == (40, 41)
    server.database.close()


def test_what_is_dated_after_a_stop_counts_no_more_though_it_came_before(server):
    """A client's clock may be ahead; what was counted at once is taken out at the stop."""
    server.post(exposure("u", at=10), event("u", 1.0, at=20), event("u", 7.0, at=500))
    server.post(exposure("late", at=300), event("late", 9.0, at=310))
    assert (server.row().units, server.row().events) == (2, 3)
    server.reader.stop_iteration("f", at=100)
    row = server.row()
    assert (row.units, row.measured, row.events, row.mean) == (1, 1, 1, 1.0)


def test_an_exposure_dated_after_a_start_belongs_to_the_iteration_that_starts(server):
    """With its events, and with those that came before the start."""
    server.post(exposure("u", at=10), event("u", 1.0, at=20), event("u", 7.0, at=500))
    server.post(exposure("late", at=300), event("late", 9.0, at=310), event("late", 2.0, at=290))
    server.row()
    server.reader.start_iteration("f", at=100)
    server.post(event("late", 11.0, at=320))
    first, second = (server.row(iteration=number) for number in (1, 2))
    assert (first.units, first.events, first.mean) == (1, 1, 1.0)
    assert (second.units, second.events, second.mean) == (1, 2, 10.0)


def test_a_running_iteration_that_is_stopped_twice_stays_as_it_was(server):
    """The second stop finds nothing to take out."""
    server.post(exposure("u", at=10), event("u", 1.0, at=20))
    server.row()
    server.reader.stop_iteration("f", at=100)
    assert server.reader.stop_iteration("f", at=15) is None
    assert (server.row().units, server.row().events) == (1, 1)


def test_a_filtered_metric_is_measured_whoever_meets_it_first(server):
    """Its statistics may be made before anybody asked which filters there are."""
    server.post(exposure("u", at=1), event("u", 1.0, channel="web"), event("u", 2.0, channel="app"))
    server.row()
    wanted = {"type": "eventProperty", "attribute": "channel", "op": "in", "values": ["web"]}
    metric = server.define(key="web", filters=wanted)
    (iteration,) = server.reader.iterations.of("f")
    place = (iteration.id, "default", metric, series_of(metric), "user")
    server.reader.unit_values.statistics_of(*place)
    assert server.row(metric="web").events == 1
