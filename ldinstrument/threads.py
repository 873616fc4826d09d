"""Carry the session into a thread. `asyncio.to_thread` and tasks inherit it by themselves; nothing is patched."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .sessions import current_session, entered

P = ParamSpec("P")
R = TypeVar("R")


def propagate(fn: Callable[P, R]) -> Callable[P, R]:
    """Return *fn* bound to the session that is current now, for `Thread(target=...)` and `executor.submit(...)`.

    The session is that of the moment of this call; the worker thread's own is restored afterwards.
    """
    session = current_session()

    @functools.wraps(fn)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        with entered(session):
            return fn(*args, **kwargs)

    return carried
