"""Posteriors: what is believed of a variation's mean after the data, Normal or Beta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .figures import STANDARD_NORMAL, critical_value, normal_probability
from .special import load_numpy, scipy_special

GRID = 500  # points per variation when the probability to be best is integrated
GOLDEN = (math.sqrt(5) - 1) / 2
SEARCH_STEPS = 60


@dataclass(frozen=True, slots=True)
class NormalPosterior:
    """A normal distribution of the mean, with the prior that it came from.

    Args:
        mean: the posterior mean.
        variance: the posterior variance.
        weight: of the data: mean = weight * data mean + (1 - weight) * prior mean.
        prior_mean: None for the flat prior of the control.
        prior_variance: None for the flat prior of the control.
    """

    mean: float
    variance: float
    weight: float = 1.0
    prior_mean: float | None = None
    prior_variance: float | None = None

    def interval(self, level: float) -> tuple[float, float]:
        """Return the highest-density interval that holds *level*."""
        margin = critical_value(1 - level) * math.sqrt(self.variance)
        return self.mean - margin, self.mean + margin

    def density(self, value: float) -> float:
        """Return the probability density at *value*; 0.0 where there is no spread to show."""
        if not self.variance:
            return 0.0
        deviation = math.sqrt(self.variance)
        return STANDARD_NORMAL.pdf((value - self.mean) / deviation) / deviation

    def quantiles(self, shares: Any) -> Any:
        """Return the quantiles of an array of *shares*."""
        return self.mean + math.sqrt(self.variance) * scipy_special().ndtri(shares)

    def below(self, values: Any) -> Any:
        """Return the probability to be below each of an array of *values*."""
        if not self.variance:
            return (load_numpy().sign(values - self.mean) + 1) / 2
        return scipy_special().ndtr((values - self.mean) / math.sqrt(self.variance))


@dataclass(frozen=True, slots=True)
class BetaPosterior:
    """A Beta distribution of a rate, with the prior that it came from.

    Args:
        alpha: conversions, those of the prior included.
        beta: units without one, those of the prior included.
        weight: of the data: mean = weight * data mean + (1 - weight) * prior mean.
        prior_alpha: the prior's share of *alpha*.
        prior_beta: the prior's share of *beta*.
    """

    alpha: float
    beta: float
    weight: float
    prior_alpha: float
    prior_beta: float

    @property
    def mean(self) -> float:
        """Return the posterior mean."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def variance(self) -> float:
        """Return the posterior variance."""
        total = self.alpha + self.beta
        return self.alpha * self.beta / (total**2 * (total + 1))

    @property
    def prior_mean(self) -> float:
        """Return the mean of the prior."""
        return self.prior_alpha / (self.prior_alpha + self.prior_beta)

    @property
    def prior_variance(self) -> float:
        """Return the variance of the prior."""
        total = self.prior_alpha + self.prior_beta
        return self.prior_alpha * self.prior_beta / (total**2 * (total + 1))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the highest-density interval that holds *level*."""
        start = self._densest_start(level)
        return self._quantile(start), self._quantile(start + level)

    def density(self, value: float) -> float:
        """Return the probability density at *value*; 0.0 outside of 0 to 1 and at its ends."""
        if not 0 < value < 1:
            return 0.0
        whole = math.lgamma(self.alpha + self.beta)
        scale = whole - math.lgamma(self.alpha) - math.lgamma(self.beta)
        below, above = (self.alpha - 1) * math.log(value), (self.beta - 1) * math.log1p(-value)
        return math.exp(scale + below + above)

    def quantiles(self, shares: Any) -> Any:
        """Return the quantiles of an array of *shares*."""
        return scipy_special().betaincinv(self.alpha, self.beta, shares)

    def below(self, values: Any) -> Any:
        """Return the probability to be below each of an array of *values*."""
        inside = load_numpy().clip(values, 0, 1)
        return scipy_special().betainc(self.alpha, self.beta, inside)

    def _quantile(self, share: float) -> float:
        inside = min(max(share, 0.0), 1.0)
        return float(scipy_special().betaincinv(self.alpha, self.beta, inside))

    def _densest_start(self, level: float) -> float:
        """Return the probability below the shortest interval that holds *level*."""
        low, high = 0.0, 1 - level
        for _ in range(SEARCH_STEPS):
            left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            if self._width(left, level) < self._width(right, level):
                high = right
            else:
                low = left
        return (low + high) / 2

    def _width(self, start: float, level: float) -> float:
        return self._quantile(start + level) - self._quantile(start)


Posterior = NormalPosterior | BetaPosterior


def probability_above(left: Posterior, right: Posterior, scale: float = 1.0) -> float:
    """Return the probability that the mean of *left* is above *scale* times that of *right*.

    Exact for two normal distributions; integrated over their quantiles where one is a Beta.
    """
    if isinstance(left, NormalPosterior) and isinstance(right, NormalPosterior):
        distance = left.mean - scale * right.mean
        return _positive(distance, left.variance + scale**2 * right.variance)
    np = load_numpy()
    shares = _grid(np)
    points = np.unique(np.concatenate([left.quantiles(shares), scale * right.quantiles(shares)]))
    return _share_best(np, left.below(points), right.below(points / scale))


def _positive(mean: float, variance: float) -> float:
    """Return the probability that a normal value is positive; half of 0 counts."""
    if not variance:
        return 0.5 if not mean else float(mean > 0)
    return normal_probability(mean / math.sqrt(variance))


def probabilities_to_be_best(
    posteriors: Sequence[Posterior], *, higher_is_better: bool = True
) -> list[float]:
    """Return for each variation the probability that its mean is the best of all."""
    if len(posteriors) == 1:
        return [1.0]
    if len(posteriors) == 2:
        above = probability_above(posteriors[0], posteriors[1])
        return [above, 1 - above] if higher_is_better else [1 - above, above]
    return _highest(posteriors) if higher_is_better else _highest(posteriors, upwards=False)


def _highest(posteriors: Sequence[Posterior], *, upwards: bool = True) -> list[float]:
    """Integrate each density times the probabilities of all others to be below (or above) it.

    The points are quantiles of all of them, so that a narrow one beside a wide one is not missed.
    """
    np = load_numpy()
    shares = _grid(np)
    points = np.unique(np.concatenate([posterior.quantiles(shares) for posterior in posteriors]))
    below = np.array([posterior.below(points) for posterior in posteriors])
    beaten = below if upwards else 1 - below
    return [
        _share_best(np, below[place], np.prod(np.delete(beaten, place, axis=0), axis=0))
        for place in range(len(posteriors))
    ]


def _share_best(np: Any, below: Any, beaten: Any) -> float:
    """Integrate the probability to beat the others over one distribution, given point by point."""
    return float(np.sum(np.diff(below) * (beaten[1:] + beaten[:-1]) / 2))


def _grid(np: Any) -> Any:
    """Return shares from 1e-12 to nearly 1, evenly spaced as a normal distribution's values."""
    end = STANDARD_NORMAL.inv_cdf(1e-12)
    return scipy_special().ndtr(np.linspace(end, -end, GRID))


def relative_difference(left: Posterior, right: Posterior) -> tuple[float, float]:
    """Return mean and variance of mean(left) / mean(right) - 1 by the delta method.

    Raises:
        ZeroDivisionError: the mean of *right* is 0.
    """
    ratio = left.mean / right.mean
    variance = left.variance / right.mean**2 + ratio**2 * right.variance / right.mean**2
    return ratio - 1, variance
