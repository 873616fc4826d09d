"""Where the database work of the server is done: one thread beside the event loop, in the order of
the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from .database import Database

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseThread:
    """One worker thread over the database, so that a burst of events never blocks the streams and the
    page.
    """

    def __init__(self, database: Database):
        self.database = database
        self._executor: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Get ready; the thread itself starts with the first call."""
        self._executor = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="ldinstrument-devserver-database"
        )

    def close(self) -> None:
        """Finish what was begun and end the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in the worker thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: function(*args, **kwargs)
        )
