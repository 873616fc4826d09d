"""Where the code that runs finds the call of a model that it runs in, made or not made yet.

A call is made when somebody asks for it: until then its slot holds what that takes. The slot is
found in a `ContextVar`, which asyncio's tasks inherit, or in the frames below: a `ContextVar` that
is set and set back costs a call as much as all the rest of its measuring.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import FrameType
from typing import Any

from ..callables.context_variables import pickle_by_name

Slot = list[Any]
"""`[call, make, session, started, outer]`: a call, or what it takes to make it when somebody asks
for it, and the slot around it. Without `make` the call is over, and the one around it counts.
"""
current_slot: ContextVar[Slot | None] = ContextVar("ldinstrument_call", default=None)
pickle_by_name(current_slot, __name__, "current_slot")
_OURS = "<ldinstrument "


def innermost_slot() -> Slot | None:
    """Return the slot of the innermost call that the caller of our caller runs in."""
    slot = current_slot.get()
    here = _slot_of_frames(sys._getframe(2))
    # Nobody has entered another call since: then the function on the stack is further inside.
    return here if here is not None and here[4] is slot else live(slot)


def live(slot: Slot | None) -> Slot | None:
    """Return *slot*, or the nearest one around it whose call is not over."""
    while slot is not None and slot[1] is None:
        slot = slot[4]
    return slot


def _slot_of_frames(frame: FrameType | None) -> Slot | None:
    """Return the slot of the innermost tracked function on this thread's stack."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_OURS) and "_here" in code.co_varnames:
            found: Slot | None = frame.f_locals.get("_here")
            return found
        frame = frame.f_back
    return None


def call_in(slot: Slot) -> Any:
    """Return the call in *slot*, made now if it was not before."""
    if slot[0] is None:
        _, make, session, started, _ = slot
        slot[0] = make(session, started)
    return slot[0]


def leave(slot: Slot) -> None:
    """Say that the call in *slot* is no longer the current one of anybody."""
    slot[0] = slot[1] = slot[2] = None
