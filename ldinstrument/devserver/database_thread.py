"""Where the database work of the server is done: two threads beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseThread:
    """One thread that writes, in the order of the requests, and one for what takes long to read.

    So a burst of events never blocks the streams, and a read-out never makes a POST wait.
    """

    def __init__(self) -> None:
        self._writer: ThreadPoolExecutor | None = None
        self._reader: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Get ready; the threads themselves start with the first calls."""
        self._writer = ThreadPoolExecutor(1, "ldinstrument-devserver-database")
        self._reader = ThreadPoolExecutor(1, "ldinstrument-devserver-reader")

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        for executor in (self._writer, self._reader):
            if executor is not None:
                executor.shutdown(wait=True, cancel_futures=True)
        self._writer = self._reader = None

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in the thread that writes."""
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, lambda: function(*args, **kwargs)
        )

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in the thread that reads."""
        return await asyncio.get_running_loop().run_in_executor(
            self._reader, lambda: function(*args, **kwargs)
        )
