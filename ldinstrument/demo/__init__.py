"""What `ldinstrument demo` (`make demo`) shows: real traffic through an instrumented program into a local LaunchDarkly."""

from __future__ import annotations

from .show import run

__all__ = ["run"]
