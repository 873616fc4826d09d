"""Percentile metrics: the value of a percentile with an interval that assumes no distribution.

LaunchDarkly publishes no interval for percentiles; this one is ours, and named so. It has two order
statistics for its ends: how many units lie below the true percentile is binomial, whatever the
distribution. The difference of two variations takes each one's standard error from the width of its
interval, as Price and Bonett do for medians.
"""

from __future__ import annotations

import math

from .buckets import OrderedValues
from .figures import ORDER_STATISTICS, Figure, TooLittleData, critical_value, missing
from .moments import Moments
from .special import scipy_special


def percentile_figure(values: OrderedValues, percentile: float, level: float = 0.95) -> Figure:
    """Return a percentile with its interval by binomial order statistics.

    Args:
        values: of all measured units.
        percentile: 0 to 100, such as 95.
        level: what the interval holds at least.
    """
    if not values.count:
        return missing(ORDER_STATISTICS, "no unit has a value")
    value = values.quantile(percentile / 100)
    ranks = _ranks(values.count, percentile / 100, level)
    if ranks is None:
        needed = least_units(percentile, level)
        reason = (
            f"{values.count} units are too few for an interval of P{percentile:g}: "
            f"{needed} are needed"
        )
        return Figure(value, ORDER_STATISTICS, reason=reason)
    return Figure(value, ORDER_STATISTICS, values.at(ranks[0]), values.at(ranks[1]), level)


def least_units(percentile: float, level: float = 0.95) -> int:
    """Return how many units an interval of this *percentile* needs, so that both ends exist."""
    tail, outer = (1 - level) / 2, max(percentile, 100 - percentile) / 100
    return max(math.ceil(math.log(tail) / math.log(outer)), 2) if 0 < outer < 1 else 2


def _ranks(units: int, share: float, level: float) -> tuple[int, int] | None:
    """Return the ranks of the order statistics that hold the quantile; None when one is missing."""
    tail = (1 - level) / 2
    lower = _largest_below(units, share, tail)
    upper = units + 1 - _largest_below(units, 1 - share, tail)
    return (lower, upper) if lower >= 1 and upper <= units else None


def _largest_below(units: int, share: float, tail: float) -> int:
    """Return the largest rank whose order statistic exceeds the quantile with at most *tail*."""
    binomial = scipy_special().bdtr
    low, high = 0, units  # binomial(low - 1) <= tail holds for low; find the last such
    while low < high:
        middle = (low + high + 1) // 2
        if binomial(middle - 1, units, share) <= tail:
            low = middle
        else:
            high = middle - 1
    return low


def percentile_moments(values: OrderedValues, percentile: float, level: float = 0.95) -> Moments:
    """Return a percentile as moments, to be compared as a mean is.

    Its error variance comes from the width of its interval.

    Raises:
        TooLittleData: there are too few units for an interval.
    """
    figure = percentile_figure(values, percentile, level)
    if figure.value is None or figure.lower is None or figure.upper is None:
        raise TooLittleData(figure.reason)
    error = (figure.upper - figure.lower) / (2 * critical_value(1 - level))
    return Moments(values.count, figure.value, error**2 * values.count)
