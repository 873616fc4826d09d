"""Power: the smallest effect that these units would show, and how many units another one needs."""

from __future__ import annotations

import math

from .figures import POWER, STANDARD_NORMAL, Figure, critical_value, missing
from .frequentist import NO_RELATIVE
from .moments import Moments, spreadless

USUAL = 0.8


def minimum_detectable_effect(
    control: Moments, treatment: Moments, *, significance: float = 0.05, power: float = USUAL
) -> Figure:
    """Return the relative difference that a two-sided z test finds with probability *power*.

    Args:
        control: the control's units.
        treatment: the treatment's units; those still to come are expected to spread alike.
        significance: the level of the test.
        power: the probability to find the effect when it is there.
    """
    if reason := _reason_against(control, treatment):
        return missing(POWER, reason)
    error = math.sqrt(control.error_variance + treatment.error_variance)
    return Figure(_distance(significance, power) * error / abs(control.mean), POWER)


def units_needed(
    control: Moments,
    treatment: Moments,
    effect: float | None,
    *,
    significance: float = 0.05,
    power: float = USUAL,
) -> Figure:
    """Return the units, of both variations together, that find a relative *effect*.

    Args:
        control: the control's units.
        treatment: the treatment's units; the proportion of the two is kept.
        effect: the relative difference to be found, such as 0.05; its sign does not matter.
        significance: the level of the test.
        power: the probability to find the effect when it is there.
    """
    if reason := _reason_against(control, treatment):
        return missing(POWER, reason)
    if not effect:
        return missing(POWER, "no number of units finds a difference of 0")
    smallest = minimum_detectable_effect(
        control, treatment, significance=significance, power=power
    ).value
    seen = control.units + treatment.units
    return Figure(float(math.ceil(seen * (float(smallest or 0.0) / effect) ** 2)), POWER)


def _distance(significance: float, power: float) -> float:
    return critical_value(significance) + STANDARD_NORMAL.inv_cdf(power)


def _reason_against(control: Moments, treatment: Moments) -> str:
    if reason := spreadless(control, treatment):
        return reason
    return "" if control.mean else NO_RELATIVE
