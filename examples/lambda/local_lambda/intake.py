"""An events server like LaunchDarkly's: `POST /bulk` behind TLS, a long way off.

TLS and the way matter. On plain loopback the kernel takes a whole request in one go, so an event of
a frozen process still arrives, and a broken flush looks sound. Behind a proxy that adds a round
trip per exchange, the handshake alone needs several of them, and what was not finished before the
freeze is seen to be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar


@dataclass(frozen=True)
class Payload:
    """One POST that the server read completely; `received` is `time.monotonic()` at its end."""

    payload_id: str
    events: list[dict[str, Any]]
    received: float
    status: int


class Intake:
    """Takes events over TLS at `uri`, as a context manager.

    Args:
        folder: where the certificate and its key are made (they live as long as the folder).
        round_trip: seconds that the network takes for a question and its answer; 0 for none.
        status: what to answer, given the number of the POST (1, 2, ...); 202 always unless told
            otherwise.
    """

    def __init__(
        self,
        folder: Path,
        *,
        round_trip: float = 0.04,
        status: Callable[[int], int] = lambda number: 202,
    ):
        self.payloads: list[Payload] = []
        self.status = status
        self.certificate = certificate(folder)
        handler = type("Handler", (_Handler,), {"intake": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.tls.load_cert_chain(self.certificate, self.certificate.with_suffix(".key"))
        port = self._server.server_address[1]
        self.way = Distance(port, round_trip / 2) if round_trip else None
        self.uri = f"https://127.0.0.1:{self.way.port if self.way else port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def events(self, key: str | None = None) -> list[dict[str, Any]]:
        """The custom events that arrived with a good answer, a payload id counted once; of one
        event *key*, or all.
        """
        seen = {
            payload.payload_id: payload
            for payload in reversed(self.payloads)
            if payload.status < 300
        }
        return [
            {**event, "received": payload.received}
            for payload in sorted(seen.values(), key=lambda payload: payload.received)
            for event in payload.events
            if event["kind"] == "custom" and key in (None, event["key"])
        ]

    @property
    def duplicates(self) -> int:
        """How many accepted POSTs carried a payload id that had been accepted before."""
        accepted = [payload.payload_id for payload in self.payloads if payload.status < 300]
        return len(accepted) - len(set(accepted))

    def __enter__(self) -> Intake:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self.way:
            self.way.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]):
        super().__init__(address, handler)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake belongs into the connection's own thread: a frozen client would stop the
        # others.
        with self.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed client leaves half a handshake or half a request: nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    intake: ClassVar[Intake]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        events = json.loads(body) if self.path == "/bulk" else []
        status = self.intake.status(len(self.intake.payloads) + 1)
        identifier = self.headers.get("X-LaunchDarkly-Payload-ID", "")
        self.intake.payloads.append(Payload(identifier, events, time.monotonic(), status))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: `Intake.payloads` is the record."""


class Distance:
    """A TCP proxy on loopback that delivers every byte *delay* seconds late, each way."""

    def __init__(self, target: int, delay: float):
        self._target = target
        self._delay = delay
        self._loop = asyncio.new_event_loop()
        self._epoch = 0
        self._resets = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._connect, "127.0.0.1", 0)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        epoch, under_way = self._epoch, asyncio.Queue[tuple[float, bytes]]()
        self._writers.add(writer)
        arrivals = asyncio.create_task(self._arrive(under_way, writer))
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if epoch < self._epoch:
                    self._into_the_void()
                    continue
                under_way.put_nowait((self._loop.time() + self._delay, data))
        under_way.put_nowait((self._loop.time() + self._delay, b""))
        await arrivals

    async def _arrive(
        self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    def hang_up(self) -> None:
        """Close every connection, as a server does with idle ones; both ends learn of it."""
        for writer in tuple(self._writers):
            self._loop.call_soon_threadsafe(writer.close)

    def forget(self, *, resets: bool = False) -> None:
        """Deliver nothing more over today's connections, as a gateway after some idle minutes.

        Args:
            resets: answer what still comes over them with a reset (AWS's NAT gateway); without,
                silence.
        """
        self._epoch += 1
        self._resets = resets

    def _into_the_void(self) -> None:
        if self._resets:
            for writer in tuple(self._writers):
                writer.transport.abort()

    def close(self) -> None:
        """Close the door and every connection."""
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 in *folder*, with its key beside it; both are for this run
    only.
    """
    path = folder / "127.0.0.1.pem"
    command = [
        *("openssl", "req", "-x509", "-nodes", "-days", "1"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-out", str(path), "-keyout", str(path.with_suffix(".key"))),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        raise SystemExit(
            "the local run makes its TLS certificate with openssl; install the openssl command"
        ) from None
    return path
