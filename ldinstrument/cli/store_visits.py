"""The open visits of a session store, for the page of a local LaunchDarkly."""

from __future__ import annotations

from ..errors import DefinitionError

IDLE_SECONDS = 0.001
"""Whoever has been silent for so long is over: everybody."""


class StoreVisits:
    """Counts and ends the visits of the store at an address.

    Raises:
        DefinitionError: the address is that of a store inside one process.
    """

    def __init__(self, address: str):
        if address.startswith("memory:"):
            raise DefinitionError(
                "--store memory: another program's memory cannot be looked into: keep the visits "
                "where both can reach them, such as sqlite:///visits.db"
            )
        self.address = address

    def open(self) -> int:
        """Return how many visits are open, or ended and not reported yet."""
        from ..stores import open_store

        with open_store(self.address, sweep=False) as store:
            holdings = store.holdings()
        return holdings.open + holdings.ended

    def end(self) -> int:
        """End and report them, to where `LDINSTRUMENT_URL` leads; return how many."""
        from ..stores import sweep

        report = sweep(self.address, idle=IDLE_SECONDS, sdk_key="sdk-local")
        return int(report.sessions)
