"""Survival: durations where some runs were left before they ended (cancelled, abandoned, open).

The mean of the finished runs alone is fooled: a variation that makes people leave looks faster. The
Kaplan-Meier curve uses what an unfinished run does tell (it took at least so long), and its area up
to a horizon is the restricted mean: the mean time, cut at the horizon. It assumes that who leaves
at some moment would have gone on like those who stay.

Runs of one unit resemble each other, so the interval is not made from runs: units are dealt into 32
groups by a hash of their key, and the mean is computed again without each group (jackknife).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .buckets import bucket_key, bucket_middle
from .exact import LARGEST
from .figures import RESTRICTED_MEAN, Figure, missing
from .special import scipy_special

GROUPS = 32
LEAST_GROUPS = 10
LEAST_AT_RISK = 10
Row = tuple[float, int, int]  # time, runs that finished then, runs that were left then
Counts = tuple[int, int]  # finished runs, and those that were left


def restricted_mean(rows: Iterable[Row], horizon: float) -> float:
    """Return the area under the Kaplan-Meier curve from 0 to *horizon*.

    Args:
        rows: time, finished and unfinished runs; in any order, one time may come more than once.
        horizon: in the unit of the times. From the last time on, the curve stays where it is.
    """
    return _area(_together(rows), horizon)


def _area(rows: Sequence[Row], horizon: float) -> float:
    """Return the area under the curve of *rows* that ascend in time, each time once."""
    at_risk = sum(finished + left for _, finished, left in rows)
    area, last, survival = 0.0, 0.0, 1.0
    for time, finished, left in rows:
        if time > horizon:
            break
        area += survival * (time - last)
        if finished:
            survival *= 1 - finished / at_risk
        at_risk -= finished + left
        last = time
    return area + survival * (horizon - last)


def _together(rows: Iterable[Row]) -> list[Row]:
    """Return one row per time, ascending: who is left at a time was at risk at that time."""
    counts: dict[float, tuple[int, int]] = {}
    for time, finished, left in rows:
        held = counts.get(time, (0, 0))
        counts[time] = held[0] + finished, held[1] + left
    return [(time, *counts[time]) for time in sorted(counts)]


class SurvivalStatistics:
    """Keep the durations of finished and unfinished runs, up to date and in bounded memory.

    Times are kept in buckets of 0.39 % at most and stand for the middle of theirs.
    """

    __slots__ = ("_groups",)

    def __init__(self, runs: Iterable[tuple[str, float, bool]] = ()):
        self._groups: list[dict[int, list[int]]] = [{} for _ in range(GROUPS)]
        for unit, duration, finished in runs:
            self.add(unit, duration, finished=finished)

    def __repr__(self) -> str:
        return f"<SurvivalStatistics of {self.runs} runs>"

    @property
    def runs(self) -> int:
        """Return the number of runs."""
        return sum(finished + left for _, finished, left in self.rows())

    @property
    def unfinished(self) -> int:
        """Return how many of them did not finish."""
        return sum(left for _, _, left in self.rows())

    def add(self, unit: str, duration: float, *, finished: bool) -> None:
        """Count one run.

        Args:
            unit: the key of the unit that ran it.
            duration: how long it took, or had taken when it was left.
            finished: False when it was cancelled, abandoned or is still open.

        Raises:
            ValueError: the duration is negative or not finite.
        """
        self._change(unit, duration, finished, 1)

    def remove(self, unit: str, duration: float, *, finished: bool) -> None:
        """Take one run out again, such as an open one that has now finished."""
        self._change(unit, duration, finished, -1)

    def merge(self, other: SurvivalStatistics) -> None:
        """Add the runs of *other*, which must be others than those counted here."""
        for mine, theirs in zip(self._groups, other._groups, strict=True):
            for key, (finished, left) in theirs.items():
                held = mine.setdefault(key, [0, 0])
                held[0] += finished
                held[1] += left

    def rows(self) -> list[Row]:
        """Return time, finished and unfinished runs, in ascending order of time."""
        return [(bucket_middle(key), *counts) for key, counts in self._table().items()]

    def estimates(self, horizon: float) -> tuple[float, list[float]]:
        """Return the restricted mean, and those without each group that has runs."""
        table, rows = self._table(), self.rows()
        without = [_area(_less(table, rows, group), horizon) for group in self._groups if group]
        return _area(rows, horizon), without

    def _table(self) -> dict[int, Counts]:
        return {key: _counted(self._groups, key) for key in sorted(set().union(*self._groups))}

    def _change(self, unit: str, duration: float, finished: bool, by: int) -> None:
        if not 0 <= duration <= LARGEST:
            raise ValueError(f"a duration is finite and not negative, not {duration!r}")
        group = self._groups[zlib.crc32(unit.encode("utf-8", "surrogatepass")) % GROUPS]
        key = bucket_key(duration)
        held = group.setdefault(key, [0, 0])
        held[not finished] += by
        if held == [0, 0]:
            del group[key]


def _counted(groups: Sequence[dict[int, list[int]]], key: int) -> Counts:
    held = [group[key] for group in groups if key in group]
    return sum(finished for finished, _ in held), sum(left for _, left in held)


def _less(table: dict[int, Counts], rows: Sequence[Row], group: dict[int, list[int]]) -> list[Row]:
    """Return *rows*, which are those of *table*, without the runs of *group*."""
    nothing = (0, 0)
    taken = (group.get(key, nothing) for key in table)
    return [
        (time, finished - fewer[0], left - fewer[1])
        for (time, finished, left), fewer in zip(rows, taken, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class SurvivalTest:
    """Restricted means of control and treatment, and their difference.

    Args:
        control: the restricted mean of the control.
        treatment: that of the treatment.
        difference: treatment - control.
        relative_difference: treatment / control - 1.
        p_two_sided: the probability of a difference at least this large, either way, by chance.
        horizon: where both were cut.
    """

    control: Figure
    treatment: Figure
    difference: Figure
    relative_difference: Figure
    p_two_sided: Figure
    horizon: float


def common_horizon(variations: Iterable[SurvivalStatistics]) -> float:
    """Return the longest time that at least ten runs of every variation lasted; 0.0 for none."""
    return min((_last_watched(variation.rows()) for variation in variations), default=0.0)


def _last_watched(rows: Sequence[Row]) -> float:
    watched = 0
    for time, finished, left in reversed(rows):
        watched += finished + left
        if watched >= LEAST_AT_RISK:
            return time
    return 0.0


def compare_survival(
    control: SurvivalStatistics,
    treatment: SurvivalStatistics,
    *,
    horizon: float | None = None,
    level: float = 0.95,
) -> SurvivalTest:
    """Compare the durations of two variations, unfinished runs included.

    Args:
        control: the control's runs.
        treatment: the treatment's runs.
        horizon: where the mean is cut; None takes `common_horizon`. Choose it before the experiment
            where a time limit means something to users.
        level: what the intervals hold.
    """
    end = common_horizon([control, treatment]) if horizon is None else horizon
    left, right = _Jackknife.of(control, end), _Jackknife.of(treatment, end)
    if reason := left.reason or right.reason:
        none = missing(RESTRICTED_MEAN, reason)
        return SurvivalTest(none, none, none, none, none, end)
    freedom = min(left.groups, right.groups) - 1
    difference, variance = right.mean - left.mean, left.variance + right.variance
    return SurvivalTest(
        _t_figure(left.mean, left.variance, freedom, level),
        _t_figure(right.mean, right.variance, freedom, level),
        _t_figure(difference, variance, freedom, level),
        _t_figure(right.mean / left.mean - 1, _ratio_variance(right, left), freedom, level),
        Figure(_p_value(difference, variance, freedom), RESTRICTED_MEAN),
        end,
    )


@dataclass(frozen=True, slots=True)
class _Jackknife:
    mean: float
    variance: float
    groups: int
    reason: str = ""

    @classmethod
    def of(cls, statistics: SurvivalStatistics, horizon: float) -> _Jackknife:
        mean, without = statistics.estimates(horizon)
        groups = len(without)
        if not horizon or not mean:
            return cls(mean, 0.0, groups, "fewer than ten runs were watched for any time")
        if groups < LEAST_GROUPS:
            return cls(
                mean,
                0.0,
                groups,
                f"too few units: they fall into {groups} of 32 groups, ten are needed",
            )
        centre = math.fsum(without) / groups
        spread = math.fsum((estimate - centre) ** 2 for estimate in without)
        return cls(mean, spread * (groups - 1) / groups, groups)


def _ratio_variance(above: _Jackknife, below: _Jackknife) -> float:
    ratio = above.mean / below.mean
    return (above.variance + ratio**2 * below.variance) / below.mean**2


def _t_figure(value: float, variance: float, freedom: int, level: float) -> Figure:
    margin = float(scipy_special().stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance)
    return Figure(value, RESTRICTED_MEAN, value - margin, value + margin, level)


def _p_value(difference: float, variance: float, freedom: int) -> float:
    if not variance:
        return float(not difference)
    return 2 * float(scipy_special().stdtr(freedom, -abs(difference) / math.sqrt(variance)))
