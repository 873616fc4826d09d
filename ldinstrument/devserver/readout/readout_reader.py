"""The read-out: what each metric says about each variation of each experiment.

LaunchDarkly's semantics:

- A unit is a context kind and key. It belongs to the variation of its *first* exposure in an
  iteration (a `feature` event with `reason.inExperiment`), and is counted once.
- An event counts for a unit when its context carries that kind and key, it passes the metric's
  filters, and it was created at or after that first exposure, within 90 days and before the
  iteration was stopped.
- The value of a unit: `occurrence` 1 or 0; `count` the number of events; numeric `sum` the total,
  numeric `average` the mean of its events that have a value. `metricValue` plays no part in the
  first two.
- A unit without a value counts as 0 where the metric fills with zero (`eventDefault.disabled`
  false); an occurrence always does, a percentile never.

What the values come to is said by `analysis`; percentiles are exact where values are equal, and
within 0.4 % else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis import AnalysedMetric, MetricResult, OrderedValues, Treatment, analyse, measure_of
from ...errors import MissingExtra
from ..database import Database, Document
from ..events.event_log import EventLog
from ..events.filtered_series import series_of
from ..flags.flags import randomization_kinds
from .event_key_totals import EventKeyTotals
from .iterations import Iteration, Iterations
from .metric_statistics import MetricStatistics
from .readout import (
    NOTHING,
    Distribution,
    ExperimentReadout,
    MetricReadout,
    Readout,
    Variation,
    VariationResult,
)
from .unit_values import UnitValues

Place = tuple[int, str, str, str]
"""Iteration, project, metric and context kind."""
SHARES = (50, 90, 95, 99)


def distribution(values: OrderedValues, mean: float | None) -> Distribution:
    """Return the mean and percentiles of ordered values."""
    if not values.count:
        return NOTHING
    return Distribution(mean, *(values.quantile(share / 100) for share in SHARES))


class ReadoutReader:
    """Computes read-outs of what has arrived until now."""

    def __init__(self, database: Database, event_log: EventLog):
        self.database = database
        self.event_log = event_log
        self.iterations = Iterations(database, event_log.log)
        self.unit_values = UnitValues(database, event_log.log, event_log.filtered)
        self.totals = EventKeyTotals(database, event_log.newest)
        self._prepared: tuple[int, list[list[Iteration]]] = (-1, [])
        self._known: dict[Place, tuple[Any, MetricReadout]] = {}
        self._current: dict[str | None, tuple[int, Readout]] = {}

    def current(self, project: str | None = None, seconds: float | None = None) -> Readout:
        """Return the read-out of the latest iterations, computed once for each state.

        Args:
            project: as for `read`.
            seconds: as for `read`.
        """
        revision = self.database.revision
        known = self._current.get(project)
        if known is None or known[0] != revision or known[1].pending:
            known = self._current[project] = (revision, self.read(project, seconds=seconds))
        return known[1]

    def read(
        self,
        project: str | None = None,
        iteration: int | None = None,
        seconds: float | None = None,
    ) -> Readout:
        """Aggregate what is new, and return the read-out.

        Args:
            project: only the metrics of this project; None takes all.
            iteration: the number of the iteration, 1 for the first; None takes the latest of each
                experiment.
            seconds: aggregate for so long at most; then the read-out lacks the rest, and its
                `pending` is not 0. None aggregates all.
        """
        self.event_log.filters()  # a filtered metric that is new is measured from the bodies
        with self.unit_values.reading():
            self.unit_values.aggregate(seconds)
            return self._read(project, iteration)

    def _read(self, project: str | None, iteration: int | None) -> Readout:
        metrics = self.metrics(project)
        experiments = [
            self._experiment(flag, found, metrics)
            for flag in self.iterations.flags()
            for found in _chosen(self.iterations.of(flag), iteration)
        ]
        pending = self.unit_values.pending()
        totals = tuple(self.totals.of(metrics))
        return Readout(tuple(experiments), totals, pending)

    def analysed(self, place: Place, state: Any) -> MetricReadout | None:
        """Return what a metric said when it was in this state; None in another one."""
        known = self._known.get(place)
        return known[1] if known is not None and known[0] == state else None

    def keep(self, place: Place, state: Any, found: MetricReadout) -> MetricReadout:
        """Remember what a metric says as long as its state is this, and return it."""
        self._known[place] = state, found
        return found

    def keep_up(self, seconds: float) -> bool:
        """Aggregate for so long, for a read-out that comes later; return whether nothing is left.

        The statistics of every metric are made as soon as an experiment begins, when that costs
        nothing, and grow from then on.
        """
        self.event_log.filters()
        done = self.unit_values.aggregate_unless_read(seconds)
        flags = self.iterations.flags()
        state = (self.database.documents_revision, [self.iterations.of(flag) for flag in flags])
        if state != self._prepared:
            with self.unit_values.reading():
                self._read(None, None)
            self._prepared = state
        return done

    def start_iteration(self, flag: str, at: int | None = None) -> Iteration:
        """Start an iteration of the experiment on a flag; the one that runs is stopped.

        Args:
            flag: the flag's key.
            at: epoch milliseconds; now without.
        """
        self.unit_values.aggregate()  # exposures until now begin the first iteration
        made = self.iterations.start(flag, at)
        for before in self.iterations.of(flag)[-2:-1]:
            self.unit_values.end_iteration(before.id, made.started)
        return made

    def stop_iteration(self, flag: str, at: int | None = None) -> Iteration | None:
        """Stop the iteration that runs; None when none does."""
        self.unit_values.aggregate()
        found = self.iterations.stop(flag, at)
        if found is not None and found.stopped is not None:
            self.unit_values.end_iteration(found.id, found.stopped)
        return found

    def metrics(self, project: str | None = None) -> list[tuple[str, Document]]:
        """Return project and definition of each metric that reads custom events."""
        projects = [project] if project is not None else self.database.projects("metric")
        return [
            (place, metric)
            for place in projects
            for metric in self.database.documents("metric", place)
            if metric["kind"] == "custom" and not metric.get("archived")
        ]

    def _experiment(
        self, flag: str, iteration: Iteration, metrics: Sequence[tuple[str, Document]]
    ) -> ExperimentReadout:
        document = self.database.document("flag", "", flag) or {}
        exposed = self.unit_values.exposed(iteration.id)
        kinds = tuple(randomization_kinds(document)) or tuple(exposed)[:1]
        variations = self._variations(flag, document, exposed)
        own = list(document.get("experimentMetrics") or ())
        ordered = sorted(metrics, key=lambda found: _rank(own, found[1]["key"]))
        reader = _MetricReader(self, flag, document, iteration, variations, exposed)
        counted = exposed.get(kinds[0], {}) if kinds else {}
        return ExperimentReadout(
            flag,
            iteration,
            kinds,
            tuple(
                Variation(each.index, each.value, each.weight, counted.get(each.index, 0))
                for each in variations
            ),
            tuple(reader.read(project, metric) for project, metric in ordered),
        )

    def _variations(
        self, flag: str, document: Document, exposed: Mapping[str, Mapping[int, int]]
    ) -> list[Variation]:
        """Return the variations that were exposed or get a share, the control first."""
        seen = dict(
            self.database.rows("SELECT variation, value FROM variations WHERE flag = ?", (flag,))
        )
        weights = weights_of(document)
        indices = {index for counted in exposed.values() for index in counted}
        indices |= {index for index, weight in weights.items() if weight}
        control = document.get("experimentControl", 0)
        values = document.get("variations") or []
        return [
            Variation(
                index,
                json.loads(seen[index]) if index in seen else _at(values, index),
                weights.get(index, 0.0) if weights else 1.0,
                0,
            )
            for index in sorted(indices, key=lambda index: (index != control, index))
        ]


@dataclass(frozen=True, slots=True)
class _MetricReader:
    reader: ReadoutReader
    flag: str
    document: Document
    iteration: Iteration
    variations: Sequence[Variation]
    exposed: Mapping[str, Mapping[int, int]]

    def read(self, project: str, metric: Document) -> MetricReadout:
        kind = analysis_unit(metric, self.document, list(self.exposed))
        if kind is None:
            reason = self._no_kind(metric)
            rows = tuple(self._empty(project, metric, each, reason) for each in self.variations)
            return MetricReadout(metric, project, rows, None, reason, None)
        unit_values = self.reader.unit_values
        metric_statistics = unit_values.statistics_of(
            self.iteration.id, project, metric, series_of(metric), kind
        )
        exposed = [metric_statistics.of(each.index).exposed for each in self.variations]
        state = (metric_statistics.changes, exposed, list(self.variations))
        place = (self.iteration.id, project, metric["key"], kind)
        known = self.reader.analysed(place, state)
        if known is None or known.statistics is not metric_statistics:
            known = self.reader.keep(
                place, state, self._analysed(project, metric, metric_statistics)
            )
        return known

    def _analysed(
        self, project: str, metric: Document, metric_statistics: MetricStatistics
    ) -> MetricReadout:
        analysed = AnalysedMetric.from_document(metric)
        result, reason = self._analysis(analysed, metric_statistics)
        self.reader.unit_values.give_way()
        rows = tuple(
            self._row(project, metric, analysed, metric_statistics, each)
            for each in self.variations
        )
        return MetricReadout(metric, project, rows, result, reason, metric_statistics)

    def _no_kind(self, metric: Document) -> str:
        wanted = " or ".join(metric["analysisUnits"])
        if not self.exposed:
            return "nobody was exposed in this iteration"
        return (
            f"it is analysed by {wanted}, and nobody was exposed as {wanted}: evaluate the flag "
            f"with that kind in the context, or analyse by {' or '.join(sorted(self.exposed))}"
        )

    def _analysis(
        self, analysed: AnalysedMetric, metric_statistics: MetricStatistics
    ) -> tuple[MetricResult | None, str]:
        treatments = [
            Treatment(
                str(each.index),
                metric_statistics.of(each.index),
                _name(each.value),
                each.weight,
                event_values_sum=metric_statistics.totals.get(each.index, 0.0),
            )
            for each in self.variations
        ]
        try:
            return analyse(analysed, treatments), ""
        except (MissingExtra, ValueError) as error:
            return None, str(error)

    def _row(
        self,
        project: str,
        metric: Document,
        analysed: AnalysedMetric,
        metric_statistics: MetricStatistics,
        variation: Variation,
    ) -> VariationResult:
        statistics = metric_statistics.of(variation.index)
        fills = analysed.fills_zeros
        values = statistics.ordered(zero_fill=fills)
        mean = statistics.moments(zero_fill=fills).mean if values.count else None
        own = analysed.percentile
        estimate = mean if own is None else (values.quantile(own / 100) if values.count else None)
        return VariationResult(
            metric=metric["key"],
            project=project,
            flag=self.flag,
            iteration=self.iteration.number,
            context_kind=metric_statistics.kind,
            variation=variation.index,
            value=variation.value,
            measure=measure_of(metric),
            unit=metric.get("unit", ""),
            units=statistics.exposed,
            measured=statistics.measured,
            events=metric_statistics.events.get(variation.index, 0),
            estimate=estimate,
            distribution=distribution(values, mean),
            reason="" if estimate is not None else "no exposed unit has a value yet",
        )

    def _empty(
        self, project: str, metric: Document, variation: Variation, reason: str
    ) -> VariationResult:
        return VariationResult(
            metric=metric["key"],
            project=project,
            flag=self.flag,
            iteration=self.iteration.number,
            context_kind="",
            variation=variation.index,
            value=variation.value,
            measure=measure_of(metric),
            unit=metric.get("unit", ""),
            units=0,
            measured=0,
            events=0,
            estimate=None,
            distribution=NOTHING,
            reason=reason,
        )


def _chosen(iterations: list[Iteration], number: int | None) -> list[Iteration]:
    if number is None:
        return iterations[-1:]
    return [each for each in iterations if each.number == number]


def _rank(own: list[str], key: str) -> int:
    return own.index(key) if key in own else len(own)


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def weights_of(flag: Document) -> dict[int, float]:
    """Return the share of each variation in the experiment that a flag makes; empty without one.

    A rollout of several rules is taken from the first experiment; variations outside the
    experiment (`untracked`) have no share.
    """
    places = [flag.get("fallthrough"), *(flag.get("rules") or [])]
    rollouts = (place.get("rollout") for place in places if isinstance(place, dict))
    for rollout in rollouts:
        if isinstance(rollout, dict) and rollout.get("kind") == "experiment":
            found: dict[int, float] = {}
            for each in rollout.get("variations") or ():
                if not each.get("untracked"):
                    index = int(each["variation"])
                    found[index] = found.get(index, 0.0) + float(each["weight"])
            return found
    return {}


def analysis_unit(metric: Document, flag: Document | None, exposed: list[str]) -> str | None:
    """Return the context kind by which a metric is analysed in an experiment on this flag.

    The experiment's randomization unit if the metric allows it, else the first unit of the metric
    that was exposed; None when the two have no kind in common, which is LaunchDarkly's "no data".
    """
    allowed = [kind for kind in metric["analysisUnits"] if kind in exposed]
    preferred = [kind for kind in randomization_kinds(flag or {}) if kind in allowed]
    return next(iter([*preferred, *allowed]), None)
