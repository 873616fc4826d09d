"""Figures: a number with its interval, or the reason why there is none."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from ldinstrument.analysis.figures import (
    Figure,
    at_level,
    critical_value,
    missing,
    normal_figure,
    normal_probability,
)


def test_the_interval_of_a_normal_figure_is_scipys():
    """Around the value, as wide as the level asks."""
    figure = normal_figure(3.0, 4.0, 0.9, "source")
    assert (figure.value, figure.level, figure.source, figure.reason) == (3.0, 0.9, "source", "")
    assert (figure.lower, figure.upper) == pytest.approx(stats.norm(3, 2).interval(0.9))


def test_another_level_changes_the_interval_only():
    """A figure without a number or without an interval stays what it is."""
    figure = normal_figure(3.0, 4.0, 0.9, "source")
    assert at_level(figure, 4.0, 0.99) == normal_figure(3.0, 4.0, 0.99, "source")
    for other in (missing("source", "too few"), Figure(0.5, "source")):
        assert at_level(other, 4.0, 0.99) is other


def test_a_missing_figure_has_a_reason_instead_of_a_number():
    """And neither an interval nor a level."""
    figure = missing("source", "too few")
    assert (figure.value, figure.lower, figure.upper, figure.level) == (None,) * 4
    assert (figure.source, figure.reason) == ("source", "too few")


def test_critical_values_are_those_of_every_table():
    """Two-sided: 1.645, 1.960 and 2.576."""
    found = [critical_value(significance) for significance in (0.1, 0.05, 0.01)]
    assert found == pytest.approx([1.644854, 1.959964, 2.575829], abs=1e-6)


@pytest.mark.parametrize("distance", [-37.0, -9.0, -1.0, 0.0, 2.5, 9.0])
def test_small_tails_are_not_rounded_to_0(distance):
    """Far out the probability is scipy's to nine digits, where 1 - cdf would be 0."""
    assert normal_probability(distance) == pytest.approx(stats.norm.cdf(distance), rel=1e-9, abs=0)
    assert math.copysign(1, normal_probability(distance)) == 1
