"""Estimation: from sufficient statistics to what is known of a variation's mean or percentile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .bayesian import beta_posteriors, normal_posteriors, require_spread
from .cuped import Adjustment, adjusted
from .figures import BAYESIAN, CUPED, FREQUENTIST, ORDER_STATISTICS, TooLittleData
from .moments import Moments
from .options import AnalysedMetric, AnalysisOptions
from .paired import PairedStatistics
from .percentiles import percentile_moments
from .posteriors import NormalPosterior, Posterior
from .sufficient import SufficientStatistics
from .winsorisation import winsorised


@dataclass(frozen=True, slots=True)
class Treatment:
    """One variation of an experiment, as it is handed to the analysis.

    Args:
        id: an id of the caller's; LaunchDarkly's treatment id where there is one.
        statistics: its units.
        name: of the variation; the id when empty.
        weight: its share of the allocation, in any scale; 0 for none.
        past: per analysed unit its value and that before the start, for CUPED; None without.
        event_values_sum: the sum of its events' values where that is not the sum of the units'
            values (a numeric metric with average aggregation).
    """

    id: str
    statistics: SufficientStatistics
    name: str = ""
    weight: float = 1.0
    past: PairedStatistics | None = None
    event_values_sum: float | None = None


@dataclass(frozen=True, slots=True)
class Estimates:
    """What is known of all variations, the control first.

    Args:
        plain: units, mean and variance (after winsorisation).
        adjustments: what CUPED did; None for each without.
        compared: what is compared: *plain*, adjusted, or percentiles; empty when *reason* says why.
        posteriors: of what is compared; empty when *reason* says why.
        reason: why there are no posteriors.
        bayesian_source: whose formula the posteriors are.
        frequentist_source: whose formula the tests are.
    """

    plain: tuple[Moments, ...]
    adjustments: tuple[Adjustment | None, ...]
    compared: tuple[Moments, ...]
    posteriors: tuple[Posterior, ...]
    reason: str
    bayesian_source: str = BAYESIAN
    frequentist_source: str = FREQUENTIST


def estimate(
    metric: AnalysedMetric, treatments: Sequence[Treatment], options: AnalysisOptions
) -> Estimates:
    """Return what is known of each variation."""
    plain = _plain(metric, [treatment.statistics for treatment in treatments])
    if metric.percentile is not None:
        return _percentiles(metric.percentile, plain, treatments, options)
    adjustments = _adjustments(metric, plain, treatments)
    pairs = zip(plain, adjustments, strict=True)
    compared = [moments if change is None else change.moments for moments, change in pairs]
    posteriors, reason = _posteriors(metric, compared, options)
    source = FREQUENTIST if adjustments[0] is None else CUPED
    return Estimates(
        tuple(plain), tuple(adjustments), tuple(compared), posteriors, reason, BAYESIAN, source
    )


def _plain(metric: AnalysedMetric, statistics: Sequence[SufficientStatistics]) -> list[Moments]:
    if not metric.winsorised:
        return [variation.moments(zero_fill=metric.fills_zeros) for variation in statistics]
    return winsorised(
        statistics,
        lower=metric.winsor_lower,
        upper=metric.winsor_upper,
        include_imputed=metric.winsor_include_imputed,
        zero_fill=metric.fills_zeros,
    )


def _adjustments(
    metric: AnalysedMetric, plain: Sequence[Moments], treatments: Sequence[Treatment]
) -> list[Adjustment | None]:
    pasts = [treatment.past for treatment in treatments if treatment.past is not None]
    if metric.measure == "occurrence" or metric.winsorised or len(pasts) < len(treatments):
        return [None] * len(treatments)
    found = adjusted(list(zip(plain, pasts, strict=True)))
    return [None] * len(treatments) if found is None else list(found)


def _posteriors(
    metric: AnalysedMetric, compared: list[Moments], options: AnalysisOptions
) -> tuple[tuple[Posterior, ...], str]:
    control, treatments = compared[0], compared[1:]
    try:
        if metric.measure == "occurrence":
            variance = options.conversion_prior_variance
            return tuple(beta_posteriors(control, treatments, variance)), ""
        return tuple(normal_posteriors(control, treatments, options.numeric_prior_variance)), ""
    except TooLittleData as error:
        return (), str(error)


def _percentiles(
    percentile: float,
    plain: Sequence[Moments],
    treatments: Sequence[Treatment],
    options: AnalysisOptions,
) -> Estimates:
    nothing: tuple[None, ...] = (None,) * len(treatments)
    try:
        compared = [
            percentile_moments(treatment.statistics.ordered(), percentile, 1 - options.significance)
            for treatment in treatments
        ]
        require_spread(compared)
    except TooLittleData as error:
        return Estimates(
            tuple(plain), nothing, (), (), str(error), ORDER_STATISTICS, ORDER_STATISTICS
        )
    posteriors = tuple(
        NormalPosterior(moments.mean, moments.error_variance) for moments in compared
    )
    return Estimates(
        tuple(plain), nothing, tuple(compared), posteriors, "", ORDER_STATISTICS, ORDER_STATISTICS
    )
