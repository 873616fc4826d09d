"""Runs of tasks that no session received: counted, and said once per task, so that nobody wonders where they went."""

from __future__ import annotations

import threading

from .emission import disabled
from .ledger import ledger
from .outcomes import TaskDefinition

STRAYS_AT = 1024
"""How many runs wait in the list before they are folded into the ledger."""

strays: list[TaskDefinition] = []
"""One entry per run without a session: appending is all that the hot path does; `count_strays` folds them."""

_lock = threading.RLock()


def count_strays() -> None:
    """Fold the runs without a session into the ledger, and say it once per task."""
    with _lock:  # two threads that copied the same runs would count them twice
        taken = strays[:]
        del strays[: len(taken)]
    if not taken or disabled():
        return
    runs: dict[TaskDefinition, int] = {}
    for task in taken:
        runs[task] = runs.get(task, 0) + 1
    for task, count in runs.items():
        ledger.without_session(task.key, count, count * task.values_per_run)
    for task in runs:
        ledger.warn(
            "no_session",
            task.key,
            f"task {task.key!r} ran without a session, so its numbers go nowhere: "
            "run it inside ld.session(...), or give it context=",
        )


def forget_strays(*, forked: bool = False) -> None:
    """Drop what is not counted yet: tests, and a forked child, whose parent counts its own."""
    global _lock
    if forked:
        _lock = threading.RLock()
    strays.clear()
