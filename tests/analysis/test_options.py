"""Options: what LaunchDarkly's metric documents say about the analysis."""

from __future__ import annotations

import pytest

from ldinstrument.analysis import AnalysedMetric, measure_of


def test_a_metric_document_says_how_it_is_analysed():
    """Numeric, percentile, winsorised, lower is better, without zero-fill."""
    document = {
        "key": "m", "isNumeric": True, "unitAggregationType": "average",
        "successCriteria": "LowerThanBaseline", "analysisType": "percentile",
        "percentileValue": 95, "eventDefault": {"disabled": True, "value": 0},
        "winsorLowerPercentile": 1, "winsorUpperPercentile": 99, "winsorIncludeImputed": True,
    }  # fmt: skip
    assert AnalysedMetric.from_document(document) == AnalysedMetric(
        "m", "value", higher_is_better=False, zero_fill=False, percentile=95.0, winsor_lower=1,
        winsor_upper=99, winsor_include_imputed=True,
    )  # fmt: skip


def test_launchdarklys_defaults_are_ours():
    """Without more: an occurrence, higher is better, the mean, zeros filled."""
    assert AnalysedMetric.from_document({"key": "m"}) == AnalysedMetric("m", "occurrence")
    stale = {"key": "m", "isNumeric": True, "analysisType": "mean", "percentileValue": 90}
    assert AnalysedMetric.from_document(stale).percentile is None


@pytest.mark.parametrize(
    ("document", "measure"),
    [
        ({"isNumeric": True, "unitAggregationType": "sum"}, "value"),
        ({"isNumeric": False, "unitAggregationType": "sum"}, "count"),
        ({"isNumeric": False, "unitAggregationType": "average"}, "occurrence"),
    ],
)
def test_the_measure_follows_from_two_fields(document, measure):
    """Numeric or not, sum or average."""
    assert measure_of(document) == measure


def test_what_cannot_be_asked_is_not_done():
    """An occurrence is never winsorised and always filled; a percentile is neither."""
    assert AnalysedMetric("m", "occurrence", zero_fill=False).fills_zeros
    assert not AnalysedMetric("m", percentile=50).fills_zeros
    assert not AnalysedMetric("m", "occurrence", winsor_upper=90).winsorised
    assert not AnalysedMetric("m", percentile=50, winsor_upper=90).winsorised
    assert AnalysedMetric("m", winsor_lower=1).winsorised
