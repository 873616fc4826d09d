"""Statistics over numbers: what LaunchDarkly would say of an experiment, and what it leaves out.

`SufficientStatistics` are kept up to date per variation and metric; `analyse` reads them. Every
figure names whose formula it is, and says why there is none where there is too little data.
"""

from __future__ import annotations

from .bayesian import beta_posteriors, normal_posteriors
from .buckets import Bar, OrderedValues, histogram
from .corrections import Correction, corrected_significance
from .cuped import Adjustment, adjusted
from .dilution import Dilution, dilution
from .documents import figure_document, result_document
from .estimation import Treatment
from .experiment import analyse
from .figures import Figure, TooLittleData
from .frequentist import ZTest, z_test
from .moments import Moments, moments_of
from .multiplicity import corrected
from .options import AnalysedMetric, AnalysisOptions, measure_of, unit_value
from .paired import PairedMoments, PairedStatistics
from .percentiles import least_units, percentile_figure, percentile_moments
from .posteriors import (
    BetaPosterior,
    NormalPosterior,
    Posterior,
    probabilities_to_be_best,
    probability_above,
    relative_difference,
)
from .power import minimum_detectable_effect, units_needed
from .ratios import ratio_figure, ratio_moments
from .results import (
    Comparison,
    MetricResult,
    Regression,
    RelativeDifference,
    TreatmentResult,
    Verdict,
)
from .sample_ratio import sample_ratio_mismatch
from .shares import measured_share_test
from .special import load_statistics
from .sufficient import SufficientStatistics
from .survival import (
    SurvivalStatistics,
    SurvivalTest,
    common_horizon,
    compare_survival,
    restricted_mean,
)
from .winsorisation import winsorised

__all__ = [
    "AnalysedMetric",
    "AnalysisOptions",
    "Adjustment",
    "Bar",
    "BetaPosterior",
    "Comparison",
    "Correction",
    "Dilution",
    "Figure",
    "MetricResult",
    "Moments",
    "NormalPosterior",
    "OrderedValues",
    "PairedMoments",
    "PairedStatistics",
    "Posterior",
    "Regression",
    "RelativeDifference",
    "SufficientStatistics",
    "SurvivalStatistics",
    "SurvivalTest",
    "TooLittleData",
    "Treatment",
    "TreatmentResult",
    "Verdict",
    "ZTest",
    "adjusted",
    "analyse",
    "beta_posteriors",
    "common_horizon",
    "compare_survival",
    "corrected",
    "corrected_significance",
    "dilution",
    "figure_document",
    "histogram",
    "least_units",
    "load_statistics",
    "measure_of",
    "measured_share_test",
    "minimum_detectable_effect",
    "moments_of",
    "normal_posteriors",
    "percentile_figure",
    "percentile_moments",
    "probabilities_to_be_best",
    "probability_above",
    "ratio_figure",
    "ratio_moments",
    "relative_difference",
    "restricted_mean",
    "result_document",
    "sample_ratio_mismatch",
    "unit_value",
    "units_needed",
    "winsorised",
    "z_test",
]
