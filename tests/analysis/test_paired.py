"""Paired statistics: means, variances and covariance, exact and up to date."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.analysis import PairedStatistics
from ldinstrument.analysis.exact import checked

NUMBERS = st.floats(-1e6, 1e6).map(checked)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=20)


@given(PAIRS)
def test_moments_are_numpys(pairs):
    """Means, variances and covariance are those of numpy."""
    moments = PairedStatistics(pairs).moments()
    first, second = np.array(pairs).T
    covariance = np.cov(first, second)
    scale = max(float(np.abs(covariance).max()), 1e-300)
    assert moments.units == len(pairs)
    assert moments.first_mean == pytest.approx(first.mean(), rel=1e-9, abs=1e-6)
    assert moments.second_mean == pytest.approx(second.mean(), rel=1e-9, abs=1e-6)
    assert moments.first_variance == pytest.approx(covariance[0, 0], rel=1e-6, abs=scale * 1e-9)
    assert moments.second_variance == pytest.approx(covariance[1, 1], rel=1e-6, abs=scale * 1e-9)
    assert moments.covariance == pytest.approx(covariance[0, 1], rel=1e-6, abs=scale * 1e-9)


@given(PAIRS, st.tuples(NUMBERS, NUMBERS))
def test_replaced_and_merged_pairs_leave_no_trace(pairs, other):
    """Replacing, removing and merging end in exactly the moments of the pairs that are left."""
    statistics = PairedStatistics([other, *pairs[1:]])
    statistics.replace(other, pairs[0])
    statistics.add(*other)
    statistics.remove(*other)
    assert statistics.moments() == PairedStatistics(pairs).moments()
    half = PairedStatistics(pairs[:1])
    half.merge(PairedStatistics(pairs[1:]))
    assert half.moments() == PairedStatistics(pairs).moments()


def test_no_units_are_no_error():
    """Without units all moments are 0, and one unit has no variance."""
    assert PairedStatistics().moments().units == 0
    assert PairedStatistics([(1.0, 2.0)]).moments().first_variance == 0.0
