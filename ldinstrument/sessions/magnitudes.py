"""Whether the values recorded by hand fit the unit of their metric: LaunchDarkly converts none."""

from __future__ import annotations

from ..diagnostics import warn_once
from ..metrics.metric import Metric
from ..metrics.units import is_confusable, other_unit

LOOKED_AT = 10
"""So many values of a metric are looked at."""
MOST_METRICS = 1_000


class _Seen:
    __slots__ = ("count", "fractions", "greatest")

    def __init__(self) -> None:
        self.count = 0
        self.greatest = 0.0
        self.fractions = 0


_seen: dict[str, _Seen] = {}
settled: set[str] = set()
"""The keys of metrics of which nothing more is to be found out: ask here before each value."""


def check_magnitude(metric: Metric, value: float) -> None:
    """Look at the first values of *metric*; say it once if they seem to be in another unit."""
    seen = _seen.get(metric.key)
    if metric.key in settled:
        return
    if seen is None:
        if len(_seen) >= MOST_METRICS:
            return
        seen = _seen[metric.key] = _Seen()
        if not is_confusable(metric.key, metric.unit):
            settled.add(metric.key)
            return
    seen.count += 1
    seen.greatest = max(seen.greatest, abs(value))
    seen.fractions += value != round(value)
    if seen.count < LOOKED_AT:
        return
    settled.add(metric.key)
    if seen.fractions:
        unit = other_unit(metric.unit, seen.greatest)
        if unit:
            warn_once(
                "magnitude",
                metric.event,
                f"{metric.event}: the first {LOOKED_AT} values are at most {seen.greatest:.4g}, "
                f"under a metric in {metric.unit}: are they {unit}? LaunchDarkly converts nothing; "
                "record the metric's own unit, such as 1000 * seconds",
            )


def forget() -> None:
    """Forget what was seen (tests)."""
    _seen.clear()
    settled.clear()
