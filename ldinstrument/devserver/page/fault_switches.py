"""Faults to be switched on and off in the page: what a network or LaunchDarkly may do to you."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..faults import InjectedFault, InjectedFaults
from ..responses import not_found

INTAKE = ("/bulk", "/mobile*", "/events/bulk/*")
FLAGS = ("/all", "/sdk/*", "/eval/*", "/meval*")


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch: its name, what it does in words, whether it is on, and how often it hit."""

    name: str
    text: str
    on: bool
    hits: int


Make = Callable[[str], InjectedFault]
SWITCHES: Mapping[str, tuple[str, tuple[str, ...], Make]] = {
    "events-503": (
        "events are answered 503",
        INTAKE,
        lambda route: InjectedFault(route, status=503, times=None),
    ),
    "events-slow": (
        "events are answered after 3 seconds",
        INTAKE,
        lambda route: InjectedFault(route, delay=3.0, times=None),
    ),
    "events-cut": (
        "the connection of events is cut",
        INTAKE,
        lambda route: InjectedFault(route, drop=True, times=None),
    ),
    "events-unheard": (
        "events are kept, but the answer is lost: they come again",
        INTAKE,
        lambda route: InjectedFault(route, drop=True, after=True, times=None),
    ),
    "flags-503": (
        "flags are answered 503",
        FLAGS,
        lambda route: InjectedFault(route, status=503, times=None),
    ),
    "rest-429": (
        "REST calls are answered 429",
        ("/api/*",),
        lambda route: InjectedFault(route, status=429, headers={"Retry-After": "1"}, times=None),
    ),
}


class FaultSwitches:
    """Switches over the faults of a server."""

    def __init__(self, faults: InjectedFaults):
        self.faults = faults
        self._on: dict[str, list[InjectedFault]] = {}

    def all(self) -> list[Switch]:
        """Return every switch as it is; `clear_faults` and `reset` switch them off, too."""
        active = self.faults.active()
        found = []
        for name, (text, _, _) in SWITCHES.items():
            mine = [fault for fault in self._on.get(name, ()) if any(fault is a for a in active)]
            found.append(Switch(name, text, bool(mine), sum(fault.hits for fault in mine)))
        return found

    def switch(self, name: str, *, on: bool) -> None:
        """Switch one on or off.

        Raises:
            RefusedRequest: 404, there is no such switch.
        """
        if name not in SWITCHES:
            raise not_found()
        for fault in self._on.pop(name, ()):
            self.faults.remove(fault)
        if on:
            _, routes, make = SWITCHES[name]
            self._on[name] = [self.faults.add(make(route)) for route in routes]
