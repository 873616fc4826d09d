"""Payloads whose event processor was closed before they were delivered.

The next processor for the same place takes them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from .event_json import Payload

MOST_BYTES = 32 * 2**20


def _nothing() -> None:
    return


class MemorySpool:
    """Keep what closed event processors left, by where it belongs.

    Like a spool's files, what belongs to one environment is taken for another only after
    LaunchDarkly had refused the first one's key, as when `ldclient.set_config` brings the new key.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.left: list[tuple[str, str, Payload]] = []
        """What waits for a processor: its origin, the address of its events, and the payload."""
        self.notify: Callable[[], None] = _nothing
        """Wakes the running workers; set by the registry."""

    def add(self, origin: str, uri: str, refused: bool, payloads: list[Payload]) -> list[Payload]:
        """Keep *payloads*; the caller must then call `notify`.

        Args:
            origin: see `origin_of`.
            uri: the address of the events.
            refused: whether LaunchDarkly refuses the key.
            payloads: what is left.

        Returns:
            What no longer fits.
        """
        with self._lock:
            self.left += [("" if refused else origin, uri, payload) for payload in payloads]
            gone = []
            while sum(len(payload.body) for _, _, payload in self.left) > MOST_BYTES:
                gone.append(self.left.pop(0)[2])
            return gone

    def take(self, origin: str, uri: str) -> list[Payload]:
        """Take out what a processor for *origin* at *uri* may deliver."""
        with self._lock:
            taken = [entry for entry in self.left if entry[1] == uri and entry[0] in ("", origin)]
            self.left = [entry for entry in self.left if entry not in taken]
            return [payload for _, _, payload in taken]

    def clear(self) -> None:
        """Drop everything: in a forked child, whose parent keeps its own, and in tests."""
        self._lock = threading.Lock()
        self.left = []


memory_spool = MemorySpool()


def origin_of(events_uri: str, sdk_key: str) -> str:
    """Return a digest of where events belong; not the key itself."""
    return hashlib.sha256(f"{events_uri}\n{sdk_key}".encode()).hexdigest()[:32]
