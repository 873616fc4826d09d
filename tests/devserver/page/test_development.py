"""How a difference developed: each point is what the units until then say."""

from __future__ import annotations

import random

import pytest

from ldinstrument.analysis import moments_of, z_test
from ldinstrument.devserver.page.development import STEPS, development

from ..recorded_events import Server, event, exposure


@pytest.fixture(name="server")
def _server():
    server = Server()
    yield server
    server.database.close()


def points_of(server: Server) -> list:
    (experiment,) = server.reader.read().experiments
    (metric,) = experiment.metrics
    exposed = server.reader.unit_values.over_time(experiment.iteration.id, "user")
    return development(metric, exposed, 1, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"eventDefault": {"disabled": False}},
        {"unitAggregationType": "sum"},
        {"isNumeric": False, "unitAggregationType": "sum", "eventDefault": {"disabled": False}},
        {"isNumeric": False},
    ],
)
def test_the_last_point_is_the_comparison_of_all_units(server, fields):
    """Whatever the metric measures, with and without zero-fill."""
    server.define(**fields)
    rng = random.Random(1)
    values: dict[int, list[float]] = {0: [], 1: []}
    numeric, total = fields.get("isNumeric", True), fields.get("unitAggregationType") == "sum"
    fills = not numeric or fields.get("eventDefault") == {"disabled": False}
    for i in range(300):
        unit, variation = f"u{i}", i % 2
        server.post(exposure(unit, variation, at=1 + i))
        mine = [rng.uniform(1, 9) for _ in range(rng.randrange(3))]
        for value in mine:
            server.post(event(unit, value, at=2 + i))
        if not numeric:
            values[variation].append(float(len(mine)) if total else float(bool(mine)))
        elif mine:
            values[variation].append(sum(mine) if total else sum(mine) / len(mine))
        elif fills:
            values[variation].append(0.0)
    wanted = z_test(moments_of(values[0]), moments_of(values[1]), significance=0.1)
    points = points_of(server)
    figure = wanted.relative_difference
    assert points[-1].units == 300
    assert points[-1].value == pytest.approx(figure.value)
    assert (points[-1].lower, points[-1].upper) == pytest.approx((figure.lower, figure.upper))
    assert STEPS / 2 < len(points) <= STEPS
    assert [point.units for point in points] == sorted(point.units for point in points)


def test_there_is_none_for_percentiles_and_for_very_few_units(server):
    """A line through two points says nothing."""
    server.define(analysisType="percentile", percentileValue=90)
    for i in range(40):
        server.post(exposure(f"u{i}", i % 2), event(f"u{i}", float(i)))
    assert points_of(server) == []
    few = Server()
    few.define()
    few.post(exposure("a"), exposure("b", 1), event("a", 1.0), event("b", 2.0))
    assert points_of(few) == []
    few.database.close()
