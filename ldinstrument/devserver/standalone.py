"""The local LaunchDarkly as a process of its own: what `ldinstrument dev` runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis import load_statistics
from ..errors import MissingExtra
from .database import Document
from .flags.flags import parse_experiment
from .server import LocalLaunchDarkly, given_flags

if TYPE_CHECKING:
    from .page.page import Visits

DEFAULT_PORT = 8030
SWITCH_SECONDS = 0.001
"""How soon a thread that receives a POST gets its turn while another one computes."""


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    db: str | Path | None = None,
    flags: Iterable[Document] | str | Path = (),
    *,
    experiments: Iterable[str] = (),
    visits: Visits | None = None,
    ready: Callable[[LocalLaunchDarkly], Any] | None = None,
    until: threading.Event | None = None,
) -> None:
    """Run a local LaunchDarkly until Ctrl-C (or until the event is set).

    The process is taken to be its own: threads are switched more often than Python does by itself.

    Args:
        host: the address to bind.
        port: the port, 0 for a free one.
        db: see `LocalLaunchDarkly`.
        flags: see `LocalLaunchDarkly`.
        experiments: further flags, each as `KEY=VARIATION,VARIATION`.
        visits: see `LocalLaunchDarkly`.
        ready: called once it answers, to print the address.
        until: ends it from another thread.
    """
    given = given_flags(flags, ())
    given.extend(parse_experiment(text) for text in experiments)
    local = LocalLaunchDarkly(port, db, given, host=host, visits=visits)
    ended = until or threading.Event()
    with _owned_process(), closing(local), local, suppress(KeyboardInterrupt):
        if ready is not None:
            ready(local)
        while not ended.wait(0.5):
            pass


@contextmanager
def _owned_process() -> Iterator[None]:
    """Make sure that no POST waits: for scipy's import, or for a thread that computes."""
    with suppress(MissingExtra):
        load_statistics()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
