"""The statistics of one metric in one iteration, kept up to date unit by unit."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...analysis import SufficientStatistics, measure_of, unit_value
from ...analysis.exact import LARGEST
from ..database import Document
from .sums_over_time import SumsOverTime

Counted = tuple[int, int, float]
"""Events of a unit, those with a value, and the total of their values."""


@dataclass(slots=True)
class MetricStatistics:
    """The statistics of one metric in one iteration, by variation.

    Args:
        metric: the definition they are of.
        series: the number of its event series.
        kind: the context kind of the units.
        by_variation: the statistics of each variation.
        events: by variation, the events (of a numeric metric those with a value).
        totals: by variation, the sum of the events' values.
        over_time: the values of units by the time of their exposure.
        changes: how often anything was counted.
    """

    metric: Document
    series: int
    kind: str
    by_variation: dict[int, SufficientStatistics] = field(default_factory=dict)
    events: dict[int, int] = field(default_factory=dict)
    totals: dict[int, float] = field(default_factory=dict)
    over_time: SumsOverTime = field(default_factory=SumsOverTime)
    changes: int = 0

    def of(self, variation: int) -> SufficientStatistics:
        """Return the statistics of one variation."""
        return self.by_variation.setdefault(variation, SufficientStatistics())

    def change(self, variation: int, first: int, old: Counted, new: Counted) -> None:
        """Take what was counted of a unit out, and put what is counted now in.

        Args:
            variation: the unit's.
            first: when it was exposed.
            old: what was counted.
            new: what is counted now.
        """
        self.changes += 1
        measure = measure_of(self.metric)
        aggregation = self.metric["unitAggregationType"]
        before, now = (
            _bounded(unit_value(measure, aggregation, *counted)) for counted in (old, new)
        )
        if before != now:
            self.of(variation).replace(before, now)
            self.over_time.add(first, variation, before, -1)
            self.over_time.add(first, variation, now)
        more = new[1] - old[1] if measure == "value" else new[0] - old[0]
        self.events[variation] = self.events.get(variation, 0) + more
        self.totals[variation] = self.totals.get(variation, 0.0) + new[2] - old[2]


def _bounded(value: float | None) -> float | None:
    """Return the value of a unit within what the analysis takes, however many events it has."""
    return None if value is None else max(-LARGEST, min(LARGEST, value))
