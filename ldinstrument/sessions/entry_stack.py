"""Who entered: one scope object may be entered by many threads and asyncio tasks at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .outcomes import current_task

T = TypeVar("T")


class EntryStack(Generic[T]):
    """What was entered and not left yet, each with the thread and task that entered it.

    It takes no lock: a thread that finds an entry taken by another one looks again.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[int, Any, T]] = []

    def push(self, entered: T) -> None:
        """Note that this thread and task entered *entered*."""
        self._entries.append((threading.get_ident(), current_task(), entered))

    def pop(self, preferred: Callable[[T], bool] | None = None) -> T | None:
        """Take out what is left here: the innermost that this thread and task entered, else any.

        Args:
            preferred: tells which to take before others, of those entered here and elsewhere.
        """
        while latest := self._entries[::-1]:
            found = latest[0] if len(latest) == 1 else _best(latest, preferred)
            try:
                self._entries.remove(found)
            except ValueError:  # another thread left it meanwhile
                continue
            return found[2]
        return None

    def __len__(self) -> int:
        return len(self._entries)


def _best(
    latest: list[tuple[int, Any, T]], preferred: Callable[[T], bool] | None
) -> tuple[int, Any, T]:
    here = threading.get_ident(), current_task()
    mine = [entry for entry in latest if entry[:2] == here]
    liked = [entry for entry in latest if preferred is not None and preferred(entry[2])]
    both = [entry for entry in liked if entry[:2] == here]
    return next(iter((*both, *mine, *liked, *latest)))
