"""Runs of tasks that no session received: counted, and said once, so that nobody wonders where they
went.
"""

from __future__ import annotations

import threading
from typing import Any

from ..diagnostics import warn_once
from ..ledger import ledger
from ..process import on_fork
from ..settings import disabled
from .outcomes import Outcome
from .task_definition import TaskDefinition

BATCH = 1024
MAX_KEPT = 10_000

_lock = threading.RLock()


class _Provision(list[None]):
    """The list that runs take from; it pickles as that of the same task on the other side."""

    __slots__ = ("_key", "_values_per_run")

    def __init__(self, key: str, values_per_run: int) -> None:
        super().__init__()
        self._key = key
        self._values_per_run = values_per_run

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _provision_of, (self._key, self._values_per_run)


class UnattachedRuns:
    """Counts the runs of one task without a session.

    All that a run does is `take()`, the `pop` of a list, which needs no lock and leaves nothing to
    add up later. It raises `IndexError` when nothing is left; `refill()` then counts that run, and
    provides for the next.
    """

    __slots__ = ("_counted", "_key", "_left", "_provided", "_values_per_run", "take")

    def __init__(self, key: str, values_per_run: int) -> None:
        self._key = key
        self._values_per_run = values_per_run
        self._left = _Provision(key, values_per_run)
        self._provided = self._counted = 0
        self.take = self._left.pop

    def refill(self) -> None:
        """Count the run that found nothing to take, and provide for the next ones."""
        with _lock:
            self._left.extend([None] * (BATCH - 1))
            self._provided += BATCH
        _count_pending()
        self.count()

    def note(self) -> None:
        """Count one run."""
        try:
            self.take()
        except IndexError:
            self.refill()

    def count(self) -> None:
        """Bring what was taken since the last time into the ledger, and say it once."""
        with _lock:  # two threads that subtract the same would count it twice
            taken = self._provided - len(self._left)
            runs, self._counted = taken - self._counted, taken
        if not runs or disabled():
            return
        ledger.without_session(self._key, runs, runs * self._values_per_run)
        warn_once(
            "no_session",
            self._key,
            f"task {self._key!r} ran without a session, so its numbers are in no metric: "
            "run it inside ld.session(...), or give it context=; stats().without_session counts "
            "all such tasks",
            once_per_cause=True,  # a program, or a test of one, may have no session at all
        )

    def forget(self) -> None:
        """Drop what is not counted yet."""
        self._left.clear()
        self._provided = self._counted = 0

    def __reduce__(self) -> Any:
        # A tracked function that is sent to another process counts there.
        return unattached_runs_by, (self._key, self._values_per_run)


_known: dict[tuple[str, int], UnattachedRuns] = {}

pending_from_finalizers: list[tuple[TaskDefinition, Outcome]] = []
"""Runs that ended where no lock may be taken, as in the garbage collector: appending is all that
happens there.
"""


def unattached_runs_of(task: TaskDefinition, outcome: Outcome = Outcome.SUCCESS) -> UnattachedRuns:
    """Return the counter of this task's runs that end so: one for each key, up to a cap, for a
    program may make keys up as it goes.
    """
    return unattached_runs_by(task.key, task.values_of(outcome))


def unattached_runs_by(key: str, values: int) -> UnattachedRuns:
    """Return the counter of runs of the task *key* that are worth so many *values* each."""
    with _lock:
        known = key if len(_known) < MAX_KEPT else "..."
        found = _known.get((key, values)) or _known.get((known, values))
        if found is None:
            found = _known[known, values] = UnattachedRuns(known, values)
        return found


def _provision_of(key: str, values: int) -> _Provision:
    return unattached_runs_by(key, values)._left


def count_unattached(task: TaskDefinition, outcome: Outcome = Outcome.SUCCESS) -> None:
    """Count one run of *task*, worth as many values as its outcome has; a suspended one goes on."""
    if outcome is Outcome.SUSPENDED:
        ledger.suspended(task.key)
    else:
        unattached_runs_of(task, outcome).note()


def count_unattached_runs() -> None:
    """Bring the runs without a session into the ledger."""
    _count_pending()
    with _lock:
        counters = list(_known.values())
    for counter in counters:
        counter.count()


def _count_pending() -> None:
    with _lock:  # two threads that copied the same runs would count them twice
        taken = pending_from_finalizers[:]
        del pending_from_finalizers[: len(taken)]
    for task, outcome in taken:
        unattached_runs_of(task, outcome).note()


def forget_unattached_runs() -> None:
    """Drop what is not counted yet: tests, and a forked child, whose parent counts its own."""
    pending_from_finalizers.clear()
    for counter in list(_known.values()):
        counter.forget()


def _forked() -> None:
    global _lock
    _lock = threading.RLock()
    forget_unattached_runs()


on_fork(in_child=_forked)
