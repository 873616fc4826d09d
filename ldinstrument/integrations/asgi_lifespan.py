"""ASGI, and so FastAPI, Starlette, Litestar: a session per request or websocket, and an orderly end
of the server.

```python
app = SessionMiddleware(app, context=lambda scope: scope["session"].get("user"))
app.add_middleware(SessionMiddleware, context=...)      # FastAPI and Starlette; add it last, so that it is outermost
```

Pure ASGI: a `BaseHTTPMiddleware` would miss streamed bodies and background tasks.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..sessions.current import set_current
from ..sessions.registry import end_open_sessions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class LifespanMiddleware:
    """Only the orderly end of the server: for an application whose sessions something inside it
    opens, such as Django's middleware.

    When the server stops, open sessions end as abandoned, every store is closed, and events are
    flushed.

    Args:
        app: the ASGI application.
        flush_timeout: seconds that the end of the server may wait for delivery.
    """

    def __init__(self, app: Application, *, flush_timeout: float = 2.0) -> None:
        self.app = app
        self.flush_timeout = flush_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the server's life."""
        if scope["type"] == "lifespan":
            await Lifespan(self.app, self.flush_timeout, _AllStores).run(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _AllStores:
    """Whatever stores this process has opened."""

    @staticmethod
    def close() -> None:
        keeping = sys.modules.get("ldinstrument.stores.session_store")
        if keeping is not None:
            keeping.close_all()


# -- the server's life -----------------------------------------------------------------------------


class Lifespan:
    """Ends open sessions and flushes before the server hears that shutdown is complete.

    Speaks for an application that knows no lifespan, which it shows by raising or returning before
    it listens.
    """

    def __init__(self, app: Application, flush_timeout: float, store: Any = None) -> None:
        self._app = app
        self._store = store
        self._flush_timeout = flush_timeout
        self._listened = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow the application through its life, or live in its place."""

        async def hear() -> Message:
            self._listened = True
            return await receive()

        async def tell(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._finish()
            await send(message)

        before = set_current(None)
        try:
            await self._app(scope, hear, tell)
        except Exception:
            if self._listened:
                raise
        finally:
            set_current(before)
        if not self._listened:
            await self._stand_in(receive, send)

    async def _stand_in(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._finish()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _finish(self) -> None:
        from ..delivery import aflush

        end_open_sessions("abandoned")
        if self._store is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._store.close)
        await aflush(self._flush_timeout)
