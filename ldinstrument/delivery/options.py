"""Options of an `EventProcessor`, beyond the SDK's own configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backoff import FIRST_PAUSE, LONGEST_PAUSE
from ..errors import DefinitionError
from ..process import may_end_without_exit
from ..values import above_zero, callable_or_none, from_zero

if TYPE_CHECKING:
    from .flush_report import Receipt
    from .transport import Transport


LONGEST_WITHOUT_AN_EXIT = 0.25


def flush_interval(config: Any) -> float:
    """Return the seconds after which events leave: the SDK's, but a quarter of one where a server
    ends the process, or this interpreter in it, without Python's exit hooks.
    """
    seconds: float = config.flush_interval
    return min(seconds, LONGEST_WITHOUT_AN_EXIT) if may_end_without_exit() else seconds


class Options:
    """Bounds and seams of one event processor.

    Args:
        spool: a folder in which undelivered events outlive the process; None keeps them in memory
            only.
        max_bytes: how many bytes of payloads wait that LaunchDarkly did not take, in memory and in
            the spool; and how many characters of events wait to become payloads.
        max_age: how long it waits, in seconds; in a spool, too.
        close_timeout: how long `close()` and the interpreter's exit may take, in seconds.
        wait_when_full: how long `track` may wait for room when *max_bytes* of events wait to become
            payloads, in seconds, besides the fifth of a second after events last left the queue
            that slows a burst down; never on an event loop.
        first_pause: the first pause after a failure, in seconds; it doubles.
        longest_pause: the longest one.
        on_receipt: called with each `Receipt`, on a thread of ours; must not wait.
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
        self.spool = None if spool is None else _folder(spool)
        self.max_bytes: int = above_zero(_of("max_bytes"), max_bytes, "bytes")
        self.max_age = above_zero(_of("max_age"), max_age)
        self.close_timeout = from_zero(_of("close_timeout"), close_timeout)
        self.wait_when_full = from_zero(_of("wait_when_full"), wait_when_full)
        self.first_pause = above_zero(_of("first_pause"), first_pause)
        self.longest_pause = above_zero(_of("longest_pause"), longest_pause)
        if self.longest_pause < self.first_pause:
            raise DefinitionError(
                "EventProcessor: longest_pause= must not be shorter than first_pause="
            )
        self.on_receipt = callable_or_none(_of("on_receipt"), on_receipt)
        self.transport = callable_or_none(_of("transport"), transport)


def _of(option: str) -> str:
    return f"EventProcessor: {option}="


def _folder(given: Any) -> Path:
    """Return the absolute path of the folder *given*.

    Raises:
        DefinitionError: it is no path.
    """
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
        raise DefinitionError(
            f"{_of('spool')} is the path of a folder, or None, not {type(given).__name__}"
        )
    return Path(given).expanduser().absolute()
