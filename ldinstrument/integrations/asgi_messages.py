"""The messages of one HTTP request or websocket, watched for what they say about its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ..sessions.control_flow import SERVER_ERRORS
from .asgi_lifespan import Message, Receive, Send
from .request_session import RequestSession

Marking: TypeAlias = Callable[[Message], Message]
"""Returns the message that begins a response with the headers that it has to carry, too."""

_BODY = ("http.response.body", "http.response.zerocopysend")
_WHOLE_BODY = "http.response.pathsend"


class HTTPMessages:
    """The messages of one HTTP request.

    Args:
        request: notes the status and the outcome.
        receive: the server's.
        send: the server's.
        mark: see `Marking`; None where there is nothing to carry.
        finish: ends the session; called just before the last byte of a logout.
    """

    def __init__(
        self,
        request: RequestSession,
        receive: Receive,
        send: Send,
        mark: Marking | None,
        finish: Callable[[], Awaitable[None]],
    ) -> None:
        self._request = request
        self._receive = receive
        self._send = send
        self._mark = mark
        self._finish = finish

    async def receive(self) -> Message:
        """Receive a message for the application."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._disconnected()
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        request, kind = self._request, message["type"]
        if kind == "http.response.start":
            request.status = int(message["status"])
            if self._mark is not None:
                message = self._mark(message)
        is_last = kind == _WHOLE_BODY or (kind in _BODY and not message.get("more_body", False))
        if is_last and request.ends_visit:
            # Whoever has read it, and asks for a page, begins the next visit.
            request.set_outcome()
            await self._finish()
        try:
            await self._send(message)
        except OSError:  # how a server says that nobody reads any more
            self._disconnected()
            raise
        if is_last:
            request.set_outcome()

    def _disconnected(self) -> None:
        """Note that the client has left; after the last byte that changes nothing."""
        if self._request.bodiless and self._request.status:
            self._request.returned()  # Hypercorn says so after the head, which was all
        else:
            self._request.disconnected()

    def stopped(self) -> None:
        """Note that the application has returned; without the end of a response that is a
        failure.
        """
        self._request.aborted()


class WebSocketMessages:
    """The messages of one websocket.

    Args:
        request: notes the status and the outcome.
        receive: the server's.
        send: the server's.
        mark: see `Marking`; None where there is nothing to carry.
    """

    def __init__(
        self, request: RequestSession, receive: Receive, send: Send, mark: Marking | None
    ) -> None:
        self._request = request
        self._receive = receive
        self._send = send
        self._mark = mark

    async def receive(self) -> Message:
        """Receive a message for the application."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._request.returned()
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        kind = message["type"]
        if self._mark is not None and kind == "websocket.accept":
            message = self._mark(message)
        try:
            await self._send(message)
        except OSError:
            self._request.returned()
            raise
        if kind == "websocket.accept":
            self._request.status = 101
        elif kind == "websocket.http.response.start":
            self._request.status = int(message["status"])
        elif kind == "websocket.close":
            self._closed(message)

    def _closed(self, message: Message) -> None:
        self._request.status = self._request.status or 403
        if message.get("code", 1000) in SERVER_ERRORS:
            self._request.aborted()
        else:
            self._request.returned()

    def stopped(self) -> None:
        """Note that the application has returned, which closes the socket."""
        self._request.returned()
