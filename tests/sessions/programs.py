"""Random programs, what an experiment should count of them, and what it counts of their events.

A program runs twice at once: through the package, and naively, with one `client.track` per value at
the same moment. Beside it a journal is kept of what happened in which order, which no clock can
disturb. The events that arrive are analysed as LaunchDarkly does, by their dates, and all three are
reduced by numpy to one number per unit and metric. No code of the package takes part in that.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from laboratory import Laboratory, keys_of
from ldclient import Context

import ldinstrument as ld
from ldinstrument.devserver import experiment_flag
from ldinstrument.sessions import evaluations
from ldinstrument.sessions.clock import clock
from ldinstrument.sessions.current import entered
from ldinstrument.sessions.outcomes import Outcome
from ldinstrument.sessions.scopes import open_session
from ldinstrument.sessions.task_definition import declared_task
from ldinstrument.stores import end_request, end_session

REAL_TIME = time.time
GAP = 0.002
"""Seconds between two steps, so that no two share a millisecond."""
AGGREGATIONS = {
    "sum": lambda values: float(np.sum(values)) if len(values) else 0.0,
    "average": lambda values: float(np.mean(values)) if len(values) else np.nan,
    "occurrence": lambda values: float(len(values) > 0),
    "count": lambda values: float(len(values)),
}
"""What becomes of a unit's values."""
EXACT = {
    "p.sum": ("sum", "occurrence"),
    "p.each": ("sum", "average", "occurrence", "count"),
    "p.seen": ("occurrence",),
    "p.count": ("occurrence", "count"),
    "p.task.duration": ("sum", "average", "occurrence", "count"),
    "p.run.success_rate": ("sum", "average", "occurrence", "count"),
    "p.run.unfinished": ("sum", "average", "occurrence", "count"),
    "session.interactions": ("sum",),
    "session.successes": ("sum",),
    "session.success_rate": ("sum", "average", "occurrence", "count"),
    "session.unfinished": ("sum", "average", "occurrence", "count"),
    "session.duration": ("occurrence", "count"),
    "business.conversion": ("sum", "occurrence"),
}
"""By event key, the aggregations that its rollup keeps exact."""
METRICS = ("duration", "success_rate", "interactions", "successes", "unfinished")
ANALYSES = {
    "mean": np.mean,
    **{
        f"p{share}": lambda numbers, share=share: np.percentile(numbers, share)
        for share in (1, 25, 50, 75, 90, 95, 99)
    },
}
"""What is compared of the units of a variation."""


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
    """When, to which flag in which version, and with which keys."""
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

    def units(self) -> set[tuple[str, str, str]]:
        """The units that were exposed, as flag, kind and key."""
        return {(flag, *unit) for _, flag, keys in self.exposures for unit in keys.items()}


Accounts = dict[tuple[str, str], tuple[int, int]]
"""Successes and failures by kind and key."""


@dataclass
class Open:
    """A session of the program: what it is called here, and what is pending without a name."""

    scope: Any
    session: Any
    keys: dict[str, str] = field(default_factory=dict)
    unnamed: list[tuple[int, str, float]] = field(default_factory=list)
    accounts: Accounts = field(default_factory=dict)
    nobodys: tuple[int, int] = (0, 0)
    visitor: str | None = None


