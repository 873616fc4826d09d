"""From a value to `track`: which client, for whom, dated when, and counted where.

No function here raises into the host, and none waits: without a client, events are held (bounded) until one appears.
"""

from __future__ import annotations

import os


def disabled() -> bool:
    """Whether `LDINSTRUMENT_DISABLED` makes everything inert; read each time, so a test can switch it."""
    return os.environ.get("LDINSTRUMENT_DISABLED", "").lower() in ("1", "true", "yes", "on")
