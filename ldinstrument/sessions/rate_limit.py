"""The rate limit of values that are recorded outside sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..diagnostics import warn_once
from ..ledger import ledger
from ..metrics.catalogs import EventRouting
from ..metrics.metric import Limit


class TokenBucket:
    """At most `limit.count` events per `limit.seconds`, with a burst of `limit.count`."""

    def __init__(self, limit: Limit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        # Re-entrant, as everywhere: a signal handler or finaliser may record while this thread
        # takes a token.
        self._lock = threading.RLock()
        self._tokens = max(1.0, limit.count)
        self._filled = clock()

    def take(self) -> bool:
        """Take one token; False when there is none."""
        with self._lock:
            now = self._clock()
            gained = (now - self._filled) * self.limit.count / self.limit.seconds
            self._tokens = min(max(1.0, self.limit.count), self._tokens + max(0.0, gained))
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


_buckets: dict[str, TokenBucket] = {}
_buckets_lock = threading.RLock()


def within_rate(routing: EventRouting) -> bool:
    """Tell whether one more value of an event key fits its limit; take the token when it does.

    What does not fit is counted, and said once.
    """
    limit = routing.rate
    if limit is None:
        return True
    with _buckets_lock:
        bucket = _buckets.get(routing.event_key)
        if bucket is None or bucket.limit != limit:
            bucket = _buckets[routing.event_key] = TokenBucket(limit)
    if bucket.take():
        return True
    ledger.discarded("rate_limited")
    warn_once(
        "rate_limited",
        routing.event_key,
        f"{routing.event_key}: more values outside a session than its limit= of "
        f"{limit.count:g} in {limit.seconds:g} s; the rest is dropped and counted as rate_limited: "
        "record them inside a session, or raise the limit",
    )
    return False


def forget() -> None:
    """Drop all buckets (tests, and a forked child)."""
    global _buckets_lock
    _buckets_lock = threading.RLock()
    _buckets.clear()
