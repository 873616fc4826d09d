"""Documents: a result as JSON, in LaunchDarkly's shape and words."""

from __future__ import annotations

import json

import pytest

from ldinstrument.analysis import (
    AnalysedMetric,
    AnalysisOptions,
    PairedStatistics,
    SufficientStatistics,
    Treatment,
    analyse,
    result_document,
)

# The properties that LaunchDarkly's published schema of a treatment's result has.
PUBLISHED = {
    "treatmentId", "treatmentName", "mean", "dataMean", "dataStdDev", "credibleInterval", "pBest",
    "relativeDifferences", "units", "traffic", "eventValuesSum", "distribution", "model",
    "bayesianNormal", "bayesianBeta", "correlation", "standardDeviationRatio", "covariateImbalance",
    "varianceReduction",
}  # fmt: skip


def spread(centre: float, units: int = 300) -> SufficientStatistics:
    return SufficientStatistics(centre + step % 21 - 10 for step in range(units))


def document(metric, control, treatment, **more):
    result = analyse(metric, [Treatment("c", control, "Control"), Treatment("t", treatment)])
    return result, json.loads(json.dumps(result_document(result, **more), allow_nan=False))


def test_a_numeric_result_has_launchdarklys_fields():
    """Each field is named as LaunchDarkly names it and holds the figure of that meaning."""
    result, found = document(AnalysedMetric("m"), spread(100), spread(101), last_seen=1_657_129_307)
    assert found["metricSeen"] == {"ever": True, "timestamp": 1_657_129_307}
    assert found["probabilityOfMismatch"] == result.sample_ratio.value
    assert found["treatmentResults"] == found["results"][0]["treatmentResults"]
    control, treatment = found["treatmentResults"]
    assert set(control) | set(treatment) <= PUBLISHED
    ours = result.treatment("t")
    assert treatment["treatmentId"] == treatment["treatmentName"] == "t"
    assert control["treatmentName"] == "Control"
    assert treatment["mean"] == ours.estimate.value
    assert treatment["dataMean"] == ours.data_mean.value
    assert treatment["dataStdDev"] == ours.data_deviation
    assert treatment["credibleInterval"] == {
        "lower": ours.estimate.lower,
        "upper": ours.estimate.upper,
    }
    assert treatment["pBest"] == ours.probability_best.value
    assert treatment["units"] == treatment["traffic"] == 300
    assert treatment["eventValuesSum"] == pytest.approx(spread(101).total)
    assert treatment["model"] == "bayesianNormal"
    sigma = ours.posterior.variance**0.5
    assert treatment["distribution"] == {
        "kind": "normal",
        "parameters": {"mu": ours.posterior.mean, "sigma": sigma},
    }
    weights = {"priorMean": ours.posterior.prior_mean, "dataWeight": ours.posterior.weight}
    assert treatment["bayesianNormal"] == weights
    assert control["bayesianNormal"] == {"dataWeight": 1.0}
    relative = result.comparison("t").relative_difference
    assert treatment["relativeDifferences"] == [
        {
            "fromTreatmentId": "c",
            "lower": relative.figure.lower,
            "upper": relative.figure.upper,
            "variance": relative.variance,
        }
    ]


def test_an_occurrence_has_the_beta_model():
    """Conversions and the prior's pseudo-units are told."""
    result, found = document(
        AnalysedMetric("m", "occurrence"),
        SufficientStatistics([1.0] * 40, exposed=400),
        SufficientStatistics([1.0] * 50, exposed=410),
    )
    treatment, posterior = found["treatmentResults"][1], result.treatment("t").posterior
    assert set(treatment) <= PUBLISHED
    assert treatment["model"] == "bayesianBeta"
    parameters = {"alpha": posterior.alpha, "beta": posterior.beta}
    assert treatment["distribution"] == {"kind": "beta", "parameters": parameters}
    assert treatment["bayesianBeta"] == {
        "priorAlpha": posterior.prior_alpha,
        "priorBeta": posterior.prior_beta,
        "priorMean": posterior.prior_mean,
        "dataWeight": posterior.weight,
    }


def test_a_percentile_has_the_quantile_shape():
    """Value and interval under the names of LaunchDarkly's quantile results."""
    result, found = document(AnalysedMetric("m", percentile=90), spread(100), spread(101))
    assert (found["percentile"], found["confidence"]) == (90, 95)
    treatment, estimate = found["treatmentResults"][1], result.treatment("t").estimate
    assert treatment["percentileValue"] == estimate.value
    assert treatment["percentileInterval"] == {"lower": estimate.lower, "upper": estimate.upper}
    assert "mean" not in treatment


def test_cuped_has_launchdarklys_words(populations):
    """Correlation, deviation ratio, imbalance and variance reduction."""
    past = populations.random.gamma(2, 10, 300)
    pairs = [
        (float(x + y), float(x))
        for x, y in zip(past, populations.random.normal(50, 5, 300), strict=True)
    ]
    treatment = Treatment(
        "c", SufficientStatistics(value for value, _ in pairs), past=PairedStatistics(pairs)
    )
    result = analyse(AnalysedMetric("m"), [treatment])
    found = result_document(result)["treatmentResults"][0]
    assert found["varianceReduction"] == result.control.adjustment.variance_reduction
    assert found["correlation"] == pytest.approx(found["varianceReduction"] ** 0.5)
    assert found["covariateImbalance"] == pytest.approx(0, abs=1e-9)
    assert found["standardDeviationRatio"] == result.control.adjustment.deviation_ratio


def test_what_launchdarkly_does_not_answer_is_under_our_name():
    """Verdict, cautions, sources, reasons, assumptions and the frequentist figures."""
    result, found = document(AnalysedMetric("m"), spread(100), spread(101))
    ours, comparison = found["ldinstrument"], result.comparison("t")
    told = ours["comparisons"][0]
    assert (told["treatmentId"], told["fromTreatmentId"]) == ("t", "c")
    assert told["verdict"] == {"word": "better", "reason": comparison.verdict.reason}
    assert told["frequentist"]["pTwoSided"]["value"] == comparison.frequentist.p_two_sided.value
    assert told["frequentist"]["significant"] is True
    assert told["regression"]["regressed"] is False
    assert told["bayesian"]["probabilityToBeatControl"] == {
        "value": comparison.probability_to_beat_control.value,
        "source": "LaunchDarkly, Bayesian methodology",
    }
    assert ours["options"]["numeric_prior_variance"] == AnalysisOptions().numeric_prior_variance
    assert ours["metric"]["key"] == "m"
    assert ours["treatments"][0]["weight"] == 0.5
    assert ours["sampleRatio"]["source"].startswith("LaunchDarkly")


def test_a_missing_figure_is_absent_there_and_has_its_reason_here():
    """No null where LaunchDarkly has a number, and no number that is none."""
    _, found = document(
        AnalysedMetric("m"), SufficientStatistics(exposed=5), SufficientStatistics([1.0])
    )
    treatment = found["treatmentResults"][1]
    assert found["metricSeen"] == {"ever": False}
    assert not {"mean", "pBest", "credibleInterval", "model", "dataStdDev"} & set(treatment)
    assert treatment["relativeDifferences"] == []
    told = found["ldinstrument"]["comparisons"][0]
    assert told["verdict"]["word"] == "too little data"
    assert told["bayesian"]["difference"]["reason"]
    assert "value" not in told["bayesian"]["difference"]
