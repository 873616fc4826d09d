"""Sample ratio mismatch: whether units arrive at other rates than they were allocated.

The sequential multinomial test of Lindon and Malek (arXiv 2011.03567), as LaunchDarkly uses it: it
may be looked at after every unit. A Dirichlet prior around the allocation gives the Bayes factor in
closed form, and with even prior odds an alert at 99 % has a false alarm rate of at most 1 in 99
over the whole stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .figures import SAMPLE_RATIO, Figure, missing

CONCENTRATIONS = (100.0, 1_000.0, 10_000.0)
"""How near the allocation a mismatch is expected; the last is ssrm-test's, which takes thousands of
units to notice that every second one is missing. A mean of Bayes factors is one, too."""
ALERT = 0.99


def sample_ratio_mismatch(
    units: Sequence[int],
    weights: Sequence[float],
    concentrations: Sequence[float] = CONCENTRATIONS,
) -> Figure:
    """Return the probability that units do not arrive as allocated; LaunchDarkly alerts at 0.99.

    Args:
        units: exposed units, one count per variation.
        weights: the allocation, in the same order; any scale.
        concentrations: of the Dirichlet priors around the allocation, which weigh the same;
            LaunchDarkly's is not published.

    Raises:
        ValueError: a weight is negative, none is positive, or there are not as many as counts.
    """
    shares = _shares(units, weights)
    if any(count and not share for count, share in zip(units, shares, strict=True)):
        return Figure(1.0, SAMPLE_RATIO)
    allocated = [(count, share) for count, share in zip(units, shares, strict=True) if share]
    if len(allocated) < 2:
        return missing(SAMPLE_RATIO, "one variation has all the traffic: there is no ratio")
    if not sum(units):
        return missing(SAMPLE_RATIO, "no unit was exposed")
    factors = [_log_bayes_factor(allocated, concentration) for concentration in concentrations]
    return Figure(_probability(_log_mean(factors)), SAMPLE_RATIO)


def _shares(units: Sequence[int], weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    if len(units) != len(weights) or total <= 0 or min(weights) < 0:
        raise ValueError("one weight of 0 or more per variation, not all of them 0")
    return [weight / total for weight in weights]


def _log_bayes_factor(allocated: Sequence[tuple[int, float]], concentration: float) -> float:
    total = sum(count for count, _ in allocated)
    factor = math.lgamma(concentration) - math.lgamma(concentration + total)
    for count, share in allocated:
        alpha = concentration * share
        factor += math.lgamma(alpha + count) - math.lgamma(alpha) - count * math.log(share)
    return factor


def _log_mean(logs: Sequence[float]) -> float:
    greatest = max(logs)
    return greatest + math.log(math.fsum(math.exp(log - greatest) for log in logs) / len(logs))


def _probability(log_odds: float) -> float:
    if log_odds > 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))
