"""Worlds in which the truth is known: people, two arms, and what people do after the exposure.

A world runs in simulated time, so that thousands of sessions take seconds. The analysis is
LaunchDarkly's: first exposure per unit, events from then on, one number per unit, Welch's test.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from ldclient import Context
from scipy import stats

import ldinstrument as ld
from ldinstrument.sessions import clock as steady
from ldinstrument.sessions import evaluations
from ldinstrument.sessions.contexts import keys_of
from ldinstrument.sessions.current_event import current_event
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.task_definition import declared_task

EPOCH = 1_800_000_000.0
ZERO_FILLED = ("interactions", "successes", "conversion")


class SimulatedTime:
    """Stands for the steady clock and the wall clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        return self.now

    def wall(self) -> float:
        return EPOCH + self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def simulated_time() -> Iterator[SimulatedTime]:
    """Let the package's clocks and the wall clock be simulated."""
    simulated, real, wall = SimulatedTime(), steady.clock, time.time
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("ldinstrument") and getattr(module, "clock", None) is real
    ]
    for module in modules:
        module.clock = simulated.read  # type: ignore[attr-defined]
    time.time = simulated.wall
    try:
        yield simulated
    finally:
        time.time = wall
        for module in modules:
            module.clock = real  # type: ignore[attr-defined]


class Sink:
    """A client that keeps what it is handed, with its date."""

    sees_exposures = True

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int, float]] = []

    def track(self, key: str, context: Any, data: Any = None, value: Any = None) -> None:
        assert current_event.emission is not None
        for unit in keys_of(context).values():
            self.events.append((key, unit, current_event.emission.at, value or 0.0))


class World:
    """One experiment.

    Args:
        seed: of everything.
        people: how many.
    """

    def __init__(self, clock: SimulatedTime, seed: int, people: int) -> None:
        self.clock = clock
        self.random = np.random.default_rng(seed)
        self.name = f"w{seed}"
        self.people = people
        self.sink = Sink()
        self.arms: dict[str, int] = {}
        self.exposed: dict[str, int] = {}
        self.task = declared_task("w.run", True, ("success_rate", "duration", "unfinished"))

    def play(self, behave: Callable[[World, Any, str, int], None]) -> World:
        """Let everybody have a session, in which they *behave*."""
        for number in range(self.people):
            unit, arm = f"{self.name}-{number}", int(self.random.random() < 0.5)
            self.arms[unit] = arm
            self.clock.wait(1.0)
            with self.visit(unit) as session:
                behave(self, session, unit, arm)
        return self

    def visit(self, unit: str) -> Any:
        """Open a session of *unit* with all its metrics."""
        metrics = ("duration", "success_rate", "interactions", "successes", "unfinished")
        return ld.session(unit, client=self.sink, metrics=metrics)

    def expose(self, unit: str, flag: str = "flag", version: int = 1, wait: float = 0.01) -> None:
        """Expose *unit* here and now; only the first exposure to the flag called `flag` counts."""
        self.clock.wait(wait)
        date = evaluations.exposed(flag, version, Context.create(unit), int(time.time() * 1000))
        if flag == "flag":
            self.exposed.setdefault(unit, date)
        self.clock.wait(wait)

    def run(self, session: Any, seconds: float, outcome: Outcome = Outcome.SUCCESS) -> None:
        """Play one interaction that takes *seconds*."""
        started = self.clock.now
        self.clock.wait(seconds)
        session.append((self.task, outcome, started, self.clock.now, None))

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    # -- the analysis ----------------------------------------------------------------------------
    def values(self, key: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """The counted values by unit, of either arm; units without any are in neither."""
        found: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
        for name, unit, at, value in self.sink.events:
            if name == key and unit in self.exposed and at >= self.exposed[unit]:
                found[self.arms[unit]].setdefault(unit, []).append(value)
        return found

    def means(self, key: str) -> tuple[Any, Any]:
        """One number per unit, of either arm."""
        filled = key.rpartition(".")[2] in ZERO_FILLED
        arms = []
        for arm, counted in enumerate(self.values(key)):
            units = [unit for unit in self.exposed if self.arms[unit] == arm]
            if filled:
                arms.append(np.array([sum(counted.get(unit, [0.0])) for unit in units]))
            else:
                arms.append(np.array([np.mean(counted[unit]) for unit in units if unit in counted]))
        return arms[0], arms[1]

    def p_value(self, key: str) -> float:
        """Welch's test of no difference between the arms."""
        control, treatment = self.means(key)
        if min(len(control), len(treatment)) < 2:
            return 1.0  # nothing to compare
        if np.ptp(control) == np.ptp(treatment) == 0:
            return 1.0 if control[0] == treatment[0] else 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # one arm may be all the same
            return float(stats.ttest_ind(control, treatment, equal_var=False).pvalue)

    def effect(self, key: str) -> float:
        """The relative difference of the means; infinite where control has none."""
        control, treatment = self.means(key)
        if np.mean(control) == 0:
            return float("inf") if np.mean(treatment) > 0 else 0.0
        return float(np.mean(treatment) / np.mean(control) - 1)

    def share_p_value(self, key: str) -> float:
        """Whether the same share of exposed units has a value in either arm (rule 7)."""
        table = []
        for arm, counted in enumerate(self.values(key)):
            units = [unit for unit in self.exposed if self.arms[unit] == arm]
            table.append([len(counted), len(units) - len(counted)])
        if key.rpartition(".")[2] in ZERO_FILLED or any(
            sum(column) == 0 for column in zip(*table, strict=True)
        ):
            return 1.0
        return float(stats.fisher_exact(table).pvalue)
