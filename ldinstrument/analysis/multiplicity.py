"""Corrected results: the tests of several metrics and treatments, held against one level together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Literal

from .corrections import Correction, corrected_significance
from .results import Comparison, MetricResult
from .verdicts import by_p

Across = Literal["treatments", "metrics", "both"]


def corrected(
    results: Sequence[MetricResult], correction: Correction, across: Across = "both"
) -> list[MetricResult]:
    """Return the results with significance, intervals and verdicts at the corrected level.

    Args:
        results: of all metrics of one experiment.
        correction: `none`, `bonferroni` or `benjamini-hochberg`.
        across: which tests belong together: those of one metric (`treatments`), those of one
            treatment (`metrics`), or all (`both`).
    """
    levels = _levels(results, correction, across)
    return [
        replace(
            result,
            comparisons=tuple(_at(each, result, levels, across) for each in result.comparisons),
        )
        for result in results
    ]


def _family(comparison: Comparison, result: MetricResult, across: Across) -> Hashable:
    families = {"treatments": result.metric.key, "metrics": comparison.treatment, "both": None}
    return families[across]


def _levels(
    results: Sequence[MetricResult], correction: Correction, across: Across
) -> dict[Hashable, float]:
    families: dict[Hashable, list[float]] = {}
    for result in results:
        for comparison in result.comparisons:
            p_value = comparison.frequentist.p_value
            if p_value is not None:
                families.setdefault(_family(comparison, result, across), []).append(p_value)
    significance = results[0].options.significance if results else 0.0
    return {
        family: corrected_significance(p_values, significance, correction)
        for family, p_values in families.items()
    }


def _at(
    comparison: Comparison, result: MetricResult, levels: dict[Hashable, float], across: Across
) -> Comparison:
    level = levels.get(_family(comparison, result, across))
    if level is None:
        return comparison
    test = comparison.frequentist.at(level)
    changed = replace(comparison, frequentist=test)
    if result.options.method != "frequentist" or comparison.verdict.word not in (
        "better",
        "worse",
        "undecided",
    ):
        return changed
    return replace(changed, verdict=by_p(test, higher_is_better=result.metric.higher_is_better))
