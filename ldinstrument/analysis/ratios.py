"""Ratio metrics: a rate per interaction instead of per unit, by the delta method.

`sum(numerator) / sum(denominator)` over units: a unit with many interactions weighs more. Treating
the interactions as independent would make the interval far too narrow; units are independent.
LaunchDarkly has ratio metrics only in warehouses; these are ours.

The interval is narrow where few units have most of the interactions: with denominators without a
finite variance (Pareto, 1.8) and 400 units, 7 to 8 % of A/A tests are significant at 5 %.
"""

from __future__ import annotations

from .figures import RATIO, Figure, missing, normal_figure
from .moments import Moments
from .paired import PairedMoments, PairedStatistics


def ratio_moments(statistics: PairedStatistics) -> Moments | None:
    """Return a ratio metric as moments, to be compared as a mean is; None without a denominator.

    Args:
        statistics: numerator and denominator of each unit.
    """
    pair = statistics.moments()
    if not pair.second_mean:
        return None
    ratio = pair.first_mean / pair.second_mean
    return Moments(pair.units, ratio, max(_spread(pair, ratio), 0.0) / pair.second_mean**2)


def ratio_figure(statistics: PairedStatistics, level: float = 0.95) -> Figure:
    """Return the ratio of one variation with its interval."""
    moments = ratio_moments(statistics)
    if moments is None:
        return missing(RATIO, "the denominator is 0 for all units")
    if moments.units < 2:
        return Figure(moments.mean, RATIO, reason="one unit has no spread: at least two are needed")
    return normal_figure(moments.mean, moments.error_variance, level, RATIO)


def _spread(pair: PairedMoments, ratio: float) -> float:
    return pair.first_variance - 2 * ratio * pair.covariance + ratio**2 * pair.second_variance
