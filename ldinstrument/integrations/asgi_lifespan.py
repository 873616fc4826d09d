"""ASGI's lifespan: an orderly end of the server, with open sessions ended and events delivered."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..process import on_termination_of_multiprocessing_child
from ..sessions.current import set_current
from .request_session import RequestSession, end_requests

if TYPE_CHECKING:
    from ..stores import SessionStore

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_REQUESTS = "ldinstrument.open_requests"
"""Where the scope carries what `LifespanMiddleware` has to end: a set of `RequestSession`."""


class LifespanMiddleware:
    """Gives an application whose sessions something inside it opens, such as Django's middleware,
    an orderly end of the server, and nothing else.

    When the server stops, the sessions of its requests end as abandoned, every store is closed that
    no other server of this process uses, and events are flushed. When it starts once more, those
    stores go on.

    Args:
        app: the ASGI application.
        flush_timeout: seconds that the end of the server may wait for delivery.
    """

    def __init__(self, app: Application, *, flush_timeout: float = 2.0) -> None:
        self.app = app
        self.flush_timeout = flush_timeout
        self._open: WeakSet[RequestSession] = WeakSet()
        self._held: list[SessionStore] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the server's life."""
        if scope["type"] == "lifespan":
            lifespan = Lifespan(
                self.app, self._end_open, self._close_stores, self.flush_timeout, self._hold_stores
            )
            await lifespan.run(scope, receive, send)
        else:
            scope[OPEN_REQUESTS] = self._open
            await self.app(scope, receive, send)

    def _end_open(self) -> None:
        end_requests(self._open)

    def _hold_stores(self) -> None:
        """Hold whatever stores this process has opened, or an earlier life has closed."""
        self._held = list({*self._held, *_open_stores()})
        for store in self._held:
            store.hold()

    def _close_stores(self) -> None:
        for store in self._held:
            store.release()
        for store in _open_stores():
            store.close_unheld()


def _open_stores() -> list[SessionStore]:
    session_store = sys.modules.get("ldinstrument.stores.session_store")
    return [] if session_store is None else session_store.open_stores()


class Lifespan:
    """Ends open sessions and flushes before the server hears that shutdown is complete.

    Speaks for an application that knows no lifespan, which it shows by raising or returning before
    it listens.

    Args:
        app: the application.
        end_open: ends the sessions that are open.
        close_stores: closes stores; may wait, and so runs on a thread.
        hold_stores: says that a server has started which uses them; the opposite of
            *close_stores*.
        flush_timeout: seconds for the delivery.
    """

    def __init__(
        self,
        app: Application,
        end_open: Callable[[], None],
        close_stores: Callable[[], None] | None,
        flush_timeout: float,
        hold_stores: Callable[[], None] | None = None,
    ) -> None:
        self._app = app
        self._end_open = end_open
        self._close_stores = close_stores
        self._hold_stores = hold_stores
        self._flush_timeout = flush_timeout
        self._listened = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow the application through its life, or live in its place."""

        async def listening() -> Message:
            self._listened = True
            return self._heard(await receive())

        async def finishing(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._finish()
            await send(message)

        before = set_current(None)
        try:
            await self._app(scope, listening, finishing)
        except Exception:
            if self._listened:
                raise
        finally:
            set_current(before)
        if not self._listened:
            await self._stand_in(receive, send)

    def _heard(self, message: Message) -> Message:
        if message["type"] == "lifespan.startup":
            longest = self._flush_timeout + 1.0
            on_termination_of_multiprocessing_child(self._finish_now, longest)
            if self._hold_stores is not None:
                self._hold_stores()
        return message

    def _finish_now(self) -> None:
        """End and deliver where no shutdown will come: a worker that is about to be terminated."""
        from ..delivery import flush

        self._end_open()
        flush(self._flush_timeout)

    async def _stand_in(self, receive: Receive, send: Send) -> None:
        while True:
            message = self._heard(await receive())
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._finish()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _finish(self) -> None:
        from ..delivery import aflush

        self._end_open()
        if self._close_stores is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._close_stores)
        await aflush(self._flush_timeout)
