"""Units of an experiment for the tests, and the figures in what the analysis says of them."""

from __future__ import annotations

import dataclasses

from ldinstrument.analysis import Figure, SufficientStatistics, Treatment


def spread(centre: float, units: int = 400, exposed: int | None = None) -> SufficientStatistics:
    values = [centre + step % 21 - 10 for step in range(units)]
    return SufficientStatistics(values, exposed=exposed)


def converted(conversions: int, units: int) -> SufficientStatistics:
    return SufficientStatistics([1.0] * conversions, exposed=units)


def pair(control: SufficientStatistics, treatment: SufficientStatistics) -> list[Treatment]:
    return [Treatment("c", control, "Control"), Treatment("t", treatment, "New")]


def figures_of(thing: object) -> list[Figure]:
    if isinstance(thing, Figure):
        return [thing]
    if dataclasses.is_dataclass(thing):
        return [
            each
            for field in dataclasses.fields(thing)
            for each in figures_of(getattr(thing, field.name))
        ]
    if isinstance(thing, tuple):
        return [figure for each in thing for figure in figures_of(each)]
    return []
