"""The Bayesian methodology: LaunchDarkly's published formulas, computed another way."""

from __future__ import annotations

import pytest
from scipy import stats

from ldinstrument.analysis import Moments, TooLittleData, beta_posteriors, normal_posteriors

CONTROL = Moments(400, 20.0, 90.0)
TREATMENT = Moments(380, 23.0, 110.0)


def test_the_normal_posterior_is_launchdarklys():
    """Precisions add up: prior N(y_0, y_0^2 g^2 + s_0^2 / N_0), data N(y_v, s_v^2 / N_v)."""
    control, treatment = normal_posteriors(CONTROL, [TREATMENT], 0.16)
    assert (control.mean, control.variance, control.weight) == (20.0, 90 / 400, 1.0)
    assert (control.prior_mean, control.prior_variance) == (None, None)
    width = 20**2 * 0.16 + 90 / 400
    variance = 1 / (1 / width + 380 / 110)
    mean = variance * (380 / 110 * 23 + 20 / width)
    assert treatment.variance == pytest.approx(variance, rel=1e-12)
    assert treatment.mean == pytest.approx(mean, rel=1e-12)
    assert (treatment.prior_mean, treatment.prior_variance) == (20.0, pytest.approx(width))
    assert treatment.mean == pytest.approx(treatment.weight * 23 + (1 - treatment.weight) * 20)


def test_a_wider_prior_trusts_the_data_more():
    """The prior's variance is an assumption that can be set; 0.13 to 0.19 hardly matter here."""
    narrow, wide = (normal_posteriors(CONTROL, [TREATMENT], width)[1] for width in (0.0001, 0.19))
    assert 20 < narrow.mean < wide.mean < 23
    assert narrow.weight < wide.weight < 1


def test_the_beta_posterior_is_launchdarklys():
    """Control Beta(1, 1) and its data; the treatment's prior matches mean and variance."""
    control, treatment = beta_posteriors(
        Moments(500, 0.1, 0.09), [Moments(520, 70 / 520, 0.1)], 0.04
    )
    assert (control.alpha, control.beta) == (51, 451)
    assert control.weight == pytest.approx(500 / 502)
    variance = 0.1**2 * 0.04 + 0.1 * 0.9 / 500
    prior = stats.beta.stats(treatment.prior_alpha, treatment.prior_beta)
    assert prior == pytest.approx((0.1, variance))
    assert treatment.alpha == pytest.approx(treatment.prior_alpha + 70)
    assert treatment.beta == pytest.approx(treatment.prior_beta + 450)
    expected = treatment.weight * 70 / 520 + (1 - treatment.weight) * 0.1
    assert treatment.mean == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_control_without_both_outcomes_has_no_prior(rate):
    """No Beta has that mean and variance: the reason is said instead of a number."""
    with pytest.raises(TooLittleData, match="no prior can be made"):
        beta_posteriors(Moments(50, rate, 0.0), [Moments(50, 0.5, 0.25)])


def test_a_prior_wider_than_any_beta_is_refused():
    """A variance of m (1 - m) or more has no Beta."""
    with pytest.raises(TooLittleData, match="no Beta prior"):
        beta_posteriors(Moments(1, 0.5, 0.0), [Moments(50, 0.5, 0.25)])
    with pytest.raises(TooLittleData, match="no unit has a value"):
        beta_posteriors(Moments(20, 0.5, 0.2), [Moments(0, 0, 0)])


@pytest.mark.parametrize(
    ("control", "treatment", "reason"),
    [
        (Moments(0, 0, 0), TREATMENT, "no unit has a value"),
        (CONTROL, Moments(1, 5, 0), "one unit has no spread"),
        (Moments(9, 5, 0), Moments(9, 5, 0), "all units have the same value"),
    ],
)
def test_too_little_data_is_said(control, treatment, reason):
    """No number is made from no spread."""
    with pytest.raises(TooLittleData, match=reason):
        normal_posteriors(control, [treatment])


def test_one_variation_without_spread_is_no_division_by_zero():
    """A constant treatment is believed, a constant control is no prior of width 0."""
    _, constant = normal_posteriors(CONTROL, [Moments(50, 21.0, 0.0)])
    assert (constant.mean, constant.variance, constant.weight) == (21.0, 0.0, 1.0)
    _, treatment = normal_posteriors(Moments(50, 0.0, 0.0), [TREATMENT])
    assert (treatment.mean, treatment.variance, treatment.weight) == (0.0, 0.0, 0.0)
