"""How long to wait before asking LaunchDarkly again."""

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
