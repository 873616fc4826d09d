"""The messages of one HTTP request or websocket, watched for what they say about its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..sessions.control_flow import SERVER_ERRORS
from .asgi_lifespan import Message, Receive, Send
from .request_session import RequestSession


class HTTPMessages:
    """The messages of one HTTP request.

    Args:
        request: notes the status and the outcome.
        receive: the server's.
        send: the server's.
        finish: ends the session; called just before the last byte of a logout.
    """

    def __init__(
        self,
        request: RequestSession,
        receive: Receive,
        send: Send,
        finish: Callable[[], Awaitable[None]],
    ) -> None:
        self._request = request
        self._receive = receive
        self._send = send
        self._finish = finish

    async def receive(self) -> Message:
        """Receive a message for the application."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._disconnected()
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        if message["type"] == "http.response.start":
            self._request.status = int(message["status"])
        if self._request.ends_visit and _is_last(message):
            # Whoever has read it, and asks for a page, begins the next visit.
            self._request.returned()
            await self._finish()
        try:
            await self._send(message)
        except OSError:  # how a server says that nobody reads any more
            self._disconnected()
            raise
        if _is_last(message):
            self._request.returned()

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


def _is_last(message: Message) -> bool:
    kind = message["type"]
    if kind in ("http.response.body", "http.response.zerocopysend"):
        return not message.get("more_body", False)
    return bool(kind == "http.response.pathsend")


class WebSocketMessages:
    """The messages of one websocket.

    Args:
        request: notes the status and the outcome.
        receive: the server's.
        send: the server's.
    """

    def __init__(self, request: RequestSession, receive: Receive, send: Send) -> None:
        self._request = request
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """Receive a message for the application."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._request.returned()
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        try:
            await self._send(message)
        except OSError:
            self._request.returned()
            raise
        kind = message["type"]
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
