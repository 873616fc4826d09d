"""The share of units with a value: held against scipy's contingency test."""

from __future__ import annotations

import pytest
from scipy import stats

from ldinstrument.analysis import measured_share_test


@pytest.mark.parametrize(
    ("exposed", "measured"),
    [((1000, 1000), (600, 650)), ((1000, 100), (900, 60)), ((500, 700, 300), (400, 600, 200))],
)
def test_the_p_is_scipys(exposed, measured):
    """Pearson's chi-square without a continuity correction."""
    table = [measured, [units - held for units, held in zip(exposed, measured, strict=True)]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert measured_share_test(exposed, measured).value == pytest.approx(expected)


def test_all_or_nobody_is_no_difference():
    """Where every unit has a value, or none, the shares are equal."""
    assert measured_share_test([50, 60], [50, 60]).value == 1.0
    assert measured_share_test([50, 60], [0, 0]).value == 1.0


@pytest.mark.parametrize(
    ("exposed", "measured", "reason"),
    [
        ((9, 9), (4, 5), "fewer than five"),
        ((100, 100), (99, 98), "fewer than five"),
        ((50, 0), (9, 0), "fewer than two"),
    ],
)
def test_too_few_are_a_reason(exposed, measured, reason):
    """Where fewer than five are expected, or one variation is empty, there is no test."""
    figure = measured_share_test(exposed, measured)
    assert figure.value is None
    assert reason in figure.reason
