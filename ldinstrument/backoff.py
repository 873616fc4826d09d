"""How long to wait before the next attempt, and what an answer to POST /bulk means.

Serves the event sender, the sweeper of the stores, the REST client and the Lambda extension alike.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import Enum

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 3600.0
MOST_BAD_REQUESTS = 3


class Disposition(Enum):
    """What is to be done with a payload after an answer to POST /bulk."""

    DELIVERED = "delivered"
    SPLIT = "split"
    DROP = "drop"
    REFUSED_KEY = "refused_key"
    RETRY = "retry"


def disposition(status: int, attempts: int) -> Disposition:
    """Tell what an answer to POST /bulk means for its payload.

    Args:
        status: the HTTP status; 0 when there was no answer.
        attempts: how many answers of status 400 this payload has had, this one included: a proxy
            may mangle a body once, three times mean that the payload itself is bad.
    """
    if 200 <= status < 300:
        return Disposition.DELIVERED
    if status == 413:
        return Disposition.SPLIT
    if status == 400 and attempts >= MOST_BAD_REQUESTS:
        return Disposition.DROP
    return Disposition.REFUSED_KEY if status in (401, 403) else Disposition.RETRY


class Backoff:
    """Back-off state for one server. Not safe for several threads at once.

    While the server fails, one payload at a time goes out as a probe, after 1, 2, 4 ... 60 seconds,
    each times 0.5 to 1.0 so that a fleet does not come back in step. Times are `time.monotonic`
    seconds.
    """

    def __init__(
        self, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        self._first = first_pause
        self._longest = longest_pause
        self.healthy = True
        """Whether the server took the last payload, and refuses no key."""
        self.failures = 0
        self.not_before = 0.0
        self.refused_key: str | None = None
        self._asked_by_server = False
        self._last_failure = 0.0

    def ready_at(self, key: str) -> float:
        """Return when the next payload may leave with SDK key *key*: infinity while it is
        refused.
        """
        if self.refused_key is not None:
            if self.refused_key == key:
                return float("inf")
            self.succeeded()
        return self.not_before

    def succeeded(self) -> None:
        """Note that the server took a payload."""
        self.healthy, self.failures, self.not_before, self.refused_key = True, 0, 0.0, None
        self._asked_by_server = False

    def failed(self, *, retry_after: float | None = None, lost: bool = False) -> None:
        """Note that the server, or the way to it, failed.

        Args:
            retry_after: seconds that it asked for; they only lengthen the pause, because a server
                whose clock is slow names dates in the past.
            lost: a connection broke, so the first retry need not wait.
        """
        self.healthy = False
        self.failures += 1
        self._last_failure = time.monotonic()
        pause = exponential(self.failures - 1, self._first, self._longest)
        if lost and self.failures == 1:
            pause = 0.0
        asked = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
        self._asked_by_server = asked > pause
        self.not_before = self._last_failure + max(pause, asked)

    def refused(self, key: str) -> None:
        """Note a 401 or 403: *key* will not do, however often it is tried."""
        self.healthy = False
        self.refused_key = key

    def shorten(self) -> None:
        """Shorten a pause for a waiting flush: never a `Retry-After`, never below the first
        pause.
        """
        if not self._asked_by_server:
            self.not_before = min(self.not_before, self._last_failure + self._first / 2)


def exponential(failures: int, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> float:
    """Return *first* times 2 to the power of *failures* seconds, at most *longest*, with jitter.

    The jitter is a factor from 0.5 to 1.0.
    """
    return min(longest, first * 2.0 ** max(0, min(failures, 20))) * random.uniform(0.5, 1.0)


def retry_delay(failures: int, headers: Mapping[str, str]) -> float:
    """Return the seconds to wait after *failures* failures in a row: as the server asks, else
    exponential.
    """
    asked = retry_after(headers.get("Retry-After"))
    return exponential(failures - 1) if asked is None else asked


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, at most `LONGEST_RETRY_AFTER`.

    Args:
        value: seconds or an HTTP date (RFC 9110, section 10.2.3).
        now: epoch seconds to subtract from a date; by default this machine's clock.

    Returns:
        None when the header is absent or neither of both.
    """
    text = (value or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return min(LONGEST_RETRY_AFTER, float(text[:12]))
    moment = _http_date(text)
    if moment is None:
        return None
    return min(LONGEST_RETRY_AFTER, max(0.0, moment - (time.time() if now is None else now)))


def rest_pause(attempt: int, headers: Mapping[str, str], now: float | None = None) -> float:
    """Return the seconds to wait before the next attempt of a REST call.

    The longest wait that the headers ask for, plus jitter so that many processes do not come back
    at the same moment; without one, or when it lies in the past, exponential from 0.2 s to 10 s.

    Args:
        attempt: 0 after the first attempt.
        headers: of the answer: `Retry-After` (seconds or a date), `X-Ratelimit-Reset` and
            `X-Ratelimit-Auth-Token-Reset` (epoch milliseconds).
        now: epoch seconds; by default the server's own `Date`, or else this machine's clock.
    """
    now = _server_time(headers) if now is None else now
    asked = max(
        retry_after(headers.get("Retry-After"), now) or 0.0,
        _reset(headers, "X-Ratelimit-Reset", now),
        _reset(headers, "X-Ratelimit-Auth-Token-Reset", now),
    )
    if asked > 0:
        return asked + random.uniform(0.0, min(2.0, 0.1 + asked / 4))
    return exponential(attempt, first=0.2, longest=10.0)


def _reset(headers: Mapping[str, str], name: str, now: float) -> float:
    try:
        moment = float(headers.get(name, "")) / 1000
    except ValueError:
        return 0.0
    return moment - now if math.isfinite(moment) else 0.0


def _server_time(headers: Mapping[str, str]) -> float:
    moment = _http_date(headers.get("Date", ""))
    return time.time() if moment is None else moment


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
