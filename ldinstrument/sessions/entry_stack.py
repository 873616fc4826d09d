"""Who entered: one scope object may be entered by many threads and asyncio tasks at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from .outcomes import current_task

T = TypeVar("T")


class EntryStack(list[tuple[int, Any, T]]):
    """What was entered and not left yet, each with the thread and task that entered it.

    It takes no lock: a thread that finds an entry taken by another one looks again.
    """

    __slots__ = ()

    def push(self, entered: T) -> None:
        """Note that this thread and task entered *entered*."""
        self.append((threading.get_ident(), current_task(), entered))

    def pop(  # type: ignore[override]
        self, preferred: Callable[[T], bool] | None = None
    ) -> T | None:
        """Take out what is left here: the innermost that this thread and task entered, else any.

        Args:
            preferred: tells which to take before others, of those entered here and elsewhere.
        """
        while latest := self[::-1]:
            found = latest[0] if len(latest) == 1 else _best(latest, preferred)
            try:
                self.remove(found)
            except ValueError:  # another thread left it meanwhile
                continue
            return found[2]
        return None


def _best(
    latest: list[tuple[int, Any, T]], preferred: Callable[[T], bool] | None
) -> tuple[int, Any, T]:
    here = threading.get_ident(), current_task()
    mine = [entry for entry in latest if entry[:2] == here]
    liked = [entry for entry in latest if preferred is not None and preferred(entry[2])]
    both = [entry for entry in liked if entry[:2] == here]
    return next(iter((*both, *mine, *liked, *latest)))


class Block(Protocol):
    """A run that a `with` block is: it begins and ends there."""

    def resume(self) -> None:
        """Note that the block's code is about to run."""

    def pause(self) -> None:
        """Note that the block's code has stopped."""

    def returned(self, result: Any) -> None:
        """End the run, without an exception."""

    def raised(self, error: BaseException) -> None:
        """End the run, out of which *error* came."""


B = TypeVar("B", bound=Block)


class BlockScope(Generic[B]):
    """A scope that can be entered with `with` and `async with`: reusable, and by many threads and
    tasks at once.
    """

    def __init__(self) -> None:
        self._runs: EntryStack[B] = EntryStack()

    def begin(self) -> B:
        """Begin a run that you end yourself, by `returned` or `raised`; it is nobody's current
        one.
        """
        raise NotImplementedError

    def __enter__(self) -> B:
        run = self.begin()
        run.resume()
        self._runs.push(run)
        return run

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run = self._runs.pop()
        if run is None:
            return
        run.pause()
        if error is None:
            run.returned(None)
        else:
            run.raised(error)

    async def __aenter__(self) -> B:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)
