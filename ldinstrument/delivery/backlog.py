"""Sealed payloads that wait to be sent, bounded by bytes and by age."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from .payloads import Payload


class Backlog:
    """First in, first out; when it is too large the oldest go, when they are too old they go too.

    Not safe for several threads at once.

    Args:
        max_bytes: how much may wait.
        max_age: how long anything may wait, in seconds.
    """

    def __init__(self, max_bytes: int, max_age: float) -> None:
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._waiting: deque[Payload] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Payload]:
        return iter(self._waiting)

    def add(self, payload: Payload, *, first: bool = False) -> list[Payload]:
        """Queue *payload*, *first* or last.

        Returns:
            What no longer fits: the oldest.
        """
        (self._waiting.appendleft if first else self._waiting.append)(payload)
        self.bytes += len(payload.body)
        gone = []
        while self.bytes > self._max_bytes and len(self._waiting) > 1:
            gone.append(self._oldest())
        return gone

    def take(self) -> Payload:
        """Take out the next payload to send."""
        payload = self._waiting.popleft()
        self.bytes -= len(payload.body)
        return payload

    def expired(self) -> list[Payload]:
        """Take out what has waited too long."""
        horizon = time.monotonic() - self._max_age
        gone = [payload for payload in self._waiting if payload.age_from < horizon]
        for payload in gone:
            self._remove(payload)
        return gone

    def clear(self) -> list[Payload]:
        """Take out everything."""
        gone = list(self._waiting)
        self._waiting.clear()
        self.bytes = 0
        return gone

    def _oldest(self) -> Payload:
        payload = min(self._waiting, key=lambda waiting: waiting.age_from)
        self._remove(payload)
        return payload

    def _remove(self, payload: Payload) -> None:
        self._waiting.remove(payload)
        self.bytes -= len(payload.body)
