"""An experiment's analysis: from sufficient statistics per variation to a metric's result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .comparisons import Comparer
from .estimation import Estimates, Treatment, estimate
from .figures import Figure, missing
from .frequentist import mean_figure
from .options import AnalysedMetric, AnalysisOptions
from .percentiles import percentile_figure
from .posteriors import probabilities_to_be_best
from .results import MetricResult, TreatmentResult
from .sample_ratio import sample_ratio_mismatch
from .shares import measured_share_test
from .verdicts import broken_comparison

DEFAULTS = AnalysisOptions()


def analyse(
    metric: AnalysedMetric, treatments: Sequence[Treatment], options: AnalysisOptions = DEFAULTS
) -> MetricResult:
    """Analyse one metric of one experiment.

    Args:
        metric: what is analysed.
        treatments: the variations; the first one is the control.
        options: how it is done.

    Raises:
        ValueError: there is no variation, or the weights are negative or all 0.
        MissingExtra: a figure needs scipy, which is not installed.
    """
    if not treatments:
        raise ValueError("an experiment has at least one variation, its control")
    sample_ratio = _sample_ratio(treatments, options)
    share = None if metric.fills_zeros else _measured_share(treatments)
    estimates = estimate(metric, treatments, options)
    ids = tuple(treatment.id for treatment in treatments)
    comparer = Comparer(metric, options, ids, estimates, broken_comparison(sample_ratio, share))
    return MetricResult(
        metric,
        options,
        _TreatmentResults(metric, options, treatments, estimates, comparer).all(),
        tuple(comparer.compare(place) for place in range(1, len(treatments))),
        sample_ratio,
        share,
    )


def _sample_ratio(treatments: Sequence[Treatment], options: AnalysisOptions) -> Figure:
    units = [treatment.statistics.exposed for treatment in treatments]
    weights = [treatment.weight for treatment in treatments]
    return sample_ratio_mismatch(units, weights, options.concentrations)


def _measured_share(treatments: Sequence[Treatment]) -> Figure:
    statistics = [treatment.statistics for treatment in treatments]
    exposed = [variation.exposed for variation in statistics]
    return measured_share_test(exposed, [variation.measured for variation in statistics])


@dataclass(frozen=True, slots=True)
class _TreatmentResults:
    metric: AnalysedMetric
    options: AnalysisOptions
    treatments: Sequence[Treatment]
    estimates: Estimates
    comparer: Comparer

    def all(self) -> tuple[TreatmentResult, ...]:
        best = self._best()
        return tuple(self._result(place, best[place]) for place in range(len(self.treatments)))

    def _result(self, place: int, best: Figure) -> TreatmentResult:
        treatment, plain = self.treatments[place], self.estimates.plain[place]
        total = treatment.event_values_sum
        return TreatmentResult(
            id=treatment.id,
            name=treatment.name or treatment.id,
            baseline=not place,
            weight=treatment.weight / math.fsum(other.weight for other in self.treatments),
            traffic=treatment.statistics.exposed,
            measured=treatment.statistics.measured,
            units=plain.units,
            event_values_sum=treatment.statistics.total if total is None else total,
            data_mean=self._data_mean(place),
            data_deviation=plain.deviation if plain.units > 1 else None,
            estimate=self._estimate(place),
            posterior=self.estimates.posteriors[place] if self.estimates.posteriors else None,
            probability_best=best,
            relative_differences=self.comparer.relative_differences(place),
            adjustment=self.estimates.adjustments[place],
        )

    def _data_mean(self, place: int) -> Figure:
        adjustment = self.estimates.adjustments[place]
        moments = self.estimates.plain[place] if adjustment is None else adjustment.moments
        return mean_figure(moments, self.options.significance)

    def _estimate(self, place: int) -> Figure:
        if self.metric.percentile is not None:
            values = self.treatments[place].statistics.ordered()
            level = 1 - self.options.significance
            return percentile_figure(values, self.metric.percentile, level)
        source = self.estimates.bayesian_source
        if not self.estimates.posteriors:
            return missing(source, self.estimates.reason)
        posterior, level = self.estimates.posteriors[place], self.options.credible_level
        return Figure(posterior.mean, source, *posterior.interval(level), level)

    def _best(self) -> list[Figure]:
        source, posteriors = self.estimates.bayesian_source, self.estimates.posteriors
        if not posteriors:
            return [missing(source, self.estimates.reason)] * len(self.treatments)
        higher = self.metric.higher_is_better
        return [
            Figure(share, source)
            for share in probabilities_to_be_best(posteriors, higher_is_better=higher)
        ]
