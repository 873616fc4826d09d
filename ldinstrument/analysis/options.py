"""Options: what is asked of the analysis, with LaunchDarkly's defaults where it publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .bayesian import CONVERSION_PRIOR_VARIANCE, NUMERIC_PRIOR_VARIANCE
from .sample_ratio import CONCENTRATIONS

Measure = Literal["value", "count", "occurrence"]
Method = Literal["bayesian", "frequentist"]


@dataclass(frozen=True, slots=True)
class AnalysisOptions:
    """Say how results are computed; every assumption is one of these.

    Args:
        method: which one the verdict goes by; the figures of both are computed.
        credible_level: of Bayesian intervals (LaunchDarkly's results: 0.9).
        threshold: the probability to beat the control from which on a verdict is given.
        numeric_prior_variance: of relative differences of numeric and count metrics (LaunchDarkly
            publishes 0.13 to 0.19).
        conversion_prior_variance: of relative differences of occurrence metrics (about 0.04).
        significance: of frequentist tests (LaunchDarkly: 0.1, 0.05 or 0.01).
        one_sided: whether significance goes by the one-sided p.
        power: for the minimum detectable effect and the units still needed.
        regression_threshold: the relative worsening that a guarded rollout tolerates, such as 0.02.
        regression_probability: from which on it is a regression (LaunchDarkly: 0.99).
        least_units: analysed units per variation below which no verdict is given (ours).
        concentrations: of the sample ratio test's priors around the allocation.
    """

    method: Method = "bayesian"
    credible_level: float = 0.9
    threshold: float = 0.95
    numeric_prior_variance: float = NUMERIC_PRIOR_VARIANCE
    conversion_prior_variance: float = CONVERSION_PRIOR_VARIANCE
    significance: float = 0.05
    one_sided: bool = False
    power: float = 0.8
    regression_threshold: float = 0.0
    regression_probability: float = 0.99
    least_units: int = 30
    concentrations: tuple[float, ...] = CONCENTRATIONS


@dataclass(frozen=True, slots=True)
class AnalysedMetric:
    """Say what the analysis needs to know of a metric.

    Args:
        key: the metric's key.
        measure: `value` (numeric), `count` (events per unit) or `occurrence` (at all).
        higher_is_better: False for `LowerThanBaseline`.
        zero_fill: whether units without a value count as 0; an occurrence always does, a
            percentile never.
        percentile: 0 to 100 for percentile analysis; None for the mean.
        winsor_lower: LaunchDarkly's `winsorLowerPercentile`.
        winsor_upper: LaunchDarkly's `winsorUpperPercentile`.
        winsor_include_imputed: LaunchDarkly's `winsorIncludeImputed`.
    """

    key: str
    measure: Measure = "value"
    higher_is_better: bool = True
    zero_fill: bool = True
    percentile: float | None = None
    winsor_lower: float | None = None
    winsor_upper: float | None = None
    winsor_include_imputed: bool = False

    @property
    def fills_zeros(self) -> bool:
        """Return whether units without a value count as 0, whatever was asked."""
        return self.measure == "occurrence" or (self.zero_fill and self.percentile is None)

    @property
    def winsorised(self) -> bool:
        """Return whether values are capped; an occurrence and a percentile never are."""
        caps = self.winsor_lower, self.winsor_upper
        return caps != (None, None) and self.measure != "occurrence" and self.percentile is None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> AnalysedMetric:
        """Return what a metric of LaunchDarkly's REST API (its JSON) says about its analysis."""
        return cls(
            key=document["key"],
            measure=measure_of(document),
            higher_is_better=document.get("successCriteria") != "LowerThanBaseline",
            zero_fill=not (document.get("eventDefault") or {}).get("disabled", False),
            percentile=_percentile_of(document),
            winsor_lower=document.get("winsorLowerPercentile"),
            winsor_upper=document.get("winsorUpperPercentile"),
            winsor_include_imputed=bool(document.get("winsorIncludeImputed")),
        )


def measure_of(document: Mapping[str, Any]) -> Measure:
    """Return what a metric of LaunchDarkly's REST API measures."""
    if document.get("isNumeric"):
        return "value"
    return "count" if document.get("unitAggregationType") == "sum" else "occurrence"


def _percentile_of(document: Mapping[str, Any]) -> float | None:
    if document.get("analysisType") != "percentile":
        return None
    return float(document["percentileValue"])


def unit_value(
    measure: Measure, aggregation: str, events: int, values: int, total: float
) -> float | None:
    """Return the value of one unit from its events, as LaunchDarkly aggregates them.

    Args:
        measure: what the metric measures.
        aggregation: `sum` or `average`; of a numeric metric.
        events: how many events the unit has since its exposure.
        values: how many of them have a number.
        total: the sum of these numbers.

    Returns:
        The value; None for a unit without one.
    """
    if measure != "value":
        return (float(events) if measure == "count" else 1.0) if events else None
    if not values:
        return None
    return total / values if aggregation == "average" else total
