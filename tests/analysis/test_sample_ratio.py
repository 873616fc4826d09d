"""The sample ratio test: held against ssrm-test, which its authors wrote."""

from __future__ import annotations

import math

import pytest

from ldinstrument.analysis import sample_ratio_mismatch

# Probabilities that ssrm-test 0.1.5 gives for all units as one data point; its dependencies do not
# install beside those of tea-tasting, so they stand here, and are computed anew where it is there.
RECORDED = [
    ((5100, 4900), (0.5, 0.5), 10_000, 0.657794374495694),
    ((5100, 4900), (0.5, 0.5), 100, 0.4183593897734546),
    ((5300, 4700), (0.5, 0.5), 10_000, 0.9998258143397047),
    ((5300, 4700), (0.5, 0.5), 100, 0.9999998188629418),
    ((900, 60, 40), (0.9, 0.05, 0.05), 10_000, 0.5216497174566811),
    ((900, 60, 40), (0.9, 0.05, 0.05), 100, 0.3582443211028207),
    ((905, 50, 45), (0.9, 0.05, 0.05), 10_000, 0.48326462142112003),
    ((905, 50, 45), (0.9, 0.05, 0.05), 100, 0.10566041709285573),
    ((10300, 9000, 980), (0.5, 0.45, 0.05), 10_000, 0.671333346790165),
    ((10300, 9000, 980), (0.5, 0.45, 0.05), 100, 0.06739057134210305),
]


@pytest.mark.parametrize(("units", "weights", "concentration", "expected"), RECORDED)
def test_the_probability_is_ssrm_tests(units, weights, concentration, expected):
    """For two and three variations, even and uneven, with a wide and a narrow prior."""
    found = sample_ratio_mismatch(units, weights, [concentration])
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert "Lindon and Malek" in found.source


@pytest.mark.parametrize(("units", "weights", "concentration", "expected"), RECORDED)
def test_the_recorded_probabilities_are_still_ssrm_tests(units, weights, concentration, expected):
    """What is recorded above is what the library says."""
    ssrm = pytest.importorskip(
        "ssrm_test.ssrm_test", reason="ssrm-test needs a toolz that tea-tasting cannot use"
    )
    theirs = ssrm.sequential_posterior_probabilities(
        [list(units)], list(weights), dirichlet_concentration=concentration
    )
    assert float(theirs[-1]) == pytest.approx(expected, rel=1e-9)


def test_the_scale_and_the_order_of_weights_make_no_difference():
    """Weights are shares of their sum, as LaunchDarkly's 100,000 are."""
    expected = sample_ratio_mismatch([5300, 4700], [0.5, 0.5]).value
    assert sample_ratio_mismatch([4700, 5300], [50_000, 50_000]).value == pytest.approx(expected)


def test_units_of_a_variation_without_traffic_are_a_mismatch():
    """Nobody may be where nobody is sent; an empty variation without traffic is left out."""
    assert sample_ratio_mismatch([500, 500, 1], [1, 1, 0]).value == 1.0
    assert sample_ratio_mismatch([500, 500, 0], [1, 1, 0]) == sample_ratio_mismatch(
        [500, 500], [1, 1]
    )


def test_certainty_does_not_overflow():
    """Millions of units in the wrong place are a probability of 1, in the right one near 0."""
    assert sample_ratio_mismatch([10_000_000, 1_000_000], [1, 1]).value == 1.0
    sure = sample_ratio_mismatch([5_000_000, 5_000_000], [1, 1]).value
    assert sure is not None
    assert 0 < sure < 0.05
    assert math.isfinite(sure)


def test_too_little_is_a_reason():
    """Without units or with one variation there is no ratio."""
    assert sample_ratio_mismatch([0, 0], [1, 1]).reason == "no unit was exposed"
    assert "no ratio" in sample_ratio_mismatch([50], [1]).reason
    assert "no ratio" in sample_ratio_mismatch([50, 0], [1, 0]).reason


@pytest.mark.parametrize("weights", [[1], [0, 0], [1, -1], [2, -1]])
def test_wrong_weights_are_refused(weights):
    """One weight of 0 or more per variation."""
    with pytest.raises(ValueError, match="weight"):
        sample_ratio_mismatch([5, 5], weights)


def test_a_gross_mismatch_is_noticed_soon() -> None:
    """Two of three units of one arm missing: hundreds of units are enough, not thousands."""
    assert sample_ratio_mismatch([296, 102], [1, 1]).value > 0.999
    assert sample_ratio_mismatch([296, 102], [1, 1], [10_000.0]).value < 0.99


def test_a_small_mismatch_is_noticed_at_all() -> None:
    """One in fifty missing of half a million."""
    assert sample_ratio_mismatch([250_000, 245_000], [1, 1]).value > 0.99
    assert sample_ratio_mismatch([250_000, 249_500], [1, 1]).value < 0.5
