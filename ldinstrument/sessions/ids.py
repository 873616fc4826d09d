"""Random ids that cost no system call.

`uuid4` asks the kernel each time, which gives the interpreter's lock away: in a busy loop the other
threads of a process then starve, for a thread that is woken in vain waits its 5 ms anew.
"""

from __future__ import annotations

import random
import uuid

from ..process import on_fork

_source = random.Random()  # seeded by the kernel


def _renew() -> None:
    global _source
    _source = random.Random()


on_fork(in_child=_renew)


def random_id() -> str:
    """Return 32 random hexadecimal digits."""
    return f"{_source.getrandbits(128):032x}"


def random_uuid() -> str:
    """Return a random UUID, version 4."""
    return str(uuid.UUID(int=_source.getrandbits(128), version=4))
