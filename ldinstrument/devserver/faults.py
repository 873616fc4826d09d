"""Faults on purpose: a status, a delay, a cut connection or half an answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

Headers = Mapping[str, str]


@dataclass(slots=True)
class InjectedFault:
    """What is to happen to matching requests.

    Args:
        route: the path, with `*` and `?` as wildcards, such as `/bulk` or `/api/v2/metrics/*`.
        status: answer this instead of what the server would say.
        times: how many requests it hits; None hits all.
        headers: response headers.
        body: response body.
        delay: seconds to wait before the answer.
        drop: cut the connection instead of answering, after the request was read; `"early"` cuts
            before its body is.
        truncate: send the headers and half of the body, then cut.
        after: let the server do its work first (the events are kept), then spoil the answer; not
            for streams, whose answer has no end.
        method: only this HTTP method.
        skip: let this many matching requests pass first.
        when: called with method, path, headers (lower case) and body; only requests for which it is
            true are hit.
    """

    route: str
    status: int | None = None
    times: int | None = 1
    headers: Headers = field(default_factory=dict)
    body: bytes | str = b""
    delay: float = 0.0
    drop: bool | str = False
    truncate: bool = False
    after: bool = False
    method: str | None = None
    skip: int = 0
    when: Callable[[str, str, Headers, bytes], bool] | None = None
    hits: int = 0

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is meant, before its body is known."""
        return (
            fnmatchcase(path, self.route)
            and self.method in (None, method)
            and (self.times is None or self.hits < self.times)
        )

    def label(self) -> str:
        """Return a word for the record of posts."""
        verb = "drop" if self.drop else "truncate" if self.truncate else str(self.status or "delay")
        return f"after:{verb}" if self.after else verb


class InjectedFaults:
    """The faults of a server: the first that matches a request is taken; usable from every
    thread.
    """

    def __init__(self) -> None:
        self._faults: list[InjectedFault] = []
        self._lock = threading.Lock()

    def add(self, fault: InjectedFault) -> InjectedFault:
        """Add a fault."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def remove(self, fault: InjectedFault) -> None:
        """Remove one fault; harmless when it is gone."""
        with self._lock:
            self._faults = [known for known in self._faults if known is not fault]

    def active(self) -> list[InjectedFault]:
        """Return the faults that may still hit a request."""
        return [
            fault
            for fault in tuple(self._faults)
            if fault.times is None or fault.hits < fault.times
        ]

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def wanted(self, method: str, path: str) -> bool:
        """Whether any fault may apply, so that requests without one cost nothing."""
        return any(fault.matches(method, path) for fault in tuple(self._faults))

    def take(
        self, method: str, path: str, headers: Headers, body: bytes | None
    ) -> InjectedFault | None:
        """Return the fault for this request, its use counted. `body=None` asks for those that do
        not need one.
        """
        with self._lock:
            for fault in self._faults:
                if (body is None) == (fault.drop == "early") and fault.matches(method, path):
                    if fault.when is not None and not fault.when(
                        method, path, headers, body or b""
                    ):
                        continue
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.hits += 1
                    return fault
        return None


Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]
OnFault = Callable[[str, dict[str, str], bytes, int, str], Any]


class FaultMiddleware:
    """ASGI: applies the faults in front of the application, outermost, where the connection itself
    is at hand.

    Args:
        app: what is spoilt.
        faults: what to do.
        record: told of each request that a fault answered: path, headers, body, status (0: none),
            label.
    """

    def __init__(self, app: Any, faults: InjectedFaults, record: OnFault):
        self.app = app
        self.faults = faults
        self.record = record
        self.stopping: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or do what a fault says; a client that leaves in the middle of its
        body is no error.
        """
        from starlette.requests import ClientDisconnect

        try:
            await self._serve(scope, receive, send)
        except ClientDisconnect:
            pass

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.faults.wanted(scope["method"], scope["path"]):
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        early = self.faults.take(scope["method"], scope["path"], headers, None)
        body = b"" if early else await _read(receive)
        fault = early or self.faults.take(scope["method"], scope["path"], headers, body)
        if fault is None:
            await self.app(scope, _again(body, receive), send)
        elif fault.after:
            await self._spoil_after(fault, scope, _again(body, receive), send)
        elif fault.label() == "delay":
            if await self._pause(fault.delay, send):
                await self.app(scope, _again(body, receive), send)
        else:
            await self.record(
                scope["path"],
                headers,
                body,
                0 if fault.drop else fault.status or 200,
                fault.label(),
            )
            await self._answer(fault, send, BufferedResponse())

    async def _spoil_after(
        self, fault: InjectedFault, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the server do its work, then answer something else."""
        answer = BufferedResponse()
        await self.app({**scope, "ldinstrument.fault": fault.label()}, receive, answer.take)
        await self._answer(fault, send, answer)

    async def _pause(self, seconds: float, send: Send) -> bool:
        """Wait; False when the server stops meanwhile, and the connection is cut."""
        if self.stopping is None or seconds <= 0:
            return True
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except asyncio.TimeoutError:
            return True
        _cut(send)
        return False

    async def _answer(self, fault: InjectedFault, send: Send, answer: BufferedResponse) -> None:
        if not await self._pause(fault.delay, send):
            return
        if fault.drop:
            _cut(send)
            return
        answer.spoil(fault)
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
        )
        if fault.truncate:
            await send(
                {
                    "type": "http.response.body",
                    "body": answer.body[: len(answer.body) // 2],
                    "more_body": True,
                }
            )
            await asyncio.sleep(0.01)  # let the half answer leave before the connection is cut
            _cut(send)
        else:
            await send({"type": "http.response.body", "body": answer.body})


class BufferedResponse:
    """The answer that the server would have given, and what a fault makes of it."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def take(self, message: dict[str, Any]) -> None:
        """`send` for the application."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def spoil(self, fault: InjectedFault) -> None:
        """Replace status and body where the fault names them; a truncated answer promises more than
        it brings.
        """
        if fault.status is not None:
            self.status, self.headers, self.body = fault.status, [], b""
        if fault.body:
            self.body = fault.body.encode() if isinstance(fault.body, str) else fault.body
        kept = [pair for pair in self.headers if pair[0].lower() != b"content-length"]
        self.headers = [
            *kept,
            *((name.lower().encode(), value.encode()) for name, value in fault.headers.items()),
        ]
        if self.status not in (204, 304):
            length = len(self.body) or (2 if fault.truncate else 0)
            self.headers.append((b"content-length", str(length).encode()))


def _cut(send: Send) -> None:
    """Abort the TCP connection.

    uvicorn's `send` is a method of the cycle that holds the transport; ASGI itself has no word for
    "no answer at all".
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("this ASGI server does not let a fault cut the connection")
    transport.abort()


async def _read(receive: Receive) -> bytes:
    chunks = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(chunks)


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` that gives the body once more, then what the connection says."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return messages.pop() if messages else await receive()

    return replay
