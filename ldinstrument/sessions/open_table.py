"""The sessions that are open in this process, oldest first, and how many they may be.

A table that every session enters and leaves; `registry` goes through it.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..diagnostics import warn_once
from ..ledger import ledger
from ..process import on_fork

MAX_OPEN = 10_000
"""Sessions that may be open at once; beyond, the oldest end as abandoned."""

open_references: dict[weakref.ref[Any], None] = {}
"""The open sessions, oldest first."""

before_opening: list[Callable[[], None]] = []
"""What the first session calls before it enters: `registry` watches the exit from then on."""

_evicting = threading.RLock()


def evict() -> None:
    """End the oldest open sessions as abandoned, as many as there are too many."""
    with _evicting:
        oldest = list(itertools.islice(open_references, max(0, len(open_references) - MAX_OPEN)))
        for reference in oldest:
            open_references.pop(reference, None)
    for reference in oldest:
        stale = reference()
        if stale is None:
            continue
        ledger.evicted()
        warn_once(
            "evicted",
            stale.name,
            f"more than {MAX_OPEN} open {stale.name} sessions: the oldest ended early; end yours",
        )
        stale.end("abandoned")


def _renew_lock() -> None:
    global _evicting
    _evicting = threading.RLock()


on_fork(in_child=_renew_lock)
