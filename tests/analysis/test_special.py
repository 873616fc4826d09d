"""scipy: loaded when it is needed, and one clear line when it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ldinstrument.analysis import (
    AnalysedMetric,
    SufficientStatistics,
    Treatment,
    analyse,
    measured_share_test,
)
from ldinstrument.analysis.special import load_numpy
from ldinstrument.errors import MissingExtra


def spread(centre: float) -> SufficientStatistics:
    return SufficientStatistics(centre + step % 21 - 10 for step in range(300))


def test_numeric_metrics_of_two_variations_need_no_scipy(without):
    """Sums and normal distributions are the standard library's."""
    without("scipy")
    result = analyse(
        AnalysedMetric("m"), [Treatment("c", spread(100)), Treatment("t", spread(101))]
    )
    assert result.comparison("t").verdict.word == "better"


@pytest.mark.parametrize(
    "metric", [AnalysedMetric("m", "occurrence"), AnalysedMetric("m", percentile=50)]
)
def test_a_missing_scipy_is_one_line_with_the_command(without, metric):
    """The line names the extra to install."""
    without("scipy")
    values = SufficientStatistics([1.0] * 40, exposed=90)
    with pytest.raises(
        MissingExtra, match=r"^scipy is not installed; type: pip install 'ldinstrument\[stats\]'$"
    ):
        analyse(metric, [Treatment("c", values), Treatment("t", values)])
    with pytest.raises(MissingExtra):
        measured_share_test([90, 90], [40, 50])


def test_importing_loads_neither_scipy_nor_numpy():
    """What is not asked for is not loaded."""
    code = (
        "import sys, ldinstrument.analysis; "
        "names = ('scipy', 'numpy', 'ldclient', 'requests'); "
        "print([name for name in names if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_numpy_comes_with_scipy(without):
    """Without it the same line names the same extra."""
    assert load_numpy().median([1, 2, 9]) == 2
    without("numpy")
    with pytest.raises(MissingExtra, match=r"ldinstrument\[stats\]"):
        load_numpy()
