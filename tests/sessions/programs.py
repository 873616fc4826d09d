"""Random programs, what an experiment should count of them, and what it counts of their events.

A program runs twice at once: through the package, and naively, with one `client.track` per value at
the same moment. Beside it a journal is kept of what happened in which order, which no clock can
disturb. The events that arrive are analysed as LaunchDarkly does, by their dates, and all three are
reduced by numpy to one number per unit and metric. No code of the package takes part in that.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from laboratory import Laboratory, keys_of
from ldclient import Context

import ldinstrument as ld
from ldinstrument.clock import clock
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.task_definition import declared_task
from ldinstrument.stores import end_session

REAL_TIME = time.time
GAP = 0.002
"""Seconds between two steps, so that no two share a millisecond."""
FLAGS = ("first", "second", "behind")
REDUCTIONS = {
    "sum": ("p.sum", lambda values: float(np.sum(values)) if len(values) else 0.0),
    "average": ("p.each", lambda values: float(np.mean(values)) if len(values) else np.nan),
    "occurrence": ("p.seen", lambda values: float(len(values) > 0)),
    "count": ("p.count", lambda values: float(len(values))),
    "runs": ("p.task.duration", lambda values: float(np.sum(values))),
    "interactions": ("session.interactions", lambda values: float(np.sum(values))),
    "success_rate": (
        "session.success_rate",
        lambda values: float(np.mean(values)) if len(values) else np.nan,
    ),
    "run.success_rate": (
        "p.run.success_rate",
        lambda values: float(np.mean(values)) if len(values) else np.nan,
    ),
    "run.count": ("p.run.success_rate", lambda values: float(len(values))),
    "unfinished": (
        "p.run.unfinished",
        lambda values: float(np.mean(values)) if len(values) else np.nan,
    ),
    "conversion": ("business.conversion", lambda values: float(np.sum(values))),
    "converted": ("business.conversion", lambda values: float(len(values) > 0)),
}
"""For each metric its event key, and what becomes of a unit's values."""


def declare() -> None:
    """Declare the metrics of all programs."""
    higher = {"unit": "items", "success_criteria": "HigherThanBaseline"}
    ld.catalog.add(
        ld.Metric("p.sum", aggregation="sum", **higher),
        ld.Metric("p.each", **higher),
        ld.Metric("p.seen", "occurrence"),
        ld.Metric("p.count", "count"),
        ld.Metric("p.converted", "occurrence", event_key="business.conversion"),
    )


@dataclass
class Journal:
    """What happened, in order: exposures and values, each with the keys that held."""

    exposures: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    values: list[tuple[int, str, dict[str, str], float]] = field(default_factory=list)
    now: int = 0

    def counted(self, flag: str, kind: str, unit: str, key: str) -> list[float]:
        """The values of *key* that come after the unit's first exposure to *flag*."""
        exposed = min(
            at for at, name, keys in self.exposures if name == flag and keys.get(kind) == unit
        )
        return [
            value
            for at, name, keys, value in self.values
            if name == key and keys.get(kind) == unit and at > exposed
        ]

    def units(self, flag: str) -> set[tuple[str, str]]:
        """The units that were exposed to *flag*."""
        return {unit for _, name, keys in self.exposures if name == flag for unit in keys.items()}


@dataclass
class Open:
    """A session of the program: what it is called here, and what is pending without a name."""

    scope: Any
    session: Any
    keys: dict[str, str] = field(default_factory=dict)
    unnamed: list[tuple[int, str, float]] = field(default_factory=list)
    accounts: dict[str, tuple[int, int]] = field(default_factory=dict)
    nobodys: tuple[int, int] = (0, 0)
    visitor: str | None = None


