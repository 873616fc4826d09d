"""From a value to `track`: which client, for whom, dated when, and counted where.

No function here raises into the host, and none waits: without a client, events are held (bounded)
until one appears.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..metrics.metric import Limit

# -- the rate limit outside sessions --------------------------------------------------------------


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


def within_rate(event_key: str, limit: Limit | None) -> bool:
    """Whether one more event of *event_key* fits its limit; takes the token when it does."""
    if limit is None:
        return True
    with _buckets_lock:
        bucket = _buckets.get(event_key)
        if bucket is None or bucket.limit != limit:
            bucket = _buckets[event_key] = TokenBucket(limit)
    return bucket.take()


def forget() -> None:
    """Drop all buckets (tests, and a forked child)."""
    global _buckets_lock
    _buckets_lock = threading.RLock()
    _buckets.clear()
