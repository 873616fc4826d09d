"""Sums over time: those of units by their first exposure, kept up to date as values change."""

from __future__ import annotations

from collections.abc import Iterator

MOST_STEPS = 128
Sums = list[float]
"""Units, their values' total, and the total of their squares."""


class SumsOverTime:
    """Sums by step of time and variation.

    A step is 2 to the *level* milliseconds long. Where more than 128 steps have units, two of them
    become one, so that memory is bounded however long an experiment runs.
    """

    __slots__ = ("level", "steps")

    def __init__(self) -> None:
        self.level = 0
        self.steps: dict[int, dict[int, Sums]] = {}

    def add(self, first: int, variation: int, value: float | None, sign: int = 1) -> None:
        """Count the value of a unit that was first exposed at *first*; None has none.

        Args:
            first: epoch milliseconds.
            variation: the unit's.
            value: the unit's.
            sign: -1 takes it out again.
        """
        if value is None:
            return
        step = self.steps.get(first >> self.level)
        if step is None:
            step = self._new_step(first)
        sums = step.get(variation)
        if sums is None:
            sums = step[variation] = [0, 0.0, 0.0]
        sums[0] += sign
        sums[1] += sign * value
        sums[2] += sign * value * value

    def _new_step(self, first: int) -> dict[int, Sums]:
        self.steps[first >> self.level] = {}
        while len(self.steps) > MOST_STEPS:
            self.level += 1
            merged: dict[int, dict[int, Sums]] = {}
            for place, step in self.steps.items():
                _merge(merged.setdefault(place >> 1, {}), step)
            self.steps = merged
        return self.steps[first >> self.level]

    def at(self, level: int) -> dict[int, dict[int, Sums]]:
        """Return the sums by steps of a level that is not below its own."""
        found: dict[int, dict[int, Sums]] = {}
        for place, step in self.steps.items():
            _merge(found.setdefault(place >> (level - self.level), {}), step)
        return found


def _merge(into: dict[int, Sums], step: dict[int, Sums]) -> None:
    for variation, sums in step.items():
        held = into.setdefault(variation, [0, 0.0, 0.0])
        into[variation] = [mine + others for mine, others in zip(held, sums, strict=True)]


NO_SUMS: Sums = [0, 0.0, 0.0]


def together(exposed: SumsOverTime, valued: SumsOverTime) -> Iterator[dict[int, tuple[int, Sums]]]:
    """Yield for each step, in order, by variation how many units were exposed in it, and the sums
    of those that have a value.
    """
    level = max(exposed.level, valued.level)
    values = valued.at(level)
    for place, step in sorted(exposed.at(level).items()):
        measured = values.get(place, {})
        yield {
            variation: (int(sums[0]), measured.get(variation, NO_SUMS))
            for variation, sums in step.items()
        }
