"""Who entered: one scope object may be entered by many threads and asyncio tasks at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from .outcomes import current_task

T = TypeVar("T")


class EntryStack(Generic[T]):
    """What was entered and not left yet, each with the thread and task that entered it."""

    __slots__ = ("_entries", "_lock")

    def __init__(self) -> None:
        self._entries: list[tuple[tuple[int, object], T]] = []
        self._lock = threading.RLock()

    def push(self, entered: T) -> None:
        """Note that this thread and task entered *entered*."""
        with self._lock:
            self._entries.append((_here(), entered))

    def pop(self, preferred: Callable[[T], bool] | None = None) -> T | None:
        """Take out what is left here: the innermost that this thread and task entered, else any.

        Args:
            preferred: tells which to take before others, of those entered here and elsewhere.
        """
        with self._lock:
            here = _here()
            latest = self._entries[::-1]
            mine = [entry for entry in latest if entry[0] == here]
            liked = [entry for entry in latest if preferred is not None and preferred(entry[1])]
            both = [entry for entry in liked if entry[0] == here]
            for entry in (*both, *mine, *liked, *latest):
                self._entries.remove(entry)
                return entry[1]
            return None

    def __len__(self) -> int:
        return len(self._entries)


def _here() -> tuple[int, object]:
    return threading.get_ident(), current_task()
