"""Patience with a store that fails: short time-outs, a circuit breaker, and a bounded queue for
what it missed.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..backoff import Backoff
from ..diagnostics import log_internal_error, log_once, warn_once
from ..ledger import ledger
from .protocol import Delta, Store
from .records import parsed

MAX_WAIT = 900.0


@dataclass(frozen=True, slots=True)
class Late:
    """A delta (or, without one, an end) that the store has not taken yet, and since when it
    waits.
    """

    key: str
    since: float
    delta: Delta | None = None
    reason: str = ""
    active: bool = False


def told(error: Exception) -> str:
    """What may be said of a failure: its kind; of SQLite's the text, too, which names no address
    and no key.
    """
    kind = type(error).__name__
    return f"{kind}: {error}" if type(error).__module__ == "sqlite3" else kind


class Patience:
    """Brings deltas and ends to a store, now or later. Safe for several threads; nothing here
    raises.

    Args:
        store: that may fail.
        most: how many may wait.
        failing: called after each failure.
        watched: whether somebody calls `catch_up` when it is time.
    """

    def __init__(
        self, store: Store, most: int, failing: Callable[[], None], *, watched: bool
    ) -> None:
        self._store = store
        self._most = most
        self._failing = failing
        self._watched = watched
        self._lock = threading.Lock()
        self._gate = Backoff(first_pause=0.5, longest_pause=30.0)
        self._probing = False
        self._late: deque[Late] = deque()

    def __len__(self) -> int:
        return len(self._late)

    def attempt(self, late: Late) -> Any:
        """Ask the store now, unless it was away a moment ago; the answer, or None when *late* has
        to wait.
        """
        if not self._may_try():
            self.keep(late)
            return None
        try:
            answer = self._do(late)
        except Exception as error:
            if not self._refused(late, error):
                self._failed(error)
                self.keep(late)
            return None
        self._succeeded()
        if self._late and not self._watched:  # nobody who would: a few at a time
            self.catch_up(10)
        return answer

    def _refused(self, late: Late, error: Exception) -> bool:
        """Whether the store is well and only this one delta is lost."""
        if not self._store.refuses(error):
            return False
        log_internal_error("session store", error)
        if late.delta is not None:
            ledger.discarded("store_refused", late.delta.values)
        self._succeeded()
        return True

    def _do(self, late: Late) -> Any:
        if late.delta is None:
            text = self._store.end(late.key, late.reason, active=late.active)
            return None if text is None else parsed(text)
        waited = int((time.monotonic() - late.since) * 1000)
        answer = self._store.merge(late.key, late.delta.aged(waited))
        ledger.emitted_values(late.delta.values)
        return answer

    def _may_try(self) -> bool:
        """Whether to ask the store: always while it is well; after a failure one caller at a time,
        now and then.
        """
        with self._lock:
            if not self._gate.failures:
                return True
            if self._probing or self._gate.ready_at("") > time.monotonic():
                return False
            self._probing = True
            return True

    def _succeeded(self) -> None:
        if self._gate.failures:
            with self._lock:
                self._gate.succeeded()
                self._probing = False

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._gate.failed()
            self._probing = False
        log_once(
            "store_down",
            type(self._store).__name__,
            f"the session store does not answer ({told(error)}): up to {self._most} requests' "
            f"numbers "
            "wait in memory, and requests go on without it",
        )
        self._failing()

    def keep(self, late: Late) -> None:
        """Let *late* wait; what no longer fits is lost and counted."""
        with self._lock:
            self._late.append(late)
            surplus = [self._late.popleft() for _ in range(len(self._late) - self._most)]
        self._give_up(surplus)

    def _give_up(self, lost: list[Late]) -> None:
        for one in lost:
            ledger.discarded("store_down", 0 if one.delta is None else one.delta.values)
        if lost:
            warn_once(
                "store_lost",
                "",
                "the session store was away for too long: the oldest waiting numbers are lost",
            )

    def catch_up(self, most: int | None = None) -> None:
        """Bring to the store what waited for it (at most *most*); ends at the first failure."""
        done = itertools.count()
        while (most is None or next(done) < most) and (late := self._oldest()) is not None:
            if time.monotonic() - late.since > MAX_WAIT:
                self._give_up([late])
                continue
            try:
                if not self._may_try():
                    self._put_back(late)
                    return
                self._do(late)
            except Exception as error:
                if not self._refused(late, error):
                    self._put_back(late)
                    self._failed(error)
                    return
            else:
                self._succeeded()

    def _oldest(self) -> Late | None:
        with self._lock:
            return self._late.popleft() if self._late else None

    def _put_back(self, late: Late) -> None:
        with self._lock:
            self._late.appendleft(late)

    def next_attempt(self) -> float:
        """Seconds until it makes sense to `catch_up`; infinite when nothing waits."""
        if not self._late:
            return float("inf")
        with self._lock:
            return max(0.05, self._gate.ready_at("") - time.monotonic())
