"""LaunchDarkly's frequentist methodology, fixed horizon: the z test on two means.

LaunchDarkly's sequential mode is not published, so there is none here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .figures import (
    DIFFERENCE,
    FREQUENTIST,
    Figure,
    at_level,
    missing,
    normal_figure,
    normal_probability,
)
from .moments import Moments, shortage, spreadless

NO_RELATIVE = "the control's mean is 0: there is no relative difference"
NEGATIVE_CONTROL = "the control's mean is negative: a relative difference would have the wrong sign"


@dataclass(frozen=True, slots=True)
class ZTest:
    """What the z test says of one treatment against the control.

    Args:
        difference: of the means, with its interval.
        relative_difference: mean / control mean - 1, with its interval.
        p_two_sided: the probability of a difference at least this large, either way, by chance.
        p_one_sided: the same in the direction that the success criteria call better.
        p_difference: two-sided, of the difference; the other two are of the relative one.
        significance: the level that p was held against, after a correction.
        significant: whether p is below it; None without a p.
        difference_variance: the squared standard error of the difference.
        relative_variance: the squared standard error of the relative difference.
        one_sided: whether significance goes by the one-sided p.
        skewness: of the error of the difference; what is not normal about it.
        correction: whose correction for multiple comparisons made the level; empty for none.
    """

    difference: Figure
    relative_difference: Figure
    p_two_sided: Figure
    p_one_sided: Figure
    p_difference: Figure
    significance: float
    significant: bool | None
    difference_variance: float = 0.0
    relative_variance: float = 0.0
    one_sided: bool = False
    skewness: float = 0.0
    correction: str = ""

    @property
    def p_value(self) -> float | None:
        """Return the p that significance goes by."""
        return (self.p_one_sided if self.one_sided else self.p_two_sided).value

    def at(self, significance: float, correction: str = "") -> ZTest:
        """Return the test at another *significance*, its intervals too."""
        level = 1 - significance
        return replace(
            self,
            difference=at_level(self.difference, self.difference_variance, level),
            relative_difference=at_level(self.relative_difference, self.relative_variance, level),
            significance=significance,
            correction=correction,
            significant=None if self.p_value is None else self.p_value < significance,
        )


def z_test(
    control: Moments,
    treatment: Moments,
    *,
    significance: float = 0.05,
    higher_is_better: bool = True,
    one_sided: bool = False,
    source: str = FREQUENTIST,
) -> ZTest:
    """Compare two variations as LaunchDarkly's frequentist experiments do.

    The p-values are of the relative difference where there is one, else of the difference.

    Args:
        control: the control's units.
        treatment: the treatment's units.
        significance: 0.1, 0.05 or 0.01 in LaunchDarkly; the intervals hold the rest of 1.
        higher_is_better: the metric's success criteria.
        one_sided: whether `significant` goes by the one-sided p.
        source: whose formula made these moments.
    """
    if reason := spreadless(control, treatment):
        return no_test(reason, significance, one_sided=one_sided, source=source)
    variance = control.error_variance + treatment.error_variance
    difference = treatment.mean - control.mean
    relative, relative_variance = _relative(control, treatment, 1 - significance, source)
    tested = (relative.value, relative_variance) if relative_variance else (difference, variance)
    distance = float(tested[0] or 0.0) / math.sqrt(tested[1])
    return ZTest(
        normal_figure(difference, variance, 1 - significance, source),
        relative,
        Figure(2 * normal_probability(-abs(distance)), source),
        Figure(normal_probability(-distance if higher_is_better else distance), source),
        Figure(2 * normal_probability(-abs(difference) / math.sqrt(variance)), DIFFERENCE),
        significance,
        None,
        variance,
        relative_variance,
        one_sided,
        error_skewness(control, treatment),
    ).at(significance)


def error_skewness(control: Moments, treatment: Moments) -> float:
    """Return the skewness of the error of the difference of two means.

    Both are taken to be as skewed as the more skewed one, which few units show too little of; and
    to spread as they do, or alike, whichever is worse: few units show too little spread, too. In
    equal groups that spread alike the skewness cancels out.
    """
    skewness = max(control.skewness, treatment.skewness, key=abs)
    own = _imbalance(control.error_variance, treatment.error_variance, control, treatment)
    alike = _imbalance(1 / control.units, 1 / treatment.units, control, treatment)
    return skewness * max(own, alike, key=abs)


def _imbalance(first: float, second: float, control: Moments, treatment: Moments) -> float:
    """Return what is left of a skewness of 1, for two error variances."""
    left = second * math.sqrt(second / treatment.units) - first * math.sqrt(first / control.units)
    return left / ((first + second) * math.sqrt(first + second))


def mean_figure(moments: Moments, significance: float) -> Figure:
    """Return the data mean of a variation with its confidence interval."""
    if not moments.units:
        return missing(FREQUENTIST, shortage(moments))
    if reason := shortage(moments):
        return Figure(moments.mean, FREQUENTIST, reason=reason)
    return normal_figure(moments.mean, moments.error_variance, 1 - significance, FREQUENTIST)


def no_test(
    reason: str, significance: float, *, one_sided: bool = False, source: str = FREQUENTIST
) -> ZTest:
    """Return a test without figures, for *reason*."""
    none = missing(source, reason)
    return ZTest(none, none, none, none, none, significance, None, one_sided=one_sided)


def _relative(
    control: Moments, treatment: Moments, level: float, source: str
) -> tuple[Figure, float]:
    if control.mean <= 0:
        return missing(source, NEGATIVE_CONTROL if control.mean else NO_RELATIVE), 0.0
    ratio = treatment.mean / control.mean
    variance = (treatment.error_variance + ratio**2 * control.error_variance) / control.mean**2
    if not variance:
        reason = "no unit of the treatment differs from another: there is no interval"
        return Figure(ratio - 1, source, reason=reason), 0.0
    return normal_figure(ratio - 1, variance, level, source), variance
