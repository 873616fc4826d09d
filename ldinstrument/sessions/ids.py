"""Random ids that cost no system call.

`uuid4` asks the kernel each time, which gives the interpreter's lock away: in a busy loop the other
threads of a process then starve, for a thread that is woken in vain waits its 5 ms anew.
"""

from __future__ import annotations

import random

from ..process import on_fork

_source = random.Random()  # seeded by the kernel
random_bits = _source.getrandbits
"""Return so many random bits, as a number from 0 on: an id has 128 of them."""
on_fork(in_child=_source.seed)


def random_id() -> str:
    """Return 32 random hexadecimal digits."""
    return f"{random_bits(128):032x}"
