"""What `ldinstrument demo` (`make demo`) shows: real traffic, an instrumented program, a local
LaunchDarkly.
"""

from __future__ import annotations

from .show import run

__all__ = ["run"]
