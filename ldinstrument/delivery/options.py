"""What an `EventProcessor` can be told beyond the SDK's own configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backoff import FIRST_PAUSE, LONGEST_PAUSE
from ..errors import DefinitionError

if TYPE_CHECKING:
    from .reports import Receipt
    from .transport import Transport


class Options:
    """Bounds and seams of one event processor.

    Args:
        spool: a folder in which undelivered events outlive the process; None keeps them in memory
            only.
        max_bytes: how much of what LaunchDarkly did not take waits, in memory and in the spool.
        max_age: how long it waits, in seconds; in a spool, too.
        close_timeout: how long `close()` and the interpreter's exit may take, in seconds.
        wait_when_full: how long `track` may wait for room in a full queue, in seconds; never on an
            event loop. The default never waits.
        first_pause: the first pause after a failure, in seconds; it doubles.
        longest_pause: the longest one.
        on_receipt: called with each `Receipt`, on a thread of ours or the one that flushes; must
            not wait.
        transport: makes the `Transport` from the SDK's configuration, in place of the SDK's
            connections.

    Raises:
        DefinitionError: an option is not what it has to be.
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
        # Where it is then, wherever the process goes later: a daemon goes to /.
        self.spool = None if spool is None else Path(_path("spool", spool)).expanduser().absolute()
        self.max_bytes: int = _number("max_bytes", max_bytes, "bytes")
        self.max_age = _number("max_age", max_age, "seconds")
        self.close_timeout = _number("close_timeout", close_timeout, "seconds", least=0)
        self.wait_when_full = _number("wait_when_full", wait_when_full, "seconds", least=0)
        self.first_pause = _number("first_pause", first_pause, "seconds")
        self.longest_pause = _number("longest_pause", longest_pause, "seconds")
        if self.longest_pause < self.first_pause:
            raise DefinitionError(
                "EventProcessor: longest_pause= must not be shorter than first_pause="
            )
        _check_callable("on_receipt", on_receipt)
        _check_callable("transport", transport)
        self.on_receipt = on_receipt
        self.transport = transport


def _number(name: str, value: Any, unit: str, *, least: float | None = None) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
    if not is_number or (value <= 0 if least is None else value < least):
        given = value if is_number else type(value).__name__
        wanted = "above 0" if least is None else f"from {least} up"
        raise DefinitionError(
            f"EventProcessor: {name}= is a number of {unit} {wanted}, not {given}"
        )
    return value


def _check_callable(name: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise DefinitionError(
            f"EventProcessor: {name}= is something to call, or None, not {type(value).__name__}"
        )


def _path(name: str, value: Any) -> Any:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise DefinitionError(
            f"EventProcessor: {name}= is the path of a folder, or None, not {type(value).__name__}"
        )
    return value
