"""What an `EventProcessor` can be told beyond the SDK's own configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .gates import FIRST_PAUSE, LONGEST_PAUSE

if TYPE_CHECKING:
    from .reports import Receipt
    from .transport import Transport


class Options:
    """Bounds and seams of one event processor.

    Args:
        spool: a folder in which undelivered events outlive the process; None keeps them in memory only.
        max_bytes: how much of what LaunchDarkly did not take waits, in memory and in the spool.
        max_age: how long it waits, in seconds; in a spool, too.
        close_timeout: how long `close()` and the interpreter's exit may take, in seconds.
        wait_when_full: how long `track` may wait for room in a full queue, in seconds; never on an event loop. The
            default never waits.
        first_pause: the first pause after a failure, in seconds; it doubles.
        longest_pause: the longest one.
        on_receipt: called with each `Receipt`, on a thread of ours or the one that flushes; must not wait.
        transport: makes the `Transport` from the SDK's configuration, in place of the SDK's connections.
    """

    def __init__(
        self,
        *,
        spool: str | Path | None = None,
        max_bytes: int = 32 * 2**20,
        max_age: float = 24 * 3600.0,
        close_timeout: float = 2.0,
        wait_when_full: float = 0.0,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        on_receipt: Callable[[Receipt], None] | None = None,
        transport: Callable[[Any], Transport] | None = None,
    ) -> None:
        self.spool = spool
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.close_timeout = close_timeout
        self.wait_when_full = wait_when_full
        self.first_pause = first_pause
        self.longest_pause = longest_pause
        self.on_receipt = on_receipt
        self.transport = transport
