"""A figure: a number, its interval, whose formula it is, and why it is missing where it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

BAYESIAN = "LaunchDarkly, Bayesian methodology"
FREQUENTIST = "LaunchDarkly, frequentist methodology"
CORRECTION = "LaunchDarkly, multiple comparisons correction"
CUPED = "LaunchDarkly, CUPED methodology"
GUARDED = "LaunchDarkly, guarded rollouts"
SAMPLE_RATIO = "LaunchDarkly, sample ratio mismatch (Lindon and Malek, arXiv 2011.03567)"
ORDER_STATISTICS = "ldinstrument, binomial order statistics"
DIFFERENCE = "ldinstrument, z test of the difference"
POWER = "ldinstrument, power of the z test"
RESTRICTED_MEAN = "ldinstrument, Kaplan-Meier restricted mean, jackknife over groups of units"
RATIO = "ldinstrument, ratio metric by the delta method"
DILUTION = "ldinstrument, share before the exposure"
MEASURED_SHARE = "ldinstrument, chi-square test of the share of units with a value"

STANDARD_NORMAL = NormalDist()


class TooLittleData(Exception):  # noqa: N818 - reads as what it is
    """There is no honest number; the message is the reason. `analyse` turns it into figures."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its interval and its source; None with a reason where there is too little data.

    Args:
        value: the number; None when *reason* says why there is none.
        source: whose formula it is.
        lower: the lower end of the interval; None where the figure has none.
        upper: the upper end of the interval; None where the figure has none.
        level: how much the interval holds, such as 0.95; None without an interval.
        reason: why there is no number; empty when there is one.
    """

    value: float | None
    source: str
    lower: float | None = None
    upper: float | None = None
    level: float | None = None
    reason: str = ""


def missing(source: str, reason: str) -> Figure:
    """Return a figure without a number, with the *reason*."""
    return Figure(None, source, reason=reason)


def normal_figure(value: float, variance: float, level: float, source: str) -> Figure:
    """Return *value* with the symmetric interval of a normal distribution of this *variance*."""
    margin = critical_value(1 - level) * math.sqrt(variance)
    return Figure(value, source, value - margin, value + margin, level)


def at_level(figure: Figure, variance: float, level: float) -> Figure:
    """Return *figure* with its normal interval at another *level*."""
    if figure.value is None or figure.lower is None:
        return figure
    return normal_figure(figure.value, variance, level, figure.source)


def critical_value(significance: float) -> float:
    """Return the two-sided critical value of the normal distribution: 1.96 for 0.05."""
    return STANDARD_NORMAL.inv_cdf(1 - significance / 2)


def normal_probability(distance: float) -> float:
    """Return the probability that a standard normal value is below *distance*.

    `erfc` keeps the small tails exact, where `NormalDist.cdf` rounds them to 0.
    """
    return math.erfc(-distance / math.sqrt(2)) / 2
