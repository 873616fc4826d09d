"""Documents: a result as JSON, near the shape of LaunchDarkly's experiment results API.

That is `GET /api/v2/projects/.../environments/.../experiments/.../metrics/.../results`, and for
percentiles the quantile results of its earlier version. What LaunchDarkly does not answer stands
under `ldinstrument`. A figure that is missing is absent there, and has its reason under ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .figures import Figure
from .posteriors import BetaPosterior, NormalPosterior, Posterior
from .results import Comparison, MetricResult, RelativeDifference, TreatmentResult

Document = dict[str, Any]


def result_document(result: MetricResult, last_seen: int | None = None) -> Document:
    """Return *result* as JSON types.

    Args:
        result: what is told.
        last_seen: when the metric last got an event, in epoch milliseconds; None for never.
    """
    treatments = [_treatment(treatment, result) for treatment in result.treatments]
    return _present(
        {
            "metricSeen": _present({"ever": last_seen is not None, "timestamp": last_seen}),
            "probabilityOfMismatch": result.sample_ratio.value,
            "results": [{"treatmentResults": treatments}],
            "treatmentResults": treatments,
            **_quantile(result),
            "ldinstrument": _ours(result),
        }
    )


def figure_document(figure: Figure) -> Document:
    """Return a figure as JSON types."""
    return _present({**asdict(figure), "reason": figure.reason or None})


def _present(document: Mapping[str, Any]) -> Document:
    return {name: value for name, value in document.items() if value is not None}


def _quantile(result: MetricResult) -> Document:
    if result.metric.percentile is None:
        return {}
    confidence = round((1 - result.options.significance) * 100)
    return {"percentile": result.metric.percentile, "confidence": confidence}


def _treatment(treatment: TreatmentResult, result: MetricResult) -> Document:
    of_percentile = result.metric.percentile is not None
    return _present(
        {
            "treatmentId": treatment.id,
            "treatmentName": treatment.name,
            "units": treatment.units,
            "traffic": treatment.traffic,
            "eventValuesSum": treatment.event_values_sum,
            "dataMean": treatment.data_mean.value,
            "dataStdDev": treatment.data_deviation,
            "pBest": treatment.probability_best.value,
            "relativeDifferences": _relative_differences(treatment),
            **(_percentile(treatment) if of_percentile else _mean(treatment)),
            **_adjustment(treatment),
        }
    )


def _percentile(treatment: TreatmentResult) -> Document:
    estimate = treatment.estimate
    return {"percentileValue": estimate.value, "percentileInterval": _interval(estimate)}


def _mean(treatment: TreatmentResult) -> Document:
    estimate = treatment.estimate
    return {
        "mean": estimate.value,
        "credibleInterval": _interval(estimate),
        **({} if treatment.posterior is None else _posterior(treatment.posterior)),
    }


def _interval(figure: Figure) -> Document | None:
    if figure.lower is None:
        return None
    return {"lower": figure.lower, "upper": figure.upper}


def _posterior(posterior: Posterior) -> Document:
    if isinstance(posterior, NormalPosterior):
        return _normal(posterior)
    return _beta(posterior)


def _normal(posterior: NormalPosterior) -> Document:
    parameters = {"mu": posterior.mean, "sigma": posterior.variance**0.5}
    prior = {"priorMean": posterior.prior_mean, "dataWeight": posterior.weight}
    return {
        "model": "bayesianNormal",
        "distribution": {"kind": "normal", "parameters": parameters},
        "bayesianNormal": _present(prior),
    }


def _beta(posterior: BetaPosterior) -> Document:
    parameters = {"alpha": posterior.alpha, "beta": posterior.beta}
    prior = {
        "priorMean": posterior.prior_mean,
        "priorAlpha": posterior.prior_alpha,
        "priorBeta": posterior.prior_beta,
        "dataWeight": posterior.weight,
    }
    return {
        "model": "bayesianBeta",
        "distribution": {"kind": "beta", "parameters": parameters},
        "bayesianBeta": prior,
    }


def _relative_differences(treatment: TreatmentResult) -> list[Document]:
    return [
        _relative(difference)
        for difference in treatment.relative_differences
        if difference.figure.lower is not None
    ]


def _relative(difference: RelativeDifference) -> Document:
    return _present(
        {
            "fromTreatmentId": difference.against,
            "lower": difference.figure.lower,
            "upper": difference.figure.upper,
            "variance": difference.variance,
        }
    )


def _adjustment(treatment: TreatmentResult) -> Document:
    if treatment.adjustment is None:
        return {}
    return {
        "correlation": treatment.adjustment.correlation,
        "standardDeviationRatio": treatment.adjustment.deviation_ratio,
        "covariateImbalance": treatment.adjustment.imbalance,
        "varianceReduction": treatment.adjustment.variance_reduction,
    }


def _ours(result: MetricResult) -> Document:
    share = result.measured_share
    return _present(
        {
            "metric": asdict(result.metric),
            "options": asdict(result.options),
            "sampleRatio": figure_document(result.sample_ratio),
            "measuredShare": None if share is None else figure_document(share),
            "treatments": [_our_treatment(treatment) for treatment in result.treatments],
            "comparisons": [_comparison(comparison) for comparison in result.comparisons],
        }
    )


def _our_treatment(treatment: TreatmentResult) -> Document:
    return {
        "treatmentId": treatment.id,
        "baseline": treatment.baseline,
        "weight": treatment.weight,
        "measured": treatment.measured,
        "dataMean": figure_document(treatment.data_mean),
        "estimate": figure_document(treatment.estimate),
        "probabilityBest": figure_document(treatment.probability_best),
    }


def _comparison(comparison: Comparison) -> Document:
    return _present(
        {
            "treatmentId": comparison.treatment,
            "fromTreatmentId": comparison.control,
            "verdict": asdict(comparison.verdict),
            "cautions": list(comparison.cautions),
            "bayesian": _bayesian(comparison),
            "frequentist": _frequentist(comparison),
            "regression": _regression(comparison),
            "minimumDetectableEffect": figure_document(comparison.minimum_detectable_effect),
            "unitsNeeded": figure_document(comparison.units_needed),
            "moreUnits": comparison.more_units,
        }
    )


def _bayesian(comparison: Comparison) -> Document:
    return {
        "difference": figure_document(comparison.difference),
        "relativeDifference": figure_document(comparison.relative_difference.figure),
        "probabilityToBeatControl": figure_document(comparison.probability_to_beat_control),
    }


def _frequentist(comparison: Comparison) -> Document:
    test = comparison.frequentist
    return _present(
        {
            "difference": figure_document(test.difference),
            "relativeDifference": figure_document(test.relative_difference),
            "pTwoSided": figure_document(test.p_two_sided),
            "pOneSided": figure_document(test.p_one_sided),
            "pDifference": figure_document(test.p_difference),
            "significanceLevel": test.significance,
            "significant": test.significant,
            "correction": test.correction or None,
        }
    )


def _regression(comparison: Comparison) -> Document:
    regression = comparison.regression
    return _present(
        {
            "probability": figure_document(regression.probability),
            "threshold": regression.threshold,
            "regressed": regression.regressed,
            "caution": regression.caution or None,
        }
    )
