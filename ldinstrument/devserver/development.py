"""How a difference developed: what the units that were exposed until then say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..analysis import AnalysedMetric, Moments, z_test
from .aggregation import Cell
from .charts import Point
from .database import Database
from .readout import MetricReadout

STEPS = 24
LEAST_UNITS = 10
VALUES = {
    "occurrence": "iif(v.events > 0, 1.0, NULL)",
    "count": "iif(v.events > 0, v.events * 1.0, NULL)",
    "sum": "iif(v.valued > 0, v.total, NULL)",
    "average": "iif(v.valued > 0, v.total / v.valued, NULL)",
}
COHORTS = """
WITH shown AS (SELECT x.unit, x.variation, x.first,
    ntile({steps}) OVER (ORDER BY x.first, x.unit) AS step
  FROM exposures x WHERE x.iteration = ? AND x.kind = ?),
  valued AS (SELECT s.step, s.variation, {value} AS value FROM shown s
    LEFT JOIN unit_values v ON v.iteration = ? AND v.unit = s.unit AND v.series = ?)
SELECT step, variation, count(*), count(value), total(value), total(value * value) FROM valued
GROUP BY step, variation ORDER BY step
"""


class _Sums:
    """The units, their values' sum and sum of squares, as more and more come."""

    def __init__(self) -> None:
        self.exposed = self.measured = 0
        self.total = self.squares = 0.0

    def add(self, exposed: int, measured: int, total: float, squares: float) -> None:
        self.exposed += exposed
        self.measured += measured
        self.total += total
        self.squares += squares

    def moments(self, *, zero_fill: bool) -> Moments:
        units = self.exposed if zero_fill else self.measured
        if units < 2:
            return Moments(units, self.total, 0.0)
        mean = self.total / units
        variance = max(self.squares - units * mean * mean, 0.0) / (units - 1)
        return Moments(units, mean, variance)


def development(
    database: Database, found: MetricReadout, iteration: int, treatment: int, control: int
) -> list[Point]:
    """Return the relative difference as it was with the first units, and with more and more.

    It is that of means with the frequentist interval, without winsorisation; a percentile has none.
    """
    if found.cell is None or found.metric.get("analysisType") == "percentile":
        return []
    analysed = AnalysedMetric.from_document(found.metric)
    sums: dict[int, _Sums] = {treatment: _Sums(), control: _Sums()}
    points = []
    for _, rows in _steps(database, found.cell, iteration, analysed):
        for variation, counted in rows.items():
            if variation in sums:
                sums[variation].add(*counted)
        points += _point(sums[control], sums[treatment], zero_fill=analysed.fills_zeros)
    return points


def _steps(
    database: Database, cell: Cell, iteration: int, analysed: AnalysedMetric
) -> Iterator[tuple[int, Mapping[int, tuple[int, int, float, float]]]]:
    measure = analysed.measure
    place = cell.metric["unitAggregationType"] if measure == "value" else measure
    sql = COHORTS.replace("{value}", VALUES.get(place, VALUES["average"]))
    sql = sql.replace("{steps}", str(STEPS))
    steps: dict[int, dict[int, tuple[int, int, float, float]]] = {}
    parameters = (iteration, cell.kind, iteration, cell.series)
    for step, variation, *counted in database.rows(sql, parameters):
        steps.setdefault(step, {})[variation] = (counted[0], counted[1], counted[2], counted[3])
    yield from steps.items()


def _point(control: _Sums, treatment: _Sums, *, zero_fill: bool) -> list[Point]:
    both = [each.moments(zero_fill=zero_fill) for each in (control, treatment)]
    if min(moments.units for moments in both) < LEAST_UNITS:
        return []
    figure = z_test(*both, significance=0.1).relative_difference
    if figure.value is None or figure.lower is None or figure.upper is None:
        return []
    units = control.exposed + treatment.exposed
    return [Point(units, figure.value, figure.lower, figure.upper)]
