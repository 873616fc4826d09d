"""LaunchDarkly's Bayesian methodology: the posteriors of a metric's variations.

The control has a flat prior: Normal around its data mean, or Beta(1, 1) and its data. A treatment's
prior is centred on the control, as wide as relative differences were over all of LaunchDarkly's
experiments: that variance is an internal constant of theirs, published as 0.13 to 0.19 for numeric
metrics and about 0.04 for conversions. It is an assumption here, shown with every result and set by
`prior_variance`.
"""

from __future__ import annotations

from .figures import TooLittleData
from .moments import Moments, shortage
from .posteriors import BetaPosterior, NormalPosterior

NUMERIC_PRIOR_VARIANCE = 0.16
CONVERSION_PRIOR_VARIANCE = 0.04


def normal_posteriors(
    control: Moments, treatments: list[Moments], prior_variance: float = NUMERIC_PRIOR_VARIANCE
) -> list[NormalPosterior]:
    """Return the posteriors of a numeric or count metric, the control's first.

    Args:
        control: the control's units.
        treatments: the treatments' units.
        prior_variance: of relative differences, before any data.

    Raises:
        TooLittleData: a variation has fewer than two units, or no unit differs from another.
    """
    require_spread([control, *treatments])
    base = NormalPosterior(control.mean, control.error_variance)
    width = control.mean**2 * prior_variance + control.error_variance
    return [base, *(_normal_posterior(treatment, control.mean, width) for treatment in treatments)]


def _normal_posterior(data: Moments, prior_mean: float, prior_variance: float) -> NormalPosterior:
    # Written with variances, not precisions: either may be 0, where a precision would be infinite.
    weight = prior_variance / (prior_variance + data.error_variance) if prior_variance else 0.0
    mean = weight * data.mean + (1 - weight) * prior_mean
    return NormalPosterior(mean, weight * data.error_variance, weight, prior_mean, prior_variance)


def require_spread(variations: list[Moments]) -> None:
    """Raise `TooLittleData` unless every variation has two units, and some units differ."""
    for variation in variations:
        if reason := shortage(variation):
            raise TooLittleData(reason)
    if not any(variation.variance for variation in variations):
        raise TooLittleData("all units have the same value: there is no spread to judge by")


def beta_posteriors(
    control: Moments, treatments: list[Moments], prior_variance: float = CONVERSION_PRIOR_VARIANCE
) -> list[BetaPosterior]:
    """Return the posteriors of an occurrence metric, the control's first; unit values are 0 or 1.

    Args:
        control: the control's units.
        treatments: the treatments' units.
        prior_variance: of relative differences, before any data.

    Raises:
        TooLittleData: a variation has no unit, or there is no Beta prior of that variance.
    """
    for variation in [control, *treatments]:
        if not variation.units:
            raise TooLittleData(shortage(variation))
    prior_alpha, prior_beta = _beta_prior(control, prior_variance)
    base = _beta_posterior(control, 1.0, 1.0)
    return [
        base,
        *(_beta_posterior(treatment, prior_alpha, prior_beta) for treatment in treatments),
    ]


def _beta_prior(control: Moments, prior_variance: float) -> tuple[float, float]:
    rate = control.mean
    wanted = rate**2 * prior_variance + rate * (1 - rate) / control.units
    if not 0 < wanted < rate * (1 - rate):
        raise TooLittleData(_no_prior(rate))
    strength = rate * (1 - rate) / wanted - 1
    return rate * strength, (1 - rate) * strength


def _no_prior(rate: float) -> str:
    if rate in (0, 1):
        return (
            f"{'no' if not rate else 'every'} unit of the control converted: no prior can be made"
        )
    return f"no Beta prior is as wide as asked at a control rate of {rate:.4g}"


def _beta_posterior(data: Moments, prior_alpha: float, prior_beta: float) -> BetaPosterior:
    conversions = round(data.mean * data.units)
    weight = data.units / (data.units + prior_alpha + prior_beta)
    alpha, beta = prior_alpha + conversions, prior_beta + data.units - conversions
    return BetaPosterior(alpha, beta, weight, prior_alpha, prior_beta)
