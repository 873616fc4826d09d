"""Verdicts: what the figures come to, and what makes them less certain than they look.

LaunchDarkly shows the figures and leaves the reading to people; the verdict and the cautions are
ours. A verdict goes by the probability to beat the control, or by p, as the options say.
"""

from __future__ import annotations

from dataclasses import dataclass

from .figures import STANDARD_NORMAL, Figure
from .frequentist import ZTest
from .moments import Moments
from .options import AnalysisOptions
from .results import Verdict
from .sample_ratio import ALERT as MISMATCH
from .shares import ALERT as UNEQUAL_SHARES

TOLERATED_SHIFT = 0.2  # of the tail probability itself
SKEWED = "but the values are too skewed, and the groups too unequal, for so few units"
LEAST_SAID = 0.001
NEAR_ZERO = 4  # standard errors


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is made from.

    Args:
        probability: to beat the control.
        test: the z test, at its corrected level.
        units: of the smaller variation.
        exact: whether the probability allows for skewed values, as that of a Beta posterior does.
        broken: why the variations cannot be compared at all; empty when they can.
    """

    probability: Figure
    test: ZTest
    units: int
    exact: bool = False
    broken: str = ""


def verdict(options: AnalysisOptions, evidence: Evidence, *, higher_is_better: bool) -> Verdict:
    """Return what a comparison comes to.

    Args:
        options: which method it goes by, and its thresholds.
        evidence: what is known.
        higher_is_better: the metric's success criteria.
    """
    if evidence.broken:
        return Verdict("not comparable", evidence.broken)
    if evidence.units < options.least_units:
        reason = f"{evidence.units} units; a verdict asks for {options.least_units} per variation"
        return Verdict("too little data", reason)
    if options.method == "frequentist":
        return by_p(evidence.test, higher_is_better=higher_is_better)
    tail = 1 - options.threshold
    shift = 0.0 if evidence.exact else tail_shift(evidence.test.skewness, tail)
    return _by_probability(evidence.probability, options.threshold, shift)


def _by_probability(probability: Figure, threshold: float, shift: float) -> Verdict:
    if probability.value is None:
        return Verdict("too little data", probability.reason)
    said = f"{_chance(probability.value)} probability to beat the control"
    if threshold <= probability.value - shift:
        return Verdict("better", said)
    if probability.value + shift <= 1 - threshold:
        return Verdict("worse", said)
    if 1 - threshold < probability.value < threshold:
        return Verdict("undecided", f"{said}; {threshold:.0%} are asked for, either way")
    return Verdict("undecided", f"{said}, {SKEWED}")


def _chance(probability: float) -> str:
    """Return a probability as percent, which is never 0 or 100."""
    if probability > 1 - LEAST_SAID:
        return f"over {1 - LEAST_SAID:.1%}"
    return f"under {LEAST_SAID:.1%}" if probability < LEAST_SAID else f"{probability:.1%}"


def by_p(test: ZTest, *, higher_is_better: bool) -> Verdict:
    """Return what a frequentist test comes to, at its level."""
    if test.p_value is None or test.difference.value is None or test.p_difference.value is None:
        return Verdict("too little data", test.p_two_sided.reason)
    said = f"p = {test.p_value:.3g}"
    if not test.significant:
        return Verdict("undecided", f"{said}, not below {test.significance:.3g}")
    if not test.one_sided and test.p_difference.value >= test.significance:
        reason = f"{said}, but p = {test.p_difference.value:.3g} of the difference itself"
        return Verdict("undecided", reason)
    if _one_tail(test) + tail_shift(test.skewness, _tail(test)) >= _tail(test):
        return Verdict("undecided", f"{said}, {SKEWED}")
    better = (test.difference.value > 0) == higher_is_better
    return Verdict("better" if better else "worse", f"{said}, below {test.significance:.3g}")


def _tail(test: ZTest) -> float:
    return test.significance if test.one_sided else test.significance / 2


def _one_tail(test: ZTest) -> float:
    smaller = test.p_one_sided.value if test.one_sided else test.p_difference.value
    return (smaller or 0.0) / (1 if test.one_sided else 2)


def tail_shift(skewness: float, tail: float) -> float:
    """Return how far a *skewness* of the estimate moves a *tail* probability.

    The first term of the Edgeworth expansion of a studentised mean.
    """
    distance = -STANDARD_NORMAL.inv_cdf(tail)
    return abs(skewness) * STANDARD_NORMAL.pdf(distance) * (2 * distance * distance + 1) / 6


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
    options: AnalysisOptions, control: Moments, treatment: Moments, skewness: float
) -> tuple[str, ...]:
    """Say what makes a comparison less certain than it looks.

    Args:
        options: how it is made.
        control: the control's units.
        treatment: the treatment's units.
        skewness: of the error of their difference.
    """
    if not control.units or not treatment.units:
        return ()
    found = [
        _few_units(min(control.units, treatment.units), options.least_units),
        _near_zero(control),
        skewed_tail(skewness, 1 - options.threshold),
    ]
    return tuple(caution for caution in found if caution)


def _few_units(units: int, least: int) -> str:
    if not 1 < units < least:
        return ""
    return f"with {units} units the intervals are too narrow: the formulas are for many units"


def _near_zero(control: Moments) -> str:
    if abs(control.mean) >= NEAR_ZERO * control.error_variance**0.5:
        return ""
    return "the control's mean is near 0: the relative difference and its interval are unreliable"


def skewed_tail(skewness: float, tail: float) -> str:
    """Say when a *skewness* of the estimate moves a *tail* probability by more than a fifth."""
    shift = tail_shift(skewness, tail)
    if shift < tail * TOLERATED_SHIFT:
        return ""
    return (
        "the values are skewed and the groups unequal: "
        f"a tail probability of {tail:.1%} may be off by {shift:.1%}"
    )
