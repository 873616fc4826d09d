"""Buckets: nearly equal values share one, in order; ranks, percentiles and bars from them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.analysis import SufficientStatistics, histogram
from ldinstrument.analysis.buckets import Bucket, Cap, bucket_key, bucket_middle, ordered_values


@given(st.floats(1e-30, 1e30), st.booleans())
def test_buckets_are_narrow_and_in_order(size, negative):
    """A bucket spans at most 0.4 %, and its middle lies in it."""
    value = -size if negative else size
    middle = bucket_middle(bucket_key(value))
    assert bucket_key(middle) == bucket_key(value)
    assert middle == pytest.approx(value, rel=0.004)
    assert bucket_key(value * 1.005) * value > bucket_key(value) * value


def test_percentiles_are_within_the_bucket_and_exact_for_small_integers(populations):
    """Percentiles are numpy's, to 0.4 % for any values, exactly for integers up to 512."""
    shares = [0.01, 0.25, 0.5, 0.9, 0.95, 0.99]
    durations = populations.duration(5000)
    ordered = SufficientStatistics(map(float, durations)).ordered()
    for share in shares:
        assert ordered.quantile(share) == pytest.approx(np.quantile(durations, share), rel=0.004)
    counts = populations.random.integers(-500, 513, 3000)
    ordered = SufficientStatistics(map(float, counts)).ordered()
    assert [ordered.quantile(share) for share in shares] == list(np.quantile(counts, shares))
    assert ordered.at(1) == counts.min()
    assert ordered.at(3000) == counts.max()
    for rank in (0, 3001):
        with pytest.raises(IndexError):
            ordered.at(rank)


def test_a_histogram_counts_every_value_and_one_giant_does_not_flatten_it(populations):
    """Bars of one width from the smallest to P99; the last one has the rest."""
    values = [*map(float, populations.satisfaction(2000)), 1e6]
    bars = histogram(SufficientStatistics(values).ordered(), bars=20)
    assert len(bars) == 20
    assert sum(bar.count for bar in bars) == 2001
    assert bars[-1].upper == pytest.approx(np.quantile(values, 0.99), rel=0.005)
    expected = np.histogram(values, bins=[bar.lower for bar in bars[:-1]] + [bars[-1].lower, 2e6])[
        0
    ]
    assert [bar.count for bar in bars] == pytest.approx(list(expected), abs=25)
    assert all(bar.upper == pytest.approx(after.lower) for bar, after in itertools.pairwise(bars))
    assert [bar.count for bar in histogram(SufficientStatistics([5.0] * 3).ordered(), 4)] == [
        3,
        0,
        0,
        0,
    ]
    assert histogram(SufficientStatistics().ordered()) == []


def test_keys_have_the_sign_of_their_values():
    """Also those of the smallest floats: no value but 0 shares its bucket."""
    smallest, next_one = bucket_key(5e-324), bucket_key(1e-323)
    assert 0 < smallest < next_one
    assert [bucket_key(value) for value in (-5e-324, 0.0, -0.0)] == [-smallest, 0, 0]
    assert bucket_middle(0) == 0.0
    assert bucket_middle(-7) == -bucket_middle(7)


def test_a_bucket_absorbs_one_of_fewer_places():
    """Sums are kept in the owner's binary places, squares in twice as many."""
    bucket = Bucket(1, 2, 4)
    bucket.rescale(3)
    bucket.absorb(Bucket(2, 1, 1), 2)
    assert bucket == Bucket(3, 2 * 8 + 4, 4 * 64 + 16)


def test_values_are_found_by_rank():
    """Groups come in any order; empty ones are left out; a rank that nobody has is refused."""
    ordered = ordered_values([(9, 9.0, 2), (-3, -3.0, 1), (5, 5.0, 0)])
    assert (ordered.values, ordered.counts, ordered.count) == ((-3.0, 9.0), (1, 2), 3)
    assert [ordered.at(rank) for rank in (1, 2, 3)] == [-3.0, 9.0, 9.0]
    assert [ordered.cap(rank) for rank in (1, 3)] == [Cap(-3, -3.0), Cap(9, 9.0)]
    for find in (ordered.at, ordered.cap):
        for rank in (0, 4):
            with pytest.raises(IndexError):
                find(rank)
    with pytest.raises(IndexError):
        ordered_values([]).quantile(0.5)


def test_a_percentile_between_two_values_is_interpolated():
    """As numpy's default does it, at both ends, too."""
    ordered = ordered_values([(1, 10.0, 1), (2, 20.0, 1), (3, 40.0, 1)])
    assert [ordered.quantile(share) for share in (0, 0.25, 0.75, 1)] == [10.0, 15.0, 30.0, 40.0]
