"""From `track` to LaunchDarkly: receipts instead of hope.

Names load at first use, so that a program without a LaunchDarkly client pays nothing for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..imports import public_names

if TYPE_CHECKING:
    from .configuration import Plugin, attach, launchdarkly_config
    from .flush_report import FlushReport, Receipt
    from .flushing import aflush, flush
    from .processors import EventProcessor


__all__ = [
    "EventProcessor",
    "FlushReport",
    "Plugin",
    "Receipt",
    "aflush",
    "attach",
    "flush",
    "launchdarkly_config",
]

_HOMES = {
    "EventProcessor": "processors",
    "FlushReport": "flush_report",
    "Plugin": "configuration",
    "Receipt": "flush_report",
    "aflush": "flushing",
    "attach": "configuration",
    "flush": "flushing",
    "launchdarkly_config": "configuration",
}


__getattr__ = public_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
