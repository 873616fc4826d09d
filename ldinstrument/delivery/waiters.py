"""What one flush waits for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from .payloads import Payload


class FlushWaiter:
    """Know what one flush covers: events that are in no payload yet, and payloads without an
    answer.

    The sender changes it under its lock, and calls `wake` when there is nothing left to wait for.

    Args:
        wake: called once; must not wait.
        deadline: `time.monotonic` seconds; nothing that can only happen later is waited for.
    """

    def __init__(self, wake: Callable[[], None], deadline: float) -> None:
        self._wake: Callable[[], None] | None = wake
        self.deadline = deadline
        self.payloads: list[Payload] = []
        self.batched = False
        """Whether everything that was recorded before it is in a payload."""

    def cover(self, payloads: Iterable[Payload]) -> None:
        """Wait for *payloads*, too."""
        self.payloads.extend(payloads)

    def unsettled(self) -> list[Payload]:
        """Return the payloads that have no final answer yet."""
        return [leaf for payload in self.payloads for leaf in payload.leaves() if not leaf.settled]

    def finish(self) -> None:
        """Wake whoever waits."""
        wake, self._wake = self._wake, None
        if wake is None:
            return
        try:
            wake()
        except RuntimeError:  # its event loop has been closed in the meantime
            return

    def count(self, counts: Counter[str]) -> None:
        """Add its events to *counts*, by the state of their payload."""
        for payload in self.payloads:
            payload.count(counts)
