"""Multiple comparisons: Bonferroni and Benjamini-Hochberg, held against scipy and tea-tasting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ldinstrument.analysis import corrected_significance

P_VALUES = st.lists(st.floats(1e-6, 1), min_size=1, max_size=15)


@given(P_VALUES)
def test_benjamini_hochberg_rejects_what_scipy_rejects(p_values):
    """A p below the corrected level is one that scipy's adjusted p puts below the level."""
    level = corrected_significance(p_values, 0.05, "benjamini-hochberg")
    adjusted = stats.false_discovery_control(p_values)
    near = [abs(value - 0.05) < 1e-9 for value in adjusted]
    ours = [p < level for p in p_values]
    assert all(a == b or c for a, b, c in zip(ours, adjusted < 0.05, near, strict=True))


def test_benjamini_hochberg_steps_up():
    """The largest rank that passes decides, also when one before it does not."""
    assert corrected_significance([0.03, 0.02, 0.029], 0.05, "benjamini-hochberg") == 0.05
    assert corrected_significance([0.001, 0.9, 0.9, 0.9], 0.05, "benjamini-hochberg") == 0.05 / 4
    assert corrected_significance([0.9] * 5, 0.05, "benjamini-hochberg") == 0.05 * (1 / 5)


def test_bonferroni_divides():
    """The level is divided by the number of tests; none leaves it."""
    assert corrected_significance([0.2] * 4, 0.1, "bonferroni") == 0.025
    assert corrected_significance([0.2] * 4, 0.1, "none") == 0.1
    assert corrected_significance([], 0.1, "bonferroni") == 0.1
    with pytest.raises(ValueError, match="a correction is"):
        corrected_significance([0.1], 0.1, "holm")


def test_tea_tasting_rejects_the_same():
    """Its Benjamini-Hochberg, and its Holm where that goes no step further than Bonferroni."""
    tasting = pytest.importorskip("tea_tasting", reason="tea-tasting is not installed here")
    p_values = [0.001, 0.021, 0.024, 0.041, 0.3]
    experiment = tasting.experiment.ExperimentResult(
        {
            str(place): tasting.metrics.mean.MeanResult(*[0.0] * 8, pvalue=p, statistic=0.0)
            for place, p in enumerate(p_values)
        }
    )
    for method, theirs in (
        ("benjamini-hochberg", tasting.adjust_fdr(experiment, alpha=0.05)),
        ("bonferroni", tasting.adjust_fwer(experiment, alpha=0.05, method="bonferroni")),
    ):
        level = corrected_significance(p_values, 0.05, method)
        found = [bool(row["null_rejected"]) for row in theirs.to_dicts()]
        assert [p < level for p in p_values] == found, method
