"""When sending may go on: back-off with jitter, `Retry-After`, and the stop after 401 or 403."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def pause(attempt: int, headers: Mapping[str, str], now: float | None = None) -> float:
    """Seconds to wait before the next attempt.

    The longest wait that the headers ask for, plus jitter so that many processes do not come back at the same moment;
    without one, or when it lies in the past, exponential from 0.2 s to 10 s with jitter.

    Args:
        attempt: 0 after the first attempt.
        headers: of the answer: `Retry-After` (seconds or a date), `X-Ratelimit-Reset` and
            `X-Ratelimit-Auth-Token-Reset` (epoch milliseconds).
        now: epoch seconds; by default the server's own `Date`, or else this machine's clock.
    """
    now = _server_time(headers) if now is None else now
    asked = max(_retry_after(headers, now), _reset(headers, "X-Ratelimit-Reset", now),
                _reset(headers, "X-Ratelimit-Auth-Token-Reset", now))  # fmt: skip
    if asked > 0:
        return asked + random.uniform(0.0, min(2.0, 0.1 + asked / 4))
    backoff: float = min(10.0, 0.2 * 2 ** min(attempt, 10))
    return random.uniform(backoff / 2, backoff)


def _reset(headers: Mapping[str, str], name: str, now: float) -> float:
    try:
        moment = float(headers.get(name, "")) / 1000
    except ValueError:
        return 0.0
    return moment - now if math.isfinite(moment) else 0.0


def _retry_after(headers: Mapping[str, str], now: float) -> float:
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    moment = _moment(text)
    return 0.0 if moment is None else moment - now


def _server_time(headers: Mapping[str, str]) -> float:
    moment = _moment(headers.get("Date", ""))
    return time.time() if moment is None else moment


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 3600.0


class Gate:
    """One server's mood. Not safe for several threads at once; times are `time.monotonic` seconds.

    While the server fails, one payload at a time goes out to probe it, after 1, 2, 4 ... 60 seconds, each times 0.5
    to 1.0 so that a fleet does not come back in step.
    """

    def __init__(self, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE) -> None:
        self._first = first_pause
        self._longest = longest_pause
        self.failures = 0
        self.not_before = 0.0
        self.refused_key: str | None = None
        self._told = False
        self._last = 0.0

    def opens_at(self, key: str) -> float:
        """When the next payload may leave with SDK key *key*: infinity while that key is refused."""
        if self.refused_key is not None:
            if self.refused_key == key:
                return float("inf")
            self.succeeded()
        return self.not_before

    def succeeded(self) -> None:
        """The server took a payload."""
        self.failures, self.not_before, self.refused_key, self._told = 0, 0.0, None, False

    def failed(self, *, retry_after: float | None = None, lost: bool = False) -> None:
        """The server, or the way to it, failed.

        Args:
            retry_after: seconds that it asked for; they only lengthen the pause, because a server whose clock is slow
                names dates in the past.
            lost: a connection broke, so the first retry need not wait.
        """
        self.failures += 1
        self._last = time.monotonic()
        pause = min(self._longest, self._first * 2 ** min(self.failures - 1, 20)) * random.uniform(0.5, 1.0)
        if lost and self.failures == 1:
            pause = 0.0
        asked = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
        self._told = asked > pause
        self.not_before = self._last + max(pause, asked)

    def refused(self, key: str) -> None:
        """401 or 403: *key* will not do, however often it is tried."""
        self.refused_key = key

    def hurry(self) -> None:
        """Somebody waits for a flush: shorten a back-off, never a `Retry-After`, and never below the first pause."""
        if not self._told:
            self.not_before = min(self.not_before, self._last + self._first / 2)


def retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as seconds or as an HTTP date; None when it does not."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