class Program:
    """Plays random steps, and keeps the journal.

    Args:
        lab: where.
        seed: of the steps.
        clocks: whether the wall clock is set meanwhile.
        store: opens some sessions in this store.
        changes: whether experiments start and end meanwhile.
        forks: whether children do a part of it.
    """

    told_at_once = True
    """Whether it is known at the end of an account that it has ended: `totals` are told naively."""

    def __init__(
        self,
        lab: Laboratory,
        seed: int,
        *,
        clocks: bool = False,
        store: Any = None,
        changes: bool = False,
        forks: bool = False,
    ) -> None:
        self.lab = lab
        self.random = random.Random(seed)
        self.name = f"p{seed}"
        self.users = [f"p{seed}-u0", f"p{seed}-u1"]
        self.clocks = clocks
        self.store = store
        self.changes = changes
        self.forks = forks
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
        verbs += [self.leave, self.identify, self.late, self.lose]
        verbs += [self.set_clock] * 2 * self.clocks + [self.change] * self.changes
        verbs += [self.fork] * self.forks
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
        stored = self.store is not None and not self.open and self.random.random() < 0.7
        visitor = f"{self.name}-v{self.journal.now}" if stored else None
        scope = ld.session(
            who,
            client=self.lab.client,
            store=self.store if stored else None,
            id=visitor,
            metrics=METRICS,
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
            if succeeded:
                self.add(known, "session.successes", 1.0)
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
        self.exposed(flag, who)

    def exposed(self, flag: str, who: Context) -> None:
        """Note an exposure that was made now; a prerequisite is exposed in its own right."""
        seen = "behind" if flag == "outer" else flag
        version = self.lab.version_of_experiment(seen)
        if version is not None:
            self.journal.exposures.append((self.journal.now, f"{seen}/{version}", keys(who)))

    def lose(self) -> None:
        """Make an exposure whose event is dropped before it leaves: it counts for nothing."""
        flag, who = self.random.choice(["first", "second"]), self.context()
        version = self.lab.version_of_experiment(flag)
        if version is None or any(
            exposed == f"{flag}/{version}" and keys(who).items() & seen.items()
            for _, exposed, seen in self.journal.exposures
        ):
            return
        self.note(f"lose {flag} {who.fully_qualified_key}")
        evaluations.exposed(flag, version, who, int(time.time() * 1000))
        evaluations.lost(LostExposure(flag, version, who))

    def change(self) -> None:
        """Start or end the experiment on a flag: its next version is a new iteration."""
        flag = self.random.choice(["first", "second"])
        runs = self.lab.version_of_experiment(flag) is not None
        self.note(f"{flag} {'ends' if runs else 'starts'}")
        self.lab.change(experiment_flag(flag, ["a", "b"]) | {"on": not runs})

    def fork(self) -> None:
        """Let a child have a session of its own, with a user whom the parent does not expose."""
        user, amounts = f"{self.name}-c{self.journal.now}", [self.random.randrange(1, 100)] * 2
        self.note(f"fork {user}")
        flag = self.random.choice(["first", "second"])
        child = os.fork()
        if child == 0:
            try:
                self.be_the_child(user, flag, amounts)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        before, after = amounts
        now = self.journal.now
        counted = "p.seen", "session.interactions", "session.successes"
        recorded = [(key, 1.0) for key in counted]
        for key, value in (("p.sum", before), ("p.each", before), *recorded):
            self.journal.values.append((now, key, {"user": user}, float(value)))
        self.journal.now += 1
        self.exposed(flag, Context.create(user))
        self.journal.now += 1
        for key, value in (("p.sum", after), ("p.each", after), *recorded):
            self.journal.values.append((self.journal.now, key, {"user": user}, float(value)))

    def be_the_child(self, user: str, flag: str, amounts: list[int]) -> None:
        """Record, expose, record; naively, too."""
        client, who = self.lab.client, Context.create(user)
        client.postfork(start_wait=10)
        with ld.session(who, client=client, metrics=("interactions", "successes")) as s:
            for number, amount in enumerate(amounts):
                s.interaction()
                for key in ("session.interactions", "session.successes"):
                    client.track(f"naive.{key}", who, None, 1.0)
                for key in ("p.sum", "p.each"):
                    s.record(key, amount)
                    client.track(f"naive.{key}", who, None, amount)
                s.record("p.seen")
                client.track("naive.p.seen", who)
                time.sleep(GAP)
                if number == 0:
                    client.variation(flag, who, None)
                    time.sleep(GAP)
        ld.flush(10, client=client)

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
            session, keys_then = self.ended[-1].session, self.ended[-1].keys
            session.record("p.each", 7)
            session.interaction(True)
            values = {"p.each": 7.0, "session.interactions": 1.0, "session.successes": 1.0}
            for key, value in values.items():
                self.lab.client.track(f"naive.{key}", session.context, None, value)
                self.journal.values.append((self.journal.now, key, keys_then, value))

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
        for pair in keys.items():
            successes, failures = known.accounts.get(pair, (0, 0))
            known.accounts[pair] = (successes + succeeded, failures + (not succeeded))
        if not keys:
            successes, failures = known.nobodys
            known.nobodys = (successes + succeeded, failures + (not succeeded))

    def watch(self) -> None:
        """Look whose each session is now; another key ends an account."""
        for known in self.open:
            keys = current_keys(known)
            for pair in keys.items():
                known.accounts.setdefault(pair, (0, 0))
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
            known.accounts = dict.fromkeys(keys.items(), known.nobodys)

    def settle(self, known: Open) -> None:
        """End the accounts of a session that ends."""
        for kind, key in current_keys(known).items():
            self.end_account(known, kind, key)

    def end_account(self, known: Open, kind: str, key: str) -> None:
        for name, value in totals(*known.accounts.pop((kind, key), (0, 0))).items():
            self.journal.values.append((self.journal.now, name, {kind: key}, value))
            self.lab.client.track(f"naive.{name}", Context.create(key, kind), None, value)


@dataclass
class Account:
    """What one key has done in a visit, and at which steps it began and was active last."""

    began: int
    last: int
    successes: int = 0
    failures: int = 0


@dataclass
class Visit:
    """A stored session: whose it is, its accounts by kind and key, in the order in which they
    began, and how many requests of it are open.
    """

    visitor: str
    who: Context
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    requests: int = 0


class Visits(Program):
    """Plays requests of stored visits, which overlap, become somebody else and end in any order."""

    told_at_once = False

    def __init__(self, lab: Laboratory, seed: int, **options: Any) -> None:
        super().__init__(lab, seed, **options)
        self.visits: list[Visit] = []
        self.of: dict[int, Visit] = {}
        """By the identity of a request's session, the visit that it belongs to."""
        self.busy: set[int] = set()
        """Identities of the sessions in which something was recorded."""

    def enter(self) -> None:
        if len(self.open) >= 4:
            return
        if not self.visits or self.random.random() < 0.3:
            name = f"{self.name}-v{self.journal.now}"
            who = Context.create(self.random.choice(self.users))
            if self.random.random() < 0.4:
                who = Context.create_multi(who, Context.create(name, "device"))
            self.visits.append(Visit(name, who))
        visit = self.random.choice(self.visits)
        self.note(f"request of {visit.visitor} {visit.who.fully_qualified_key}")
        session = open_session(visit.who, client=self.lab.client, store=self.store, metrics=METRICS)
        self.open.append(Open(None, session, visitor=visit.visitor))
        self.of[id(session)] = visit
        visit.requests += 1
        self.watch()

    def leave(self) -> None:
        if not self.open:
            return
        known = self.open.pop(self.random.randrange(len(self.open)))
        visit = self.of[id(known.session)]
        self.note(f"end of a request of {visit.visitor}")
        if id(known.session) not in self.busy:  # where nothing is recorded, it is active all along
            self.active(known)
        end_request(known.session, self.store, visit.visitor)
        visit.requests -= 1
        self.ended.append(known)
        if not visit.requests and (not self.open or self.random.random() < 0.5):
            self.end(visit)

    def end(self, visit: Visit) -> None:
        self.note(f"end of {visit.visitor}")
        self.visits.remove(visit)
        for number, (pair, account) in enumerate(visit.accounts.items()):
            later = list(visit.accounts.items())[number + 1 :]
            began = [other.began for (kind, _), other in later if kind == pair[0]]
            over = max(account.last, began[0]) if began else self.journal.now
            self.journal.values += [
                (over, name, dict([pair]), value)
                for name, value in totals(account.successes, account.failures).items()
            ]
        end_session(self.store, visit.visitor)

    def identify(self) -> None:
        """Let a request go on as somebody new; others of its visit go on as they were."""
        current = [
            known
            for known in self.open
            if current_keys(known) == keys(self.of[id(known.session)].who)
        ]
        if current:
            known = self.random.choice(current)
            who = Context.create(f"{self.name}-u{len(self.users)}")
            self.users.append(who.key)
            self.note(f"identify {who.fully_qualified_key} in {self.open.index(known)}")
            known.session.identify(who)
            self.of[id(known.session)].who = known.session.context

    # -- accounts ----------------------------------------------------------------------------------
    def watch(self) -> None:
        for known in self.open:
            accounts, now = self.of[id(known.session)].accounts, self.journal.now
            for pair in current_keys(known).items():
                accounts.setdefault(pair, Account(now, now))

    def add(self, known: Open, key: str, value: float) -> None:
        super().add(known, key, value)
        self.busy.add(id(known.session))
        self.active(known)

    def active(self, known: Open) -> None:
        for pair in current_keys(known).items():
            self.of[id(known.session)].accounts[pair].last = self.journal.now

    def tally(self, known: Open, succeeded: bool) -> None:
        for pair in current_keys(known).items():
            account = self.of[id(known.session)].accounts[pair]
            account.successes += succeeded
            account.failures += not succeeded

    def run(self, length: int) -> None:
        super().run(length)
        for visit in list(self.visits):
            self.step(functools.partial(self.end, visit))

    def run_task(self) -> None:
        if self.open:
            with entered(self.open[-1].session):
                super().run_task()

    def expose(self) -> None:
        with entered(self.random.choice([known.session for known in self.open] or [None])):
            super().expose()

    def late(self) -> None:
        """Nothing: what comes after the end of a request is still of its visit."""


class Trackers(Program):
    """Plays calls of a tracker: sessions by ids, which others may take over."""

    def __init__(self, lab: Laboratory, seed: int, **options: Any) -> None:
        super().__init__(lab, seed, **options)
        self.tracker = ld.SessionMetricsTracker(lab.client, self.store, metrics=METRICS)
        self.of: dict[str, tuple[str, list[int]]] = {}
        """By the id of a session, its user, successes and failures."""

    def some_id(self) -> str:
        return self.random.choice([f"{self.name}-a", f"{self.name}-b"])

    def enter(self) -> None:
        session, user = self.some_id(), self.random.choice(self.users)
        self.note(f"start {session} {user}")
        if session in self.of and self.of[session][0] != user:
            self.tell_end(session)
        self.tracker.start_session(user, session)
        self.of.setdefault(session, (user, [0, 0]))

    def record(self) -> None:
        session, success = self.some_id(), self.random.random() < 0.6
        self.note(f"{'success' if success else 'failure'} of {session}")
        self.tracker.track_interaction(session, success)
        if session in self.of:
            user, tallies = self.of[session]
            tallies[not success] += 1
            self.tell(user, "session.interactions", 1.0)
            if success:
                self.tell(user, "session.successes", 1.0)

    def leave(self) -> None:
        session = self.some_id()
        self.note(f"end {session}")
        self.tracker.end_session(session)
        if session in self.of:
            self.tell_end(session)

    def tell_end(self, session: str) -> None:
        user, tallies = self.of.pop(session)
        for name, value in totals(*tallies).items():
            self.tell(user, name, value)

    def tell(self, user: str, key: str, value: float) -> None:
        self.journal.values.append((self.journal.now, key, {"user": user}, value))
        self.lab.client.track(f"naive.{key}", Context.create(user), None, value)

    def run(self, length: int) -> None:
        super().run(length)
        while self.of:
            self.step(self.leave)

    def identify(self) -> None:
        """Nothing: a session of a tracker has one user."""

    run_task = late = identify


class LostExposure:
    """An event of the SDK that was dropped."""

    reason = {"kind": "FALLTHROUGH", "inExperiment": True}

    def __init__(self, key: str, version: int, context: Context) -> None:
        self.key = key
        self.context = context
        self.flag = types.SimpleNamespace(version=version)


def totals(successes: int, failures: int) -> dict[str, float]:
    """What an account that ends tells once."""
    values = {"session.unfinished": 0.0, "session.duration": 1.0}
    if successes + failures:
        values["session.success_rate"] = 100.0 * successes / (successes + failures)
    return values


def current_keys(known: Open) -> dict[str, str]:
    return {} if known.session.context is None else keys(known.session.context)


def keys(context: Context) -> dict[str, str]:
    """The keys of *context* by kind."""
    return {part.kind: part.key for part in _parts(context)}


def _parts(context: Context) -> list[Context]:
    parts = (
        context.get_individual_context(place) for place in range(context.individual_context_count)
    )
    return [part for part in parts if part is not None]


class Arrived:
    """The events of a server, analysed by their dates."""

    def __init__(self, events: list[Any]) -> None:
        self.exposed: dict[tuple[str, str, str], tuple[int, int]] = {}
        """Date and variation of the first exposure, by flag and version, kind, and key."""
        self.values: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
        for event in events:
            with contextlib.suppress(KeyError):
                self.take(event)

    def take(self, event: Any) -> None:
        at, units = event["creationDate"], keys_of(event).items()
        if event["kind"] == "feature" and (event.get("reason") or {}).get("inExperiment"):
            for kind, key in units:
                where = f"{event['key']}/{event['version']}", kind, key
                exposure = at, event["variation"]
                self.exposed[where] = min(exposure, self.exposed.get(where, exposure))
        elif event["kind"] == "custom":
            value = event.get("metricValue")
            for kind, key in units:
                self.values.setdefault((event["key"], kind, key), []).append(
                    (at, 1.0 if value is None else float(value))
                )

    def counted(self, flag: str, kind: str, unit: str, key: str) -> list[float]:
        """The values that the experiment on *flag* counts for *unit*."""
        exposed, _ = self.exposed[flag, kind, unit]
        return [value for at, value in self.values.get((key, kind, unit), []) if at >= exposed]


def differences(program: Program, arrived: Arrived) -> list[str]:
    """Compare what should be counted with what is, for every flag, unit and metric.

    What should be is what happened in order; where no clock was set and everybody was known, one
    `client.track` per value, at the same moment, gives the same.
    """
    found = []
    journal, naive = program.journal, program.named and not program.clocks
    for flag, kind, unit in sorted(journal.units()):
        for key, aggregations in EXACT.items():
            wanted, got, plain = (
                np.array(values)
                for values in (
                    journal.counted(flag, kind, unit, key),
                    arrived.counted(flag, kind, unit, key),
                    arrived.counted(flag, kind, unit, f"naive.{key}"),
                )
            )
            by_track = naive and (program.told_at_once or key not in totals(1, 0))
            for name in aggregations:
                right, ours, simple = map(AGGREGATIONS[name], (wanted, got, plain))
                where = f"{flag} {kind}:{unit} {key} {name}"
                if not np.isclose(right, ours, equal_nan=True):
                    found.append(f"{where}: {ours} instead of {right}")
                if by_track and not np.isclose(right, simple, equal_nan=True):
                    found.append(f"{where}: naively {simple}, not {right}")
    return found


def of_variations(programs: list[Program], arrived: Arrived) -> list[str]:
    """Compare every analysis of every metric, per variation, over the units of all *programs*."""
    pooled: dict[tuple[str, int, str, str], list[tuple[float, float]]] = {}
    for program in programs:
        for flag, kind, unit in sorted(program.journal.units()):
            _, variation = arrived.exposed[flag, kind, unit]
            experiment = flag.partition("/")[0]
            for key, aggregations in EXACT.items():
                wanted = program.journal.counted(flag, kind, unit, key)
                got = arrived.counted(flag, kind, unit, key)
                for name in aggregations:
                    reduced = AGGREGATIONS[name]
                    numbers = reduced(np.array(wanted)), reduced(np.array(got))
                    pooled.setdefault((experiment, variation, key, name), []).append(numbers)
    return [
        f"{' '.join(map(str, where))} {analysis} {'with' if fills else 'without'} zeros: {told}"
        for where, numbers in pooled.items()
        for fills in (True, False)
        for analysis, told in _analysed(np.array(numbers), fills)
    ]


def _analysed(numbers: Any, fills: bool) -> Iterator[tuple[str, str]]:
    """Yield the analyses in which the columns *numbers* (wanted, got) differ."""
    if fills:
        numbers = np.nan_to_num(numbers)
    columns = [column[~np.isnan(column)] for column in numbers.T]
    for name, analysis in ANALYSES.items():
        wanted, got = (analysis(column) if len(column) else np.nan for column in columns)
        if not np.isclose(wanted, got, equal_nan=True):
            yield name, f"{got} instead of {wanted}"
