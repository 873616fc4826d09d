"""Verdicts: what the figures come to, and what makes them less certain than they look.

LaunchDarkly shows the figures and leaves the reading to people; the verdict and the cautions are
ours. A verdict goes by the probability to beat the control, or by p, as the options say.
"""

from __future__ import annotations

from collections.abc import Sequence

from .figures import Figure
from .frequentist import ZTest
from .moments import Moments
from .options import AnalysedMetric, AnalysisOptions
from .results import Verdict
from .sample_ratio import ALERT as MISMATCH
from .shares import ALERT as UNEQUAL_SHARES

SKEW_FACTOR = 355  # Kohavi, Tang and Xu, "Trustworthy Online Controlled Experiments", chapter 17
NEAR_ZERO = 4  # standard errors


def verdict(
    options: AnalysisOptions,
    *,
    units: int,
    probability: Figure,
    test: ZTest,
    higher_is_better: bool,
    broken: str,
) -> Verdict:
    """Return what a comparison comes to.

    Args:
        options: which method it goes by, and its thresholds.
        units: of the smaller variation.
        probability: to beat the control.
        test: the z test, at its corrected level.
        higher_is_better: the metric's success criteria.
        broken: why the variations cannot be compared at all; empty when they can.
    """
    if broken:
        return Verdict("not comparable", broken)
    if units < options.least_units:
        return Verdict(
            "too little data", f"{units} units; a verdict asks for {options.least_units}"
        )
    if options.method == "frequentist":
        return by_p(test, higher_is_better=higher_is_better)
    return _by_probability(probability, options.threshold)


def _by_probability(probability: Figure, threshold: float) -> Verdict:
    if probability.value is None:
        return Verdict("too little data", probability.reason)
    said = f"{probability.value:.1%} probability to beat the control"
    if probability.value >= threshold:
        return Verdict("better", said)
    if probability.value <= 1 - threshold:
        return Verdict("worse", said)
    return Verdict("undecided", f"{said}; {threshold:.0%} are asked for, either way")


def by_p(test: ZTest, *, higher_is_better: bool) -> Verdict:
    """Return what a frequentist test comes to, at its level."""
    if test.p_value is None or test.difference.value is None:
        return Verdict("too little data", test.p_two_sided.reason)
    said = f"p = {test.p_value:.3g}"
    if not test.significant:
        return Verdict("undecided", f"{said}, not below {test.significance:.3g}")
    better = (test.difference.value > 0) == higher_is_better
    return Verdict("better" if better else "worse", f"{said}, below {test.significance:.3g}")


def broken_comparison(sample_ratio: Figure, measured_share: Figure | None) -> str:
    """Say why variations cannot be compared at all; empty when they can.

    Args:
        sample_ratio: the probability of a mismatch.
        measured_share: the p of an equal share of measured units; None with zero-fill.
    """
    if sample_ratio.value is not None and sample_ratio.value >= MISMATCH:
        return "units do not arrive as they were allocated (sample ratio mismatch)"
    share = None if measured_share is None else measured_share.value
    if share is not None and share < UNEQUAL_SHARES:
        return (
            f"the share of units with a value differs between variations (p = {share:.2g}): "
            "the means are of different people"
        )
    return ""


def cautions(
    metric: AnalysedMetric, options: AnalysisOptions, control: Moments, treatment: Moments
) -> tuple[str, ...]:
    """Say what makes a comparison less certain than it looks.

    Args:
        metric: what is compared.
        options: how.
        control: the control's units.
        treatment: the treatment's units.
    """
    found = [
        _few_units(min(control.units, treatment.units), options.least_units),
        _near_zero(control),
    ]
    if metric.measure != "occurrence" and metric.percentile is None:
        found.append(_skewed([control, treatment]))
    return tuple(caution for caution in found if caution)


def _few_units(units: int, least: int) -> str:
    if not 1 < units < least:
        return ""
    return f"with {units} units the intervals are too narrow: the formulas are for many units"


def _near_zero(control: Moments) -> str:
    if not control.units or abs(control.mean) >= NEAR_ZERO * control.error_variance**0.5:
        return ""
    return "the control's mean is near 0: the relative difference and its interval are unreliable"


def _skewed(variations: Sequence[Moments]) -> str:
    skewness = max((each.skewness for each in variations), key=abs)
    units, needed = min(each.units for each in variations), SKEW_FACTOR * skewness**2
    if units < 2 or units >= needed:
        return ""
    return (
        f"the values are skewed ({skewness:.1f}): a normal mean wants about {needed:,.0f} units "
        f"per variation, here are {units:,}"
    )
