"""A hostile event server on loopback: real sockets, and every way to fail that LaunchDarkly's
intake could show.

It counts as LaunchDarkly does: a payload counts once, however often its id arrives.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import socket
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Post:
    """One POST that arrived."""

    payload_id: str
    key: str
    body: bytes
    status: int


@dataclass
class Answering:
    """What to do with the next posts; `times` None means all of them.

    `stall`: read and never answer; `reset`: cut in the middle of the answer's reading; `late`:
        answer after seconds;
    `status`, `headers`: answer that; `largest`: 413 above so many events; `good_key`: 401 for any
        other.
    """

    status: int = 202
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None
    stall: bool = False
    reset: bool = False
    late: float = 0.0
    largest: int | None = None
    good_key: str | None = None
    counts: bool = True


class EventServer:
    """`with EventServer() as server: ... server.url ... server.keys()`."""

    def __init__(
        self, port: int = 0, tls: tuple[str, str] | None = None, delay: float = 0.0
    ) -> None:
        self.port = port
        self.posts: list[Post] = []
        self.plan: list[Answering] = []
        self._delay = delay
        self._lock = threading.Lock()
        self._tls = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*tls)
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._accepting = threading.Thread()

    def __enter__(self) -> EventServer:
        self.listen()
        return self

    def __exit__(self, *exc: object) -> None:
        self.vanish()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Come (back) to the same port."""
        listener = _bound(self.port)
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._accepting.start()

    def vanish(self) -> None:
        """Refuse from now on, and cut every connection."""
        if self._listener is not None:
            stop_accepting(self._listener, self._accepting)
            self._listener = None
        with self._lock:
            connections, self._open = list(self._open), set()
        for connection in connections:
            _close(connection)

    def answer(self, **how: object) -> Answering:
        """Plan how the next posts are answered; the plans are used up in order, the last one
        without `times` stays.
        """
        plan = Answering(**how)  # type: ignore[arg-type]
        with self._lock:
            self.plan.append(plan)
        return plan

    def behave(self) -> None:
        """PostResult 202 from now on."""
        with self._lock:
            self.plan.clear()

    # -- what arrived ------------------------------------------------------------------------------
    def taken(self) -> list[dict[str, object]]:
        """The custom events that LaunchDarkly would count."""
        seen: dict[str, bytes] = {}
        with self._lock:
            for post in self.posts:
                if post.status == 202:
                    seen.setdefault(post.payload_id, post.body)
        return [
            event
            for body in seen.values()
            for event in json.loads(body)
            if event["kind"] == "custom"
        ]

    def keys(self) -> Counter[str]:
        """How often each event key counts."""
        return Counter(str(event["key"]) for event in self.taken())

    def posts_per_payload(self) -> Counter[str]:
        with self._lock:
            return Counter(post.payload_id for post in self.posts)

    def same_bytes(self) -> bool:
        """Whether each payload id always came with the same bytes."""
        with self._lock:
            bodies: dict[str, set[bytes]] = {}
            for post in self.posts:
                bodies.setdefault(post.payload_id, set()).add(post.body)
        return all(len(found) == 1 for found in bodies.values())

    # -- sockets -----------------------------------------------------------------------------------
    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls:
                time.sleep(self._delay)
                connection = self._tls.wrap_socket(connection, server_side=True)
            stream = connection.makefile("rb")
            while self._one(connection, stream):
                pass
        except (OSError, ValueError):
            pass
        finally:
            _close(connection)

    def _one(self, connection: socket.socket, stream: object) -> bool:
        head = _head(stream)
        if not head:
            return False
        plan = self._next_plan()
        stalls = plan.stall  # may be changed while this post is being judged
        size = int(head.get("content-length", "0"))
        if plan.reset:
            stream.read(size // 2)  # type: ignore[attr-defined]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        body = stream.read(size)  # type: ignore[attr-defined]
        if len(body) < size:  # cut on the way: no server counts what it has not read
            return False
        time.sleep(self._delay)
        status = self._judge(plan, head, body, 0 if stalls and not plan.counts else None)
        if stalls:
            time.sleep(3600)
        time.sleep(plan.late)
        extra = "".join(f"{name}: {value}\r\n" for name, value in plan.headers.items())
        connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{extra}\r\n".encode())
        return True

    def _judge(
        self, plan: Answering, head: dict[str, str], body: bytes, counted: int | None
    ) -> int:
        text = gzip.decompress(body) if head.get("content-encoding") == "gzip" else body
        status = plan.status
        if plan.good_key is not None and head.get("authorization") != plan.good_key:
            status = 401
        if plan.largest is not None and len(json.loads(text)) > plan.largest:
            status = 413
        with self._lock:
            payload_id = head.get("x-launchdarkly-payload-id", "")
            taken = status if counted is None else counted
            self.posts.append(Post(payload_id, head.get("authorization", ""), text, taken))
        return status

    def _next_plan(self) -> Answering:
        with self._lock:
            while self.plan:
                plan = self.plan[0]
                if plan.times is None:
                    return plan
                if plan.times > 0:
                    plan.times -= 1
                    return plan
                self.plan.pop(0)
            return Answering()


class DrippingServer:
    """A server, or a proxy, that answers every request a byte at a time and never comes to an
    end.
    """

    def __init__(self, opening: bytes = b"HTTP/1.1 202 OK\r\nX-Drip: ") -> None:
        self._opening = opening
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        try:
            connection.recv(65536)
            connection.sendall(self._opening)
            while True:
                time.sleep(0.02)
                connection.sendall(b"x")
        except OSError:  # the client has had enough
            connection.close()

    def close(self) -> None:
        """Take no further connection."""
        stop_accepting(self._listener, self._accepting)


def stop_accepting(listener: socket.socket, thread: threading.Thread) -> None:
    """Close *listener* when the *thread* that accepts on it has ended.

    Closed under it, the number of the file may be the next server's, and the thread, woken by a
    signal, would take that server's connections.
    """
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def _bound(port: int) -> socket.socket:
    """A socket on *port*, or on one below those that the kernel gives away: nobody takes it while
    we are gone, for each process of pytest's has ports of its own.
    """
    process = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    ports = range(int(process) % 10 + 22_000, 32_000, 10) if process else range(22_000, 32_000)
    while True:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port or random.SystemRandom().choice(ports)))
        except OSError:
            listener.close()
            if port:
                raise
        else:
            return listener


def _head(stream: object) -> dict[str, str]:
    lines = []
    while (line := stream.readline().strip()) or not lines:  # type: ignore[attr-defined]
        if not line:
            return {}
        lines.append(line.decode("latin-1"))
    return {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
    }


def _close(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()
