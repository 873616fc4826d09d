"""CUPED: the same metric before the start explains a part of the spread between units.

As LaunchDarkly publishes it: per variation a slope of its own, the mean moved by the slope times
the imbalance of the past, the variance reduced by the squared correlation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .moments import Moments
from .paired import PairedMoments, PairedStatistics


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What CUPED did to one variation, in the words of LaunchDarkly's results.

    Args:
        moments: the adjusted mean and variance.
        correlation: between the value and the past.
        deviation_ratio: the values' standard deviation over that of the past.
        imbalance: the mean of the variation's past less that of all units.
        variance_reduction: the share of the variance that is gone.
    """

    moments: Moments
    correlation: float
    deviation_ratio: float
    imbalance: float
    variance_reduction: float


def adjusted(variations: Sequence[tuple[Moments, PairedStatistics]]) -> list[Adjustment] | None:
    """Return the adjusted variations; None when the past of one of them says nothing.

    Args:
        variations: control and treatments; each with its moments, and the pairs of value and past
            of exactly the same units (0 for a unit without a past).
    """
    pasts = [pairs.moments() for _, pairs in variations]
    if not all(
        _usable(moments, past) for (moments, _), past in zip(variations, pasts, strict=True)
    ):
        return None
    overall = PairedStatistics()
    for _, pairs in variations:
        overall.merge(pairs)
    mean = overall.moments().second_mean
    return [
        _adjust(moments, past, mean) for (moments, _), past in zip(variations, pasts, strict=True)
    ]


def _usable(moments: Moments, past: PairedMoments) -> bool:
    return past.units == moments.units > 2 and past.first_variance > 0 < past.second_variance


def _adjust(moments: Moments, past: PairedMoments, overall: float) -> Adjustment:
    correlation = past.covariance / math.sqrt(past.first_variance * past.second_variance)
    slope = past.covariance / past.second_variance
    imbalance = past.second_mean - overall
    changed = replace(
        moments,
        mean=moments.mean - slope * imbalance,
        variance=moments.variance * (1 - correlation**2),
    )
    ratio = math.sqrt(past.first_variance / past.second_variance)
    return Adjustment(changed, correlation, ratio, imbalance, correlation**2)