class Program:
    """Plays random steps, and keeps the journal.

    Args:
        lab: where.
        seed: of the steps.
        clocks: whether the wall clock is set meanwhile.
        store: opens some sessions in this store.
    """

    def __init__(
        self, lab: Laboratory, seed: int, *, clocks: bool = False, store: Any = None
    ) -> None:
        self.lab = lab
        self.random = random.Random(seed)
        self.name = f"p{seed}"
        self.users = [f"p{seed}-u0", f"p{seed}-u1"]
        self.clocks = clocks
        self.store = store
        self.journal = Journal()
        self.open: list[Open] = []
        self.ended: list[Open] = []
        self.steps: list[str] = []
        self.offset = 0.0
        self.named = True
        """Whether somebody was known whenever something was recorded."""

    # -- people ----------------------------------------------------------------------------------
    def context(self, *, fresh: bool = False) -> Context:
        """Somebody; somebody new when *fresh*."""
        if fresh:
            self.users.append(f"{self.name}-u{len(self.users)}")
        user = Context.create(self.users[-1] if fresh else self.random.choice(self.users))
        if self.clocks or self.random.random() < 0.6:
            return user  # two kinds may have been exposed by clocks that cannot be reconciled
        number = len(self.steps) if self.store is not None else self.random.randrange(3)
        return Context.create_multi(user, Context.create(f"{self.name}-r{number}", "request"))

    # -- steps -----------------------------------------------------------------------------------
    def run(self, length: int) -> None:
        """Play *length* steps, then end everything."""
        verbs = [self.enter] * 2 + [self.record] * 6 + [self.expose] * 4
        verbs += [self.run_task] * 2
        # What has left keeps the date that it left with: a clock that is set back afterwards may
        # date an exposure before it.
        verbs += [self.set_clock] * 2 if self.clocks else [self.leave, self.identify, self.late]
        self.enter()
        for _ in range(length):
            self.step(self.random.choice(verbs))
        while self.open:
            self.step(self.leave)
        time.time = REAL_TIME

    def step(self, verb: Any) -> None:
        time.sleep(GAP)
        self.journal.now += 1
        verb()
        self.watch()

    def enter(self) -> None:
        if len(self.open) >= 3:
            return
        who = self.context() if self.random.random() < 0.8 else None
        name = self.random.choice(["session", "session", "session"])
        stored = self.store is not None and not self.open and self.random.random() < 0.7
        visitor = f"{self.name}-v{self.journal.now}" if stored else None
        scope = ld.session(
            who, name=name, client=self.lab.client, store=self.store if stored else None, id=visitor
        )
        session = scope.__enter__()
        self.note(f"enter {who and who.fully_qualified_key}")
        if all(known.session is not session for known in self.open):
            self.open.append(Open(scope, session, visitor=visitor))
        else:
            scope.__exit__(None, None, None)

    def leave(self) -> None:
        if not self.open:
            return
        left = self.open.pop()
        self.note("leave")
        self.settle(left)
        left.scope.__exit__(None, None, None)
        if left.visitor is not None:
            end_session(self.store, left.visitor)
        self.ended.append(left)

    def record(self) -> None:
        if not self.open:
            return
        known = self.random.choice(self.open)
        amount = self.random.randrange(1, 100)
        what = self.random.choice(
            ["p.sum", "p.sum", "p.each", "p.seen", "p.count", "interaction", "business.conversion"]
            + ["run"] * 2
        )
        self.note(f"record {what} {amount} in {self.open.index(known)}")
        if what == "interaction":
            succeeded = self.random.random() < 0.6
            known.session.interaction(succeeded)
            self.add(known, "session.interactions", 1.0)
            self.tally(known, succeeded)
        elif what == "run":
            task, now = declared_task("p.task", False, ("duration",)), clock()
            known.session.append((task, Outcome.SUCCESS, now - amount / 1000, now, None))
            self.add(known, "p.task.duration", float(amount))
        elif what in ("p.seen", "p.count"):
            known.session.record(what)
            self.add(known, what, 1.0)
        else:
            known.session.record(what, amount)
            self.add(known, what, float(amount))

    def run_task(self) -> None:
        """Run a tracked block, now and then more often than a session holds back."""
        if not self.open:
            return
        known, outcome = self.open[-1], self.random.choice(["ok", "ok", "bad", "left"])
        self.note(f"run {outcome} in {len(self.open) - 1}")
        error = {"bad": ValueError(), "left": KeyboardInterrupt()}.get(outcome)
        for _ in range(1 if self.clocks else self.random.choice([1, 1, 40])):
            with (
                contextlib.suppress(ValueError, KeyboardInterrupt),
                ld.track_task("p.run", metrics=("success_rate", "duration", "unfinished")),
            ):
                if error is not None:
                    raise error
            if outcome != "left":
                self.add(known, "p.run.success_rate", float(outcome == "ok"))
            self.add(known, "p.run.unfinished", float(outcome == "left"))

    def expose(self) -> None:
        flag = self.random.choice(["first", "second", "outer"])
        who = self.context()
        where = self.random.choice(["here", "thread", "nowhere"])
        self.note(f"expose {flag} {who.fully_qualified_key} {where}")
        evaluate = lambda: self.lab.client.variation(flag, who, None)  # noqa: E731
        if where == "here":
            evaluate()
        else:
            self.lab.elsewhere(evaluate)
        keys = {part.kind: part.key for part in _parts(who)}
        seen = "behind" if flag == "outer" else flag
        self.journal.exposures.append((self.journal.now, seen, keys))

    def identify(self) -> None:
        if self.open:
            # A store does not tell a key that comes back from one that has stayed.
            known = self.random.choice(self.open)
            who = self.context(fresh=self.store is not None)
            self.note(f"identify {who.fully_qualified_key} in {self.open.index(known)}")
            known.session.identify(who)

    def late(self) -> None:
        if self.ended and self.ended[-1].keys and self.store is None:
            self.note("late")
            session = self.ended[-1].session
            session.record("p.each", 7)
            self.lab.client.track("naive.p.each", session.context, None, 7.0)
            self.journal.values.append((self.journal.now, "p.each", self.ended[-1].keys, 7.0))

    def set_clock(self) -> None:
        self.offset += self.random.choice([3600.0, -3600.0, 5.0, -5.0])
        self.note(f"clock {self.offset}")
        offset = self.offset
        time.time = lambda: REAL_TIME() + offset

    # -- the journal -----------------------------------------------------------------------------
    def note(self, text: str) -> None:
        self.steps.append(f"{self.journal.now}: {text}")

    def add(self, known: Open, key: str, value: float) -> None:
        keys = current_keys(known)
        if keys:
            self.journal.values.append((self.journal.now, key, keys, value))
            self.lab.client.track(f"naive.{key}", known.session.context, None, value)
        else:
            known.unnamed.append((self.journal.now, key, value))
            self.named = False

    def tally(self, known: Open, succeeded: bool) -> None:
        keys = current_keys(known)
        for kind in keys:
            successes, failures = known.accounts.get(kind, (0, 0))
            known.accounts[kind] = (successes + succeeded, failures + (not succeeded))
        if not keys:
            successes, failures = known.nobodys
            known.nobodys = (successes + succeeded, failures + (not succeeded))

    def watch(self) -> None:
        """Look whose each session is now; another key ends an account."""
        for known in self.open:
            keys = current_keys(known)
            if keys == known.keys:
                continue
            for kind, key in known.keys.items():
                if keys.get(kind) != key:
                    self.end_account(known, kind, key)
            if not known.keys:
                self.name_the_unnamed(known, keys)
            known.keys = keys

    def name_the_unnamed(self, known: Open, keys: dict[str, str]) -> None:
        for at, key, value in known.unnamed:
            self.journal.values.append((at, key, keys, value))
        known.unnamed.clear()
        if known.nobodys != (0, 0):
            known.accounts = dict.fromkeys(keys, known.nobodys)

    def settle(self, known: Open) -> None:
        """End the accounts of a session that ends."""
        for kind, key in current_keys(known).items():
            self.end_account(known, kind, key)

    def end_account(self, known: Open, kind: str, key: str) -> None:
        successes, failures = known.accounts.pop(kind, (0, 0))
        if successes + failures:
            rate = 100.0 * successes / (successes + failures)
            self.journal.values.append(
                (self.journal.now, "session.success_rate", {kind: key}, rate)
            )
            whose = Context.create(key, kind)
            self.lab.client.track("naive.session.success_rate", whose, None, rate)


