"""Power: what these units would show, held against tea-tasting and against the z test itself."""

from __future__ import annotations

import pytest

from ldinstrument.analysis import Moments, minimum_detectable_effect, units_needed

CONTROL = Moments(2000, 20.0, 90.0)
TREATMENT = Moments(2000, 20.4, 90.0)


def test_the_minimum_detectable_effect_is_tea_tastings():
    """Its solver finds the same relative effect for as many units."""
    tasting = pytest.importorskip("tea_tasting", reason="tea-tasting is not installed here")
    sample = tasting.aggr.Aggregates(4000, {"y": 20.0}, {"y": 90.0}, {})
    for power, alpha in ((0.8, 0.05), (0.9, 0.01)):
        metric = tasting.Mean(
            "y", use_t=False, equal_var=False, alpha=alpha, power=power, n_obs=4000
        )
        theirs = metric.solve_power_from_aggregates(sample, "rel_effect_size")[0].rel_effect_size
        ours = minimum_detectable_effect(CONTROL, TREATMENT, significance=alpha, power=power)
        assert ours.value == pytest.approx(theirs, rel=1e-3)


def test_the_units_needed_make_their_effect_the_smallest():
    """With that many units the minimum detectable effect is the effect asked for."""
    needed = units_needed(CONTROL, TREATMENT, -0.01).value
    assert needed is not None
    grown = [Moments(round(needed / 2), each.mean, each.variance) for each in (CONTROL, TREATMENT)]
    assert minimum_detectable_effect(*grown).value == pytest.approx(0.01, rel=1e-3)


def test_a_quarter_of_the_effect_needs_sixteen_times_the_units():
    """Units grow with the square of what is to be found."""
    one, quarter = (units_needed(CONTROL, TREATMENT, effect).value for effect in (0.02, 0.005))
    assert quarter == pytest.approx(16 * one, rel=1e-3)


@pytest.mark.parametrize(
    ("control", "effect", "reason"),
    [
        (CONTROL, 0.0, "difference of 0"),
        (CONTROL, None, "difference of 0"),
        (Moments(10, 0.0, 5.0), 0.1, "mean is 0"),
        (Moments(1, 5.0, 0.0), 0.1, "one unit"),
    ],
)
def test_what_cannot_be_planned_is_said(control, effect, reason):
    """No effect, no baseline, no spread: a reason instead of a number."""
    assert reason in units_needed(control, TREATMENT, effect).reason
    if effect:
        assert reason in minimum_detectable_effect(control, TREATMENT).reason
