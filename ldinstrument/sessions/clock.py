"""Read the monotonic clock that durations are made of; a library that freezes time cannot reach it.

freezegun replaces every module attribute that *is* `time.perf_counter`. What had read the real
clock before, or holds it in a closure, then meets readings of another epoch, and a session lasts
fifty years. So the reading comes from a second copy of the built-in `time` module: the same C
function, but not the same object. Dates still come from `time.time()`, frozen or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def _own_perf_counter() -> Callable[[], float]:
    spec = time.__spec__
    loader = spec.loader if spec is not None else None
    copy = loader.create_module(spec) if spec is not None and loader is not None else None
    if loader is None or copy is None:  # an interpreter that makes no second copy
        return time.perf_counter
    loader.exec_module(copy)
    own: Callable[[], float] = copy.perf_counter
    own.__module__ = __name__  # where pickle finds this very object, as `perf_counter`
    return own


clock = perf_counter = _own_perf_counter()
"""Seconds from an arbitrary origin; only differences mean something."""


wall: Any = time
"""Whose `time()` dates what happens, in seconds since the epoch; asked anew each time, for it may
be frozen, or set by a test.

    began = clock()
    offset = (clocks.wall.time() - began) * 1000  # as `wall_offset`, for who needs both
"""


def wall_offset() -> float:
    """Return what to add to a clock reading, in milliseconds, to date it.

    The clock is read first: an event is rather dated late than before an exposure.
    """
    reading = clock()
    return float((wall.time() - reading) * 1000)


STEP = 100.0
"""Milliseconds from which a difference is a wall clock that was set, not the time of a reading."""


def forward_offset(offset: float) -> float:
    """Return *offset*, or the present one when the wall clock has been set forward since.

    A wall clock that is set back changes nothing: dates never run backwards.
    """
    if wall_offset() - offset < STEP:
        return offset
    return max(offset, min(wall_offset(), wall_offset()))  # the lesser: neither was interrupted
