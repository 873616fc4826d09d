"""Results: what one metric says of each variation, and of each treatment against the control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .cuped import Adjustment
from .figures import Figure
from .frequentist import ZTest
from .options import AnalysedMetric, AnalysisOptions
from .posteriors import Posterior

VerdictWord = Literal["better", "worse", "undecided", "too little data", "not comparable"]


@dataclass(frozen=True, slots=True)
class RelativeDifference:
    """How far the estimate of one variation is from that of another one.

    Args:
        against: the id of the other variation.
        figure: estimate / other estimate - 1, with its interval.
        variance: of the relative difference; None where there is none.
    """

    against: str
    figure: Figure
    variance: float | None


@dataclass(frozen=True, slots=True)
class TreatmentResult:
    """What is known of one variation.

    Args:
        id: LaunchDarkly's treatment id; whatever the caller gave.
        name: of the variation.
        baseline: whether it is the control.
        weight: its share of the allocation, 0 to 1.
        traffic: units exposed.
        measured: those of them that have a value.
        units: those that are analysed: measured ones, and those that count as 0.
        event_values_sum: the sum of the values of its units' events.
        data_mean: the plain mean (after winsorisation and CUPED) with its confidence interval.
        data_deviation: the standard deviation between units; None without two of them.
        estimate: the posterior mean with its credible interval; of a percentile metric the
            percentile with its interval.
        posterior: where the estimate comes from, prior and weight included; None without data.
        probability_best: that it is the best of all variations.
        relative_differences: to each other variation.
        adjustment: what CUPED did; None without.
    """

    id: str
    name: str
    baseline: bool
    weight: float
    traffic: int
    measured: int
    units: int
    event_values_sum: float
    data_mean: Figure
    data_deviation: float | None
    estimate: Figure
    posterior: Posterior | None
    probability_best: Figure
    relative_differences: tuple[RelativeDifference, ...]
    adjustment: Adjustment | None = None


@dataclass(frozen=True, slots=True)
class Regression:
    """Whether a guarded rollout would call this a regression.

    Args:
        probability: that the relative difference is worse than the threshold.
        threshold: the relative worsening that is tolerated.
        regressed: whether the probability is above 0.99, or above what the options say; None
            without a probability.
        caution: why it may be chance all the same; empty when there is no reason.
    """

    probability: Figure
    threshold: float
    regressed: bool | None
    caution: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all figures of a comparison come to.

    Args:
        word: `better` and `worse` by the metric's own direction, `undecided`, `too little data`, or
            `not comparable` when the split or the share of measured units is broken.
        reason: why, in a sentence.
    """

    word: VerdictWord
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one metric says of one treatment against the control.

    Args:
        treatment: the treatment's id.
        control: the control's id.
        difference: of the posterior means, with its credible interval.
        relative_difference: of the posterior means, with its credible interval.
        probability_to_beat_control: by the metric's own direction.
        regression: of a guarded rollout.
        frequentist: the z test.
        minimum_detectable_effect: the relative difference that these units would show.
        units_needed: of both together, to find the difference that is now seen, were it true.
        more_units: how many of them are still to come; None where that is not known.
        verdict: what it comes to.
        cautions: what makes the figures less certain than they look, in sentences.
    """

    treatment: str
    control: str
    difference: Figure
    relative_difference: RelativeDifference
    probability_to_beat_control: Figure
    regression: Regression
    frequentist: ZTest
    minimum_detectable_effect: Figure
    units_needed: Figure
    more_units: int | None
    verdict: Verdict
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricResult:
    """What one metric says of an experiment.

    Args:
        metric: what was analysed.
        options: how.
        treatments: the variations, the control among them.
        comparisons: one per treatment.
        sample_ratio: the probability of a sample ratio mismatch.
        measured_share: the p of an equal share of measured units; None with zero-fill, where the
            share is a part of the effect.
    """

    metric: AnalysedMetric
    options: AnalysisOptions
    treatments: tuple[TreatmentResult, ...]
    comparisons: tuple[Comparison, ...]
    sample_ratio: Figure
    measured_share: Figure | None

    @property
    def control(self) -> TreatmentResult:
        """Return the control."""
        return next(treatment for treatment in self.treatments if treatment.baseline)

    def treatment(self, treatment_id: str) -> TreatmentResult:
        """Return one variation.

        Raises:
            KeyError: there is no such variation.
        """
        for treatment in self.treatments:
            if treatment.id == treatment_id:
                return treatment
        raise KeyError(treatment_id)

    def comparison(self, treatment_id: str) -> Comparison:
        """Return one treatment against the control.

        Raises:
            KeyError: there is no such treatment.
        """
        for comparison in self.comparisons:
            if comparison.treatment == treatment_id:
                return comparison
        raise KeyError(treatment_id)
