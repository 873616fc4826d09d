"""Winsorisation: values beyond a percentile are set to it, as LaunchDarkly's metrics can ask for.

The percentile is one of all variations together: a cap per variation would hide their difference.
Its rank is that of LaunchDarkly's published example: of ten values, P90 keeps the ninth and P10 the
second. LaunchDarkly winsorises warehouse metrics only; here any metric can have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .buckets import Cap, OrderedValues
from .moments import Moments
from .sufficient import SufficientStatistics


def winsorised(
    statistics: Sequence[SufficientStatistics],
    *,
    lower: float | None = None,
    upper: float | None = None,
    include_imputed: bool = False,
    zero_fill: bool = False,
) -> list[Moments]:
    """Return the moments of each variation after winsorisation.

    Args:
        statistics: one per variation of the experiment, control and treatments.
        lower: LaunchDarkly's `winsorLowerPercentile`, 0 to 100; None cuts nothing.
        upper: LaunchDarkly's `winsorUpperPercentile`, 0 to 100; None cuts nothing.
        include_imputed: whether units that count as 0 take part in the percentile.
        zero_fill: whether units without a value count as 0.
    """
    values = _pooled(statistics, zero_fill=zero_fill and include_imputed)
    low, high = _lower_cap(values, lower), _upper_cap(values, upper)
    return [variation.capped(low, high, zero_fill=zero_fill) for variation in statistics]


def _pooled(statistics: Iterable[SufficientStatistics], *, zero_fill: bool) -> OrderedValues:
    pooled = SufficientStatistics()
    for variation in statistics:
        pooled.merge(variation)
    return pooled.ordered(zero_fill=zero_fill)


def _upper_cap(values: OrderedValues, percentile: float | None) -> Cap | None:
    if percentile is None or not values.count:
        return None
    return values.cap(max(math.ceil(values.count * percentile / 100), 1))


def _lower_cap(values: OrderedValues, percentile: float | None) -> Cap | None:
    if percentile is None or not values.count:
        return None
    return values.cap(min(math.floor(values.count * percentile / 100) + 1, values.count))
