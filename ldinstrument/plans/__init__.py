"""Plan, then apply: what LaunchDarkly must know for a catalog to count, as a value that can be read
and refused.

`plan` compares, `apply` creates what is missing; `ldinstrument.bootstrap` is both. What exists is
only changed with `update=True`, because running experiments use it; nothing is ever deleted here.
"""

from __future__ import annotations

from .applying import apply
from .changes import Change, Finer, Plan, Progress
from .comparing import incompatible, plan

__all__ = [
    "Change",
    "Finer",
    "Plan",
    "Progress",
    "apply",
    "incompatible",
    "plan",
]
