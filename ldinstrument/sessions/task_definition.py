"""What a task is to the session that receives its runs, and which values each run is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..diagnostics import warn_once
from ..ledger import ledger
from ..metrics.catalogs import EventRouting, catalog, event_routing
from ..metrics.standard import TASK_METRICS, task_metrics
from .outcomes import FINISHED, OUTCOMES, Outcome, Tallies

RUN_VALUES = ("success_rate", "duration", "unfinished")
"""The metrics that a run feeds when it is over; the others are recorded on the way."""
FEW_UNFINISHED = 10
UNFINISHED_SHARE = 0.01


class TaskDefinition:
    """What a session must know of a task to fold its runs. Equal only to itself.

    Args:
        key: the task's key; empty for a bare interaction.
        interaction: whether a run counts as an interaction of its session.
        metrics: event key by suffix (`success_rate`, `duration`, `unfinished`, ...).
        unfinished_fails: count a run that was cancelled or abandoned as a failure.
    """

    __slots__ = (
        "_untold",
        "interaction",
        "key",
        "latest_plan",
        "metrics",
        "runs",
        "unfinished_fails",
    )

    def __init__(
        self,
        key: str,
        interaction: bool,
        metrics: dict[str, str],
        *,
        unfinished_fails: bool = False,
    ) -> None:
        self.key = key
        self.interaction = interaction
        self.metrics = metrics
        self.unfinished_fails = unfinished_fails
        self.latest_plan: TaskPlan | None = None
        """What `plan` returned last; it is good for one version of the catalog."""
        self.runs = self._untold = 0

    def plan(self) -> TaskPlan:
        """Return which values a run is worth, as the catalog is now."""
        plan = self.latest_plan
        if plan is None or plan.version != catalog.version:
            plan = self.latest_plan = TaskPlan(self)
        return plan

    def values_of(self, outcome: Outcome) -> int:
        """Return how many values a run that ended so is worth."""
        if outcome is Outcome.SUSPENDED:
            return 0
        wanted = set(RUN_VALUES)
        if not outcome.finished:
            wanted = {"unfinished"} | ({"success_rate"} if self.unfinished_fails else set())
        return len(self.metrics.keys() & (wanted | {"within"}))

    def count(self, outcomes: Mapping[Outcome, int]) -> int:
        """Count runs that ended so; return how many values they are worth."""
        plan, values = self.plan(), 0
        for outcome, runs in outcomes.items():
            if outcome is Outcome.SUSPENDED:
                ledger.suspended(self.key, runs)
            elif self.key:
                self.runs += runs
                if outcome in FINISHED:
                    values += runs * plan.worth
                    continue
                values += runs * len(plan.given_up())
                if plan.unfinished is None:
                    self._note_untold(runs)
        return values

    def tallied(self, outcomes: Mapping[Outcome, int]) -> Tallies:
        """Return how sessions tally runs that ended so; with `unfinished="failure"` as failures."""
        counts = [outcomes.get(outcome, 0) for outcome in OUTCOMES]
        if self.unfinished_fails:
            counts = [counts[0], sum(counts[1:]), 0, 0]
        return counts[0], counts[1], counts[2], counts[3]

    def _note_untold(self, runs: int) -> None:
        """Count unfinished runs that no metric tells of; warn once they are more than a few."""
        self._untold += runs
        ledger.unfinished(self.key, runs)
        if self._untold >= FEW_UNFINISHED and self._untold >= self.runs * UNFINISHED_SHARE:
            warn_once(
                "unfinished",
                self.key,
                f"task {self.key!r}: {self._untold} of {self.runs} runs were cancelled or "
                f"abandoned and are in no metric, which hides a variation that people leave; add "
                f"metrics=('success_rate', 'duration', 'unfinished')",
            )

    def __reduce__(self) -> Any:
        return declared_task, (
            self.key,
            self.interaction,
            tuple(self.metrics),
            self.unfinished_fails,
        )

    def __repr__(self) -> str:
        return f"<TaskDefinition {self.key or 'of a bare interaction'}>"


class TaskPlan:
    """The event routings of one task's metrics, looked up once per version of the catalog."""

    __slots__ = (
        "_fails",
        "duration",
        "key_length",
        "plain",
        "success_rate",
        "unfinished",
        "version",
        "worth",
    )

    def __init__(self, task: TaskDefinition) -> None:
        self.success_rate = _routing(task, "success_rate")
        self.duration = _routing(task, "duration")
        self.unfinished = _routing(task, "unfinished")
        self._fails = task.unfinished_fails
        fed = [found for found in (self.success_rate, self.duration, self.unfinished) if found]
        self.worth = len(fed)
        """How many values a finished run is worth."""
        self.key_length = sum([len(routing.event_key) for routing in fed])
        """How many characters the event keys of a finished run have together."""
        self.plain = bool(fed) and all(
            routing.rollup == "each" and routing.numeric for routing in fed
        )
        """Whether each of them becomes an event of its own."""
        self.version = catalog.version  # last: a routing may have been declared just now

    def values(self, outcome: Outcome, milliseconds: float) -> list[tuple[EventRouting, float]]:
        """Return `(routing, value)` for each metric that a run feeds which ended so."""
        if outcome is Outcome.SUCCESS:
            return self.finished(1.0, milliseconds)
        if outcome is Outcome.FAILURE:
            return self.finished(0.0, milliseconds)
        return self.given_up() if outcome.unfinished else []

    def finished(self, success: float, milliseconds: float) -> list[tuple[EventRouting, float]]:
        """Return `(routing, value)` for each metric that a run feeds which succeeded or failed."""
        found: list[tuple[EventRouting, float]] = []
        if self.success_rate is not None:
            found.append((self.success_rate, success))
        if self.duration is not None:
            found.append((self.duration, milliseconds))
        if self.unfinished is not None:
            found.append((self.unfinished, 0.0))
        return found

    def given_up(self) -> list[tuple[EventRouting, float]]:
        """Return the same for one that was cancelled or abandoned: how long it takes is unknown."""
        found: list[tuple[EventRouting, float]] = []
        if self.success_rate is not None and self._fails:
            found.append((self.success_rate, 0.0))
        if self.unfinished is not None:
            found.append((self.unfinished, 1.0))
        return found


def _routing(task: TaskDefinition, suffix: str) -> EventRouting | None:
    """Return the routing of the metric with this *suffix*; None when the task does not feed it.

    The catalog lacks the metric when it was cleared (tests), or is full of implied ones.
    """
    event_key = task.metrics.get(suffix)
    if event_key is None:
        return None
    routing = catalog.routing(event_key)
    if routing.declared:
        return routing
    own = task_metrics(task.key, (suffix,))[suffix]
    catalog.declare_implied(task.key, [own.key], lambda: [own])
    found = catalog.routing(own.event)
    return found if found.declared else event_routing(own.event, [own])


def declared_task(
    key: str, interaction: bool, which: Iterable[str], unfinished_fails: bool = False
) -> TaskDefinition:
    """Return the definition of the task *key* and declare the metrics in *which*, by suffix."""
    suffixes = [suffix for suffix in TASK_METRICS if suffix in which]
    metrics = {suffix: f"{key}.{suffix}" for suffix in suffixes}
    catalog.declare_implied(key, metrics.values(), lambda: task_metrics(key, suffixes).values())
    return TaskDefinition(key, interaction, metrics, unfinished_fails=unfinished_fails)


INTERACTION = TaskDefinition("", True, {})