def current_keys(known: Open) -> dict[str, str]:
    context = known.session.context
    return {} if context is None else {part.kind: part.key for part in _parts(context)}


def _parts(context: Context) -> list[Context]:
    parts = (
        context.get_individual_context(place) for place in range(context.individual_context_count)
    )
    return [part for part in parts if part is not None]


class Arrived:
    """The events of a server, analysed by their dates."""

    def __init__(self, events: list[Any]) -> None:
        self.exposed: dict[tuple[str, str, str], int] = {}
        self.values: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
        for event in events:
            with contextlib.suppress(KeyError):
                self.take(event)

    def take(self, event: Any) -> None:
        at, units = event["creationDate"], keys_of(event).items()
        if event["kind"] == "feature" and (event.get("reason") or {}).get("inExperiment"):
            for kind, key in units:
                where = event["key"], kind, key
                self.exposed[where] = min(at, self.exposed.get(where, at))
        elif event["kind"] == "custom":
            value = event.get("metricValue")
            for kind, key in units:
                self.values.setdefault((event["key"], kind, key), []).append(
                    (at, 1.0 if value is None else float(value))
                )

    def counted(self, flag: str, kind: str, unit: str, key: str) -> list[float]:
        """The values that the experiment on *flag* counts for *unit*."""
        exposed = self.exposed[flag, kind, unit]
        return [value for at, value in self.values.get((key, kind, unit), []) if at >= exposed]


def differences(program: Program, arrived: Arrived) -> list[str]:
    """Compare what should be counted with what is, for every flag, unit and metric.

    What should be is what happened in order; where no clock was set and everybody was known, one
    `client.track` per value, at the same moment, gives the same.
    """
    found = []
    journal, naive = program.journal, program.named and not program.clocks
    for flag in FLAGS:
        for kind, unit in sorted(journal.units(flag)):
            for metric, (key, reduced) in REDUCTIONS.items():
                wanted = reduced(np.array(journal.counted(flag, kind, unit, key)))
                got = reduced(np.array(arrived.counted(flag, kind, unit, key)))
                if not np.isclose(wanted, got, equal_nan=True):
                    found.append(f"{flag} {kind}:{unit} {metric}: {got} instead of {wanted}")
                plain = reduced(np.array(arrived.counted(flag, kind, unit, f"naive.{key}")))
                if naive and not np.isclose(wanted, plain, equal_nan=True):
                    found.append(f"{flag} {kind}:{unit} {metric}: naively {plain}, not {wanted}")
    return found
