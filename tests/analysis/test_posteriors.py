"""Posteriors: intervals and probabilities, held against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from ldinstrument.analysis import (
    BetaPosterior,
    NormalPosterior,
    probabilities_to_be_best,
    probability_above,
    relative_difference,
)


def beta(alpha: float, tail: float) -> BetaPosterior:
    return BetaPosterior(alpha, tail, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("alpha", "tail"), [(3, 40), (40, 3), (200, 300), (1.5, 2), (1, 30), (30, 1), (0.4, 9)]
)
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_interval_of_a_beta_is_the_shortest(alpha, tail, level):
    """Highest density: no interval of that level is shorter, by scipy's optimisation."""
    law = stats.beta(alpha, tail)
    shortest = optimize.minimize_scalar(
        lambda start: law.ppf(start + level) - law.ppf(start), bounds=(0, 1 - level),
        method="bounded", options={"xatol": 1e-12},
    ).fun  # fmt: skip
    lower, upper = beta(alpha, tail).interval(level)
    assert law.cdf(upper) - law.cdf(lower) == pytest.approx(level, abs=1e-9)
    assert upper - lower == pytest.approx(shortest, rel=1e-4)


def test_mean_and_variance_of_a_beta_are_scipys():
    """Posterior and prior have the moments of their distributions."""
    posterior = BetaPosterior(12, 34, 0.9, 2, 5)
    assert (posterior.mean, posterior.variance) == pytest.approx(stats.beta.stats(12, 34))
    assert (posterior.prior_mean, posterior.prior_variance) == pytest.approx(stats.beta.stats(2, 5))


def test_densities_are_scipys():
    """For the curves of a page: where a mean is believed to be."""
    for value in (0.01, 0.2, 0.99):
        assert beta(3, 40).density(value) == pytest.approx(stats.beta(3, 40).pdf(value))
        assert NormalPosterior(0.3, 0.04).density(value) == pytest.approx(
            stats.norm(0.3, 0.2).pdf(value)
        )
    assert [beta(3, 40).density(value) for value in (-1, 0, 1, 2)] == [0] * 4
    assert NormalPosterior(0.3, 0).density(0.3) == 0


def test_the_interval_of_a_normal_is_scipys():
    """Symmetric around the mean."""
    assert NormalPosterior(3, 4).interval(0.9) == pytest.approx(stats.norm(3, 2).interval(0.9))


@pytest.mark.parametrize(
    ("left", "right"),
    [((5, 20), (7, 18)), ((100, 900), (130, 870)), ((2, 9000), (20, 2)), ((900, 100), (3, 2))],
)
@pytest.mark.parametrize("scale", [1.0, 0.9, 1.3])
def test_the_probability_of_two_betas_is_the_integral(left, right, scale):
    """P(left > scale * right), by scipy's quadrature of density times distribution."""
    one, two = stats.beta(*left), stats.beta(*right)
    points = sorted(
        {*one.ppf([0.001, 0.5, 0.999]), *np.clip(scale * two.ppf([0.001, 0.5, 0.999]), 0, 1)}
    )
    expected = integrate.quad(
        lambda x: one.pdf(x) * two.cdf(x / scale), 0, 1, points=points, limit=500, epsabs=1e-10
    )[0]
    assert probability_above(beta(*left), beta(*right), scale) == pytest.approx(expected, abs=2e-5)


def test_the_probability_of_two_normals_is_exact():
    """By the distribution of their difference; and a half for two equal certainties."""
    left, right = NormalPosterior(1.0, 0.04), NormalPosterior(0.8, 0.09)
    expected = stats.norm.cdf((1 - 0.9 * 0.8) / math.sqrt(0.04 + 0.81 * 0.09))
    assert probability_above(left, right, 0.9) == pytest.approx(expected, rel=1e-12)
    certain = NormalPosterior(1, 0)
    assert probability_above(certain, certain) == 0.5
    assert probability_above(certain, NormalPosterior(0, 0)) == 1.0
    far = probability_above(NormalPosterior(0, 1), NormalPosterior(30, 0))
    assert 0 < far == pytest.approx(stats.norm.sf(30), rel=1e-6)


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize(
    "posteriors",
    [
        [
            NormalPosterior(10, 1),
            NormalPosterior(10.5, 4),
            NormalPosterior(9, 0.01),
            NormalPosterior(10, 1),
        ],
        [beta(10, 90), beta(13, 90), beta(2000, 20000)],
        [NormalPosterior(10, 1), NormalPosterior(10.5, 0), NormalPosterior(9, 9)],
    ],
)
def test_the_probability_to_be_best_is_what_sampling_finds(posteriors, higher):
    """The integral agrees with 400,000 draws, and adds up to 1."""
    random = np.random.default_rng(3)
    draws = np.array([each.quantiles(random.random(400_000)) for each in posteriors])
    best = draws.argmax(axis=0) if higher else draws.argmin(axis=0)
    sampled = np.bincount(best, minlength=len(posteriors)) / draws.shape[1]
    found = probabilities_to_be_best(posteriors, higher_is_better=higher)
    assert found == pytest.approx(sampled, abs=0.004)
    assert sum(found) == pytest.approx(1, abs=1e-3)


def test_two_variations_are_best_by_the_exact_probability():
    """With two there is nothing to integrate; one alone is the best."""
    left, right = NormalPosterior(1, 0.1), NormalPosterior(1.2, 0.1)
    above = probability_above(left, right)
    assert probabilities_to_be_best([left, right]) == [above, 1 - above]
    assert probabilities_to_be_best([left, right], higher_is_better=False) == [1 - above, above]
    assert probabilities_to_be_best([left]) == [1.0]


def test_the_relative_difference_is_launchdarklys_formula():
    """m_v / m_0 - 1, with variance (m_v / m_0)^2 (o_v^2 / m_v^2 + o_0^2 / m_0^2)."""
    treatment, control = NormalPosterior(12, 0.5), NormalPosterior(10, 0.3)
    mean, variance = relative_difference(treatment, control)
    assert mean == pytest.approx(0.2)
    assert variance == pytest.approx(1.2**2 * (0.5 / 144 + 0.3 / 100))
    with pytest.raises(ZeroDivisionError):
        relative_difference(treatment, NormalPosterior(0, 1))
