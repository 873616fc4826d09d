"""Flags and segments, and how SDKs and browsers get them."""

from __future__ import annotations

from .flags import experiment_flag, read_flags, simple_flag

__all__ = ["experiment_flag", "read_flags", "simple_flag"]
