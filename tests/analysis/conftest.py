"""Populations: what the units of an experiment look like, metric by metric, seeded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ldinstrument.analysis import Moments, SufficientStatistics
from ldinstrument.analysis.moments import skewness

sys.path.insert(0, str(Path(__file__).parent))

Draw = Callable[[int], np.ndarray]


class Populations:
    """Draws unit values as the default metrics and their worst cases have them."""

    def __init__(self, seed: int = 11):
        self.random = np.random.default_rng(seed)

    def __call__(self, name: str, units: int) -> np.ndarray:
        return getattr(self, name)(units)

    def duration(self, units: int) -> np.ndarray:
        return self.random.lognormal(5, 1, units)

    def success_rate(self, units: int) -> np.ndarray:
        """Shares of few interactions: lumps, most of all at 100."""
        interactions = self.random.geometric(0.4, units)
        chance = self.random.beta(8, 2, units)
        return 100 * self.random.binomial(interactions, chance) / interactions

    def interactions(self, units: int) -> np.ndarray:
        return self.random.geometric(0.3, units).astype(float)

    def unfinished(self, units: int) -> np.ndarray:
        """A share of runs per unit, of one to ten runs."""
        runs = self.random.integers(1, 11, units)
        return self.random.binomial(runs, self.random.beta(0.5, 5, units)) / runs

    def revenue(self, units: int) -> np.ndarray:
        """19 of 20 units buy nothing, the rest very differently much."""
        bought = self.random.random(units) < 0.05
        return np.where(bought, self.random.lognormal(3, 1, units), 0.0)

    def conversion(self, units: int) -> np.ndarray:
        return (self.random.random(units) < 0.1).astype(float)

    def satisfaction(self, units: int) -> np.ndarray:
        return np.clip(self.random.normal(70, 25, units), 0, 100)

    def finished(self, units: int) -> np.ndarray:
        """The mean of 1 and 0 over one to six runs: success of a task, or answered in time."""
        runs = self.random.integers(1, 7, units)
        return self.random.binomial(runs, self.random.beta(9, 1, units)) / runs

    def tokens(self, units: int) -> np.ndarray:
        """Means of one to five calls, whose prompts are long now and then; costs are like them."""
        calls = self.random.integers(1, 6, units)
        long = self.random.random(units) < 0.1
        return np.ceil(self.random.gamma(2 * calls, 400 / calls, units) * np.where(long, 8, 1))

    def attempts(self, units: int) -> np.ndarray:
        """Nearly always one; tool calls are nearly always none, which is the same less one."""
        return 1.0 + self.random.poisson(0.08, units)

    def extreme(self, units: int) -> np.ndarray:
        """So skewed that 2,000,000 units would be wanted."""
        return self.random.lognormal(5, 2, units)

    def many_events(self, units: int) -> np.ndarray:
        """Sums of 1 to thousands of events per unit, which resemble each other within a unit."""
        events = np.ceil(self.random.pareto(1.5, units)).astype(int)
        return events * self.random.gamma(2, 2, units)


@pytest.fixture(name="populations")
def _populations() -> Populations:
    return Populations()


def summarised(values: np.ndarray) -> Moments:
    """The moments of unit values, as `SufficientStatistics` would give them, but fast."""
    centred = values - values.mean()
    squares = float((centred**2).sum())
    skew = skewness(len(values), squares, float((centred**3).sum()))
    return Moments(len(values), float(values.mean()), float(values.var(ddof=1)), skew)


@pytest.fixture(name="moments")
def _moments() -> Callable[[np.ndarray], Moments]:
    return summarised


@pytest.fixture(name="statistics")
def _statistics() -> Callable[..., SufficientStatistics]:
    def made(values: np.ndarray, exposed: int | None = None) -> SufficientStatistics:
        return SufficientStatistics((float(value) for value in values), exposed=exposed)

    return made


@pytest.fixture(name="without")
def _without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Make a package as absent as if it was not installed."""

    def hide(package: str) -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    yield hide
    monkeypatch.undo()
