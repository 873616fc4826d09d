"""How a difference developed: what the units that were exposed until then say of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...analysis import AnalysedMetric, Moments, z_test
from ..readout.readout import MetricReadout
from ..readout.sums_over_time import Sums, SumsOverTime, together
from .charts import Point

STEPS = 24
LEAST_UNITS = 10


class _Sums:
    """The units, their values' sum and sum of squares, as more and more come."""

    def __init__(self) -> None:
        self.exposed = self.measured = 0
        self.total = self.squares = 0.0

    def add(self, exposed: int, measured: Sums) -> None:
        self.exposed += exposed
        self.measured += int(measured[0])
        self.total += measured[1]
        self.squares += measured[2]

    def moments(self, *, zero_fill: bool) -> Moments:
        units = self.exposed if zero_fill else self.measured
        if units < 2:
            return Moments(units, self.total, 0.0)
        mean = self.total / units
        variance = max(self.squares - units * mean * mean, 0.0) / (units - 1)
        return Moments(units, mean, variance)


def development(
    found: MetricReadout, exposed: SumsOverTime, treatment: int, control: int
) -> list[Point]:
    """Return the relative difference as it was with the first units, and with more and more.

    It is that of means with the frequentist interval, without winsorisation; a percentile has none.

    Args:
        found: the metric.
        exposed: when the units of its kind were exposed.
        treatment: the variation that is compared.
        control: the one that it is compared with.
    """
    if found.statistics is None or found.metric.get("analysisType") == "percentile":
        return []
    fills = AnalysedMetric.from_document(found.metric).fills_zeros
    sums = {control: _Sums(), treatment: _Sums()}
    points: list[Point] = []
    for _ in _grown(sums, exposed, found.statistics.over_time):
        points += _point(sums[control], sums[treatment], zero_fill=fills)
    return points


def _grown(sums: dict[int, _Sums], exposed: SumsOverTime, valued: SumsOverTime) -> Iterator[None]:
    """Add step after step, and stop whenever another 24th of the units has come."""
    steps = list(together(exposed, valued))
    units = _units(steps, sums)
    counted, told = 0, 0
    for step in steps:
        for variation, added in step.items():
            if variation in sums:
                sums[variation].add(*added)
        counted += _units([step], sums)
        if counted * STEPS >= (told + 1) * units:
            told = counted * STEPS // units if units else 0
            yield


def _units(steps: Sequence[dict[int, tuple[int, Sums]]], of: dict[int, _Sums]) -> int:
    return sum(units for step in steps for variation, (units, _) in step.items() if variation in of)


def _point(control: _Sums, treatment: _Sums, *, zero_fill: bool) -> list[Point]:
    both = [each.moments(zero_fill=zero_fill) for each in (control, treatment)]
    if min(moments.units for moments in both) < LEAST_UNITS:
        return []
    figure = z_test(*both, significance=0.1).relative_difference
    if figure.value is None or figure.lower is None or figure.upper is None:
        return []
    units = control.exposed + treatment.exposed
    return [Point(units, figure.value, figure.lower, figure.upper)]
