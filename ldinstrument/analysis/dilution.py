"""Dilution: a session that began before the exposure shows only a part of the effect.

A value that holds time or activity from before the exposure is unbiased, but its effect is thinner
by the share that lies before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .figures import DILUTION, Figure, missing
from .paired import PairedStatistics
from .ratios import ratio_figure


@dataclass(frozen=True, slots=True)
class Dilution:
    """How much of the values lies before the exposure, and the effect without that part.

    Args:
        share: of the activity before the exposure, 0 to 1, with its interval.
        undiluted: the relative difference on what came after: relative / (1 - share).
    """

    share: Figure
    undiluted: Figure


def dilution(
    activity: PairedStatistics, relative_difference: Figure, level: float = 0.95
) -> Dilution:
    """Return the dilution of one metric.

    Args:
        activity: per unit the part before its exposure, and the whole (durations, or counts).
        relative_difference: as it was measured on whole values.
        level: what the interval of the share holds.
    """
    share = replace(ratio_figure(activity, level), source=DILUTION)
    return Dilution(share, _undiluted(share.value, relative_difference))


def _undiluted(share: float | None, relative: Figure) -> Figure:
    if share is None or relative.value is None:
        return missing(DILUTION, relative.reason or "the share before the exposure is not known")
    if share >= 1:
        return missing(DILUTION, "all activity lies before the exposure")
    rest = 1 - share
    return replace(
        relative,
        source=DILUTION,
        value=relative.value / rest,
        lower=None if relative.lower is None else relative.lower / rest,
        upper=None if relative.upper is None else relative.upper / rest,
    )
