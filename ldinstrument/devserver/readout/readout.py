"""The read-out as values: experiments, metrics, variations, and totals by event key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...analysis import MetricResult
from ..database import Document
from .iterations import Iteration
from .metric_statistics import MetricStatistics


@dataclass(frozen=True, slots=True)
class Distribution:
    """A mean and percentiles; all None when there is nothing to describe."""

    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


NOTHING = Distribution(None, None, None, None, None)


@dataclass(frozen=True, slots=True)
class VariationResult:
    """What one metric says about one variation of one flag.

    Args:
        metric: the metric's key.
        project: its project.
        flag: the flag's key.
        iteration: the number of the experiment's iteration.
        context_kind: the analysis unit of this row; empty when there is none (see *reason*).
        variation: the variation's index.
        value: the variation's value.
        measure: `value`, `count` or `occurrence`.
        unit: the metric's unit, empty when it has none.
        units: exposed units.
        measured: those of them with at least one event (for numeric metrics, with a value).
        events: events that count.
        estimate: what LaunchDarkly would compare: the mean, or the metric's own percentile.
        distribution: of the unit values, zero-filled where the metric says so.
        reason: why there is no estimate; empty when there is one.
    """

    metric: str
    project: str
    flag: str
    iteration: int
    context_kind: str
    variation: int
    value: Any
    measure: str
    unit: str
    units: int
    measured: int
    events: int
    estimate: float | None
    distribution: Distribution
    reason: str = ""

    @property
    def mean(self) -> float | None:
        """Return the mean of the unit values."""
        return self.distribution.mean

    @property
    def p50(self) -> float | None:
        """Return the median of the unit values."""
        return self.distribution.p50

    @property
    def p90(self) -> float | None:
        """Return the 90th percentile of the unit values."""
        return self.distribution.p90

    @property
    def p95(self) -> float | None:
        """Return the 95th percentile of the unit values."""
        return self.distribution.p95

    @property
    def p99(self) -> float | None:
        """Return the 99th percentile of the unit values."""
        return self.distribution.p99


@dataclass(frozen=True, slots=True)
class Variation:
    """One variation of an experiment: its index, value, share of the allocation, and the units that
    the experiment's own kind exposed to it.
    """

    index: int
    value: Any
    weight: float
    units: int


@dataclass(frozen=True, slots=True)
class MetricReadout:
    """What one metric says of one experiment.

    Args:
        metric: the definition.
        project: its project.
        rows: one per variation.
        result: the analysis; None when *reason* says why.
        reason: why there is no analysis; empty when there is one.
        statistics: the statistics behind it; None without a context kind in common.
    """

    metric: Document
    project: str
    rows: tuple[VariationResult, ...]
    result: MetricResult | None
    reason: str
    statistics: MetricStatistics | None


@dataclass(frozen=True, slots=True)
class ExperimentReadout:
    """One iteration of one experiment.

    Args:
        flag: the flag's key.
        iteration: which iteration.
        kinds: the context kinds by which it randomises.
        variations: all of them, the control first.
        metrics: those of the experiment first, then the others.
    """

    flag: str
    iteration: Iteration
    kinds: tuple[str, ...]
    variations: tuple[Variation, ...]
    metrics: tuple[MetricReadout, ...]


@dataclass(frozen=True, slots=True)
class EventKeyTotal:
    """All events of one key, whoever was exposed to what.

    `events` counts them, `values` those with a numeric value, `sum` adds these up, `distribution`
    is of the single values (of the newest 5,000 where there are more), `metrics` names the metrics
    that read this event key, `last_seen` is in epoch milliseconds.
    """

    event_key: str
    events: int
    values: int
    sum: float
    distribution: Distribution
    metrics: tuple[str, ...]
    last_seen: int

    @property
    def mean(self) -> float | None:
        """Return the mean of the values."""
        return self.distribution.mean


@dataclass(frozen=True, slots=True)
class Readout:
    """`experiments` by flag, `totals` by event key, and how many rows were still `pending`."""

    experiments: tuple[ExperimentReadout, ...]
    totals: tuple[EventKeyTotal, ...]
    pending: int = 0

    @property
    def rows(self) -> tuple[VariationResult, ...]:
        """Return what there is by metric, flag and variation."""
        metrics = (metric for experiment in self.experiments for metric in experiment.metrics)
        found = (row for metric in metrics for row in metric.rows)
        return tuple(sorted(found, key=lambda row: (row.project, row.metric, row.flag)))

    def row(self, metric: str, flag: str, variation: int) -> VariationResult:
        """Return one row.

        Raises:
            KeyError: nothing was exposed there, or there is no such metric.
        """
        for row in self.rows:
            if (row.metric, row.flag, row.variation) == (metric, flag, variation):
                return row
        raise KeyError((metric, flag, variation))

    def result(self, metric: str, flag: str) -> MetricResult:
        """Return the analysis of one metric in one experiment.

        Raises:
            KeyError: there is none; the message says why where that is known.
        """
        for experiment in self.experiments:
            for found in experiment.metrics:
                if (found.metric["key"], experiment.flag) == (metric, flag):
                    if found.result is None:
                        raise KeyError(f"{metric} by {flag}: {found.reason}")
                    return found.result
        raise KeyError((metric, flag))

    def total(self, event_key: str) -> EventKeyTotal:
        """Return the total of one event key.

        Raises:
            KeyError: no such event arrived.
        """
        for total in self.totals:
            if total.event_key == event_key:
                return total
        raise KeyError(event_key)
