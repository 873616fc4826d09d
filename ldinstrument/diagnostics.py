"""Manners: what may be said, and who may wait."""

from __future__ import annotations

import sys

from .errors import StrictError
from .ledger import ledger, log


def say(cause: str, subject: str, message: str) -> None:
    """Say *message* once per (*cause*, *subject*); with `strict`, log it each time."""
    try:
        ledger.warn(cause, subject, message)
    except StrictError:
        log.warning("%s", message)


def on_event_loop() -> bool:
    """Whether this thread is running an event loop, which must not wait."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
