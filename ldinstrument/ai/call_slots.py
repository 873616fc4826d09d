"""Where the code that runs finds the call of a model that it runs in, made or not made yet.

A call is made when somebody asks for it: until then its slot holds what that takes. The slot is in
a `ContextVar`, which asyncio's tasks inherit, and threads that are given a context.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from ..callables.context_variables import pickle_by_name

Slot = list[Any]
"""`[call, make, session, started, outer]`: a call, or what it takes to make it when somebody asks
for it, and the slot around it. Without `make` the call is over, and the one around it counts.
"""
current_slot: ContextVar[Slot | None] = ContextVar("ldinstrument_call", default=None)
pickle_by_name(current_slot, __name__, "current_slot")


def live(slot: Slot | None) -> Slot | None:
    """Return *slot*, or the nearest one around it whose call is not over."""
    while slot is not None and slot[1] is None:
        slot = slot[4]
    return slot


def surround(slot: Slot, outer: Slot | None) -> None:
    """Note that *slot* is entered inside *outer*: in a generator that may be another one each time,
    but never one that is inside *slot* itself.
    """
    around = outer
    while around is not None:
        if around is slot:
            return
        around = around[4]
    slot[4] = outer


def call_in(slot: Slot) -> Any:
    """Return the call in *slot*, made now if it was not before."""
    if slot[0] is None:
        _, make, session, started, _ = slot
        slot[0] = make(session, started)
    return slot[0]


def leave(slot: Slot) -> None:
    """Say that the call in *slot* is no longer the current one of anybody."""
    slot[0] = slot[1] = slot[2] = None
