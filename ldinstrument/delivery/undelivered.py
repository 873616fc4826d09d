"""Payloads whose event processor was closed before they were delivered; the next one for the same
place adopts them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from .payloads import Payload

MOST_BYTES = 32 * 2**20


class Orphanage:
    """What closed event processors left, by where it belongs.

    Like a spool's files, what belongs to one environment is adopted for another only after
    LaunchDarkly had refused the first one's key, as when `ldclient.set_config` brings the new key.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[tuple[str, str, Payload]] = []
        self.told: Callable[[], None] = _nobody

    def __len__(self) -> int:
        return len(self._left)

    def leave(
        self, origin: str, place: str, refused: bool, payloads: list[Payload]
    ) -> list[Payload]:
        """Keep *payloads*.

        Returns:
            What no longer fits. Somebody has to call `told`, which tells the living.
        """
        with self._lock:
            self._left += [("" if refused else origin, place, payload) for payload in payloads]
            gone = []
            while sum(len(payload.body) for _, _, payload in self._left) > MOST_BYTES:
                gone.append(self._left.pop(0)[2])
            return gone

    def adopt(self, origin: str, place: str) -> list[Payload]:
        """Take out what a processor for *origin* at *place* may deliver."""
        with self._lock:
            mine = [entry for entry in self._left if entry[1] == place and entry[0] in ("", origin)]
            self._left = [entry for entry in self._left if entry not in mine]
            return [payload for _, _, payload in mine]

    def forget(self) -> None:
        """Drop everything: a forked child, whose parent keeps its own, and tests."""
        self._lock = threading.Lock()
        self._left = []


def _nobody() -> None:
    return


orphanage = Orphanage()


def origin_of(events_uri: str, sdk_key: str) -> str:
    """A digest of where events belong; not the key itself."""
    return hashlib.sha256(f"{events_uri}\n{sdk_key}".encode()).hexdigest()[:32]
