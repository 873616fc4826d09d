"""Ids of sessions: as given, or random ones that cost no system call.

`uuid4` asks the kernel each time, which gives the interpreter's lock away: in a busy loop the other
threads of a process then starve, for a thread that is woken in vain waits its 5 ms anew.
"""

from __future__ import annotations

import random
from typing import Any

from ..diagnostics import warn_user_code
from ..process import on_fork
from ..values import without_surrogates

_source = random.Random()  # seeded by the kernel
random_bits = _source.getrandbits
"""Return so many random bits, as a number from 0 on: an id has 128 of them."""
on_fork(in_child=_source.seed)


def random_id() -> str:
    """Return 32 random hexadecimal digits."""
    return f"{random_bits(128):032x}"


def session_id(given: Any) -> str:
    """Return *given* as a session's id: a text of at most 256 characters; a random one when there
    is none, or none usable.
    """
    if given is None:
        return random_id()
    return as_text(given, "id= of a session", "the session gets a random id") or random_id()


def as_text(given: Any, what: str, consequence: str) -> str:
    """Return *given* as a text of at most 256 characters; empty, which is logged, where an odd
    object does not tell.
    """
    try:
        return without_surrogates(str(given))[:256]
    except Exception as error:
        warn_user_code(f"{what}, a {type(given).__name__},", error, consequence)
        return ""
