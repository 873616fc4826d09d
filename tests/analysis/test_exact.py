"""Exact numbers: what a unit's value may be, and sums that are rounded once."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ldinstrument.analysis.exact import binary_fraction, checked, places_for, quotient


@pytest.mark.parametrize("value", [1e30, -1e30, 1e-30, -1e-30, 0.1, 3])
def test_a_value_within_the_limits_is_itself(value):
    """Both ends belong to it."""
    assert checked(value) == value


@pytest.mark.parametrize("value", [9.9e-31, -9.9e-31, 5e-324, 0.0, -0.0])
def test_a_value_nearer_to_0_than_anybody_measures_is_0(value):
    """Below 1e-30 it is 0, on either side."""
    assert checked(value) == 0.0


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1.1e30, -1.1e30])
def test_a_value_that_is_no_finite_number_is_refused(value):
    """The message holds the value."""
    with pytest.raises(ValueError, match=f"not {value!r}".replace("+", r"\+")):
        checked(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_a_fraction_of_a_power_of_two(value):
    """Numerator and places give the very float back."""
    numerator, places = binary_fraction(value)
    assert Fraction(numerator, 2**places) == Fraction(value)


def test_places_are_added_in_steps():
    """The next multiple of 64, so that sums are seldom rescaled."""
    assert [places_for(needed) for needed in (0, 1, 64, 65, 1074)] == [0, 64, 64, 128, 1088]


@example(10**320, 1, 200)
@given(st.integers(-(10**40), 10**40), st.integers(1, 10**6), st.integers(0, 200))
def test_a_quotient_is_rounded_once(numerator, divisor, places):
    """It is the float nearest to the true quotient."""
    assert quotient(numerator, divisor, places) == float(Fraction(numerator, divisor * 2**places))
