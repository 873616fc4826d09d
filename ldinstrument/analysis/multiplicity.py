"""Corrected results: tests of several metrics and treatments, held against one level."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Literal

from .corrections import Correction, corrected_significance
from .figures import CORRECTION
from .results import Comparison, MetricResult
from .verdicts import by_p

Across = Literal["treatments", "metrics", "both"]
DECIDED = ("better", "worse", "undecided")


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
    families = _Families(results, correction, across)
    return [
        replace(
            result,
            comparisons=tuple(
                families.hold(comparison, result) for comparison in result.comparisons
            ),
        )
        for result in results
    ]


class _Families:
    """The tests that belong together, and the level of each family."""

    def __init__(self, results: Sequence[MetricResult], correction: Correction, across: Across):
        self.across = across
        self.source = "" if correction == "none" else f"{CORRECTION}: {correction}"
        significance = results[0].options.significance if results else 0.0
        self.levels = {
            family: corrected_significance(p_values, significance, correction)
            for family, p_values in self._p_values(results).items()
        }

    def hold(self, comparison: Comparison, result: MetricResult) -> Comparison:
        """Return *comparison* at the level of its family."""
        level = self.levels.get(self._family(comparison, result))
        if level is None:
            return comparison
        changed = replace(comparison, frequentist=comparison.frequentist.at(level, self.source))
        if result.options.method != "frequentist" or comparison.verdict.word not in DECIDED:
            return changed
        word = by_p(changed.frequentist, higher_is_better=result.metric.higher_is_better)
        return replace(changed, verdict=word)

    def _p_values(self, results: Sequence[MetricResult]) -> dict[Hashable, list[float]]:
        families: dict[Hashable, list[float]] = {}
        for result in results:
            for comparison in result.comparisons:
                p_value = comparison.frequentist.p_value
                if p_value is not None:
                    families.setdefault(self._family(comparison, result), []).append(p_value)
        return families

    def _family(self, comparison: Comparison, result: MetricResult) -> Hashable:
        families = {"treatments": result.metric.key, "metrics": comparison.treatment, "both": None}
        return families[self.across]
