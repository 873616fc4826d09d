"""CircuitBreaker: asks a store that may fail, and keeps what it missed in a bounded queue.

After a failure nobody asks the store again for a while; then one caller at a time does, as a probe.
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
from ..diagnostics import interruption, log_internal_error, log_once, warn_once
from ..ledger import ledger
from .protocol import Delta, Store
from .records import readable

MAX_WAIT = 900.0
"""Seconds that a merge may wait: a shared store knows the names of merges for twice as long."""


@dataclass(frozen=True, slots=True)
class PendingMerge:
    """A delta (without one: an end) for the session of *key*, waiting since *since* (monotonic)."""

    key: str
    since: float
    delta: Delta | None = None
    reason: str = ""
    over: int = 0
    active: bool = False

    @property
    def values(self) -> int:
        """How many recorded values are lost if it never reaches the store."""
        return 0 if self.delta is None else self.delta.values

    def into(self, store: Store) -> Any:
        """Bring it to *store*; return the answer. Raises what the store does."""
        if self.delta is None:
            text = store.end(self.key, self.reason, over=self.over, active=self.active)
            return None if text is None else readable(text)
        waited = int((time.monotonic() - self.since) * 1000)
        answer = store.merge(self.key, self.delta.aged(waited) if waited else self.delta)
        if self.delta.values:
            ledger.count(emitted_values=self.delta.values)
        return answer


def describe_failure(error: BaseException) -> str:
    """Return what may be logged of *error*: its kind; of SQLite's the text, too, which names no
    address and no key.
    """
    kind = type(error).__name__
    return f"{kind}: {error}" if type(error).__module__ == "sqlite3" else kind


class CircuitBreaker:
    """Bring deltas and ends to a store, now or later. Safe for several threads; nothing raises.

    Args:
        store: that may fail.
        max_pending: how many merges may wait.
        on_failure: called after each failure.
        watched: whether somebody calls `catch_up` when it is time.

    Attributes:
        backoff: knows of failures since the store answered last.
        pending: what waits. While nothing does, and nothing has failed, the store may be asked
            without the breaker, which only needs to know of a failure (`missed`).
    """

    def __init__(
        self, store: Store, max_pending: int, on_failure: Callable[[], None], *, watched: bool
    ) -> None:
        self._store = store
        self._max_pending = max_pending
        self._on_failure = on_failure
        self._watched = watched
        self._lock = threading.Lock()
        self.backoff = Backoff(first_pause=0.5, longest_pause=30.0)
        self._probing = False
        self.pending: deque[PendingMerge] = deque()

    def __len__(self) -> int:
        return len(self.pending)

    def attempt(self, merge: PendingMerge) -> Any:
        """Ask the store now, unless it failed a moment ago; return its answer, None if *merge* has
        to wait.
        """
        if self.backoff.failures and not self._may_try():
            self.keep(merge)
            return None
        try:
            answer = merge.into(self._store)
        except BaseException as error:
            self.missed(merge, error)
            return None
        if self.backoff.failures:
            self._succeeded()
        if self.pending and not self._watched:  # nobody else would: a few at a time
            self.catch_up(10)
        return answer

    def missed(self, merge: PendingMerge, error: BaseException) -> None:
        """Take note that the store raised *error* for *merge*, and let that wait; raises an
        `interruption`.
        """
        self._let_pass(merge, error)
        if not self._refused(merge, error):
            self._failed(error)
            self.keep(merge)

    def _let_pass(self, merge: PendingMerge, error: BaseException) -> None:
        """Raise an `interruption` and what is no `Exception`, which tell nothing of the store;
        *merge*, done or not, waits to be repeated.
        """
        struck = interruption(error) if isinstance(error, Exception) else error
        if struck is not None:
            with self._lock:
                self._probing = False
            self._put_back(merge)
            self._on_failure()
            raise struck

    def _refused(self, merge: PendingMerge, error: BaseException) -> bool:
        """Tell whether the store is well and only this merge is lost."""
        if not self._store.refuses(error):
            return False
        log_internal_error("session store", error)
        ledger.discarded("store_refused", merge.values)
        self._succeeded()
        return True

    def _may_try(self) -> bool:
        """Tell whether to ask the store: always while it is well, after a failure one caller at a
        time, when the back-off allows it.
        """
        with self._lock:
            if not self.backoff.failures:
                return True
            if self._probing or self.backoff.ready_at("") > time.monotonic():
                return False
            self._probing = True
            return True

    def _succeeded(self) -> None:
        with self._lock:
            self.backoff.succeeded()
            self._probing = False

    def _failed(self, error: BaseException) -> None:
        with self._lock:
            # Callers that fail at the same time have seen one failure, not several in a row.
            if self._probing or not self.backoff.failures:
                self.backoff.failed()
            self._probing = False
        log_once(
            "store_down",
            type(self._store).__name__,
            f"the session store does not answer ({describe_failure(error)}): the numbers of up to "
            f"{self._max_pending} requests wait in memory, and requests go on without it; "
            "check its address, and that it runs",
        )
        self._on_failure()

    def keep(self, merge: PendingMerge) -> None:
        """Let *merge* wait; what no longer fits is lost and counted."""
        with self._lock:
            self.pending.append(merge)
            surplus = len(self.pending) - self._max_pending
            lost = [self.pending.popleft() for _ in range(surplus)]
        self._give_up(lost)

    def _give_up(self, lost: list[PendingMerge]) -> None:
        for merge in lost:
            ledger.discarded("store_down", merge.values)
        if lost:
            warn_once(
                "store_lost",
                "",
                "the session store did not answer for too long: the oldest numbers that wait in "
                "memory are dropped; bring it back",
            )

    def catch_up(self, limit: int | None = None) -> None:
        """Bring to the store what waited for it (at most *limit*); end at the first failure."""
        done = itertools.count()
        while (limit is None or next(done) < limit) and (merge := self._oldest()) is not None:
            if time.monotonic() - merge.since > MAX_WAIT:
                self._give_up([merge])
            elif not self._retry(merge):
                self._put_back(merge)
                return

    def _retry(self, merge: PendingMerge) -> bool:
        """Bring *merge* to the store; tell whether it need not be tried again."""
        if not self._may_try():
            return False
        try:
            merge.into(self._store)
        except BaseException as error:
            self._let_pass(merge, error)
            if self._refused(merge, error):
                return True
            self._failed(error)
            return False
        self._succeeded()
        return True

    def _oldest(self) -> PendingMerge | None:
        with self._lock:
            return self.pending.popleft() if self.pending else None

    def _put_back(self, merge: PendingMerge) -> None:
        with self._lock:
            self.pending.appendleft(merge)

    def next_attempt(self) -> float:
        """Return the seconds until it makes sense to `catch_up`; infinity when nothing waits."""
        if not self.pending:
            return float("inf")
        with self._lock:
            return max(0.05, self.backoff.ready_at("") - time.monotonic())
