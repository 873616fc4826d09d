"""A local LaunchDarkly for the control half's tests, a clean environment, and a server that plays a
script.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.diagnostics import diagnostics
from ldinstrument.ledger import ledger
from ldinstrument.metrics.catalogs import catalog
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS
from ldinstrument.rest import MetricsAPI

TOKEN = "api-0f1e2d3c-very-secret"  # made up; tests grep for it


@pytest.fixture(autouse=True)
def _clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No token, host or home of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith(("LAUNCHDARKLY_", "LD_", "LDINSTRUMENT_")) or name.lower().endswith(
            "_proxy"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _clean_globals() -> Iterator[None]:
    """The default catalog has the standard metrics only, whatever other tests' modules declare;
    then all is back.
    """
    metrics = list(catalog)
    catalog.clear()
    catalog.add(*STANDARD_METRICS)
    yield
    catalog.forget_callbacks()
    catalog.clear()
    catalog.add(*metrics)
    ledger.clear()
    diagnostics.clear()
    diagnostics.strict = False


@pytest.fixture(name="token")
def _token() -> str:
    return TOKEN


@pytest.fixture(name="server", scope="session")
def _server() -> Iterator[LocalLaunchDarkly]:
    with LocalLaunchDarkly() as server:
        yield server


@pytest.fixture(name="ld")
def _ld(server: LocalLaunchDarkly) -> Iterator[LocalLaunchDarkly]:
    """The local LaunchDarkly, empty."""
    server.reset()
    yield server
    server.reset()


@pytest.fixture(name="waits")
def _waits() -> list[float]:
    """The seconds that the client wanted to wait; it does not."""
    return []


@pytest.fixture(name="api")
def _api(ld: LocalLaunchDarkly, waits: list[float]) -> Iterator[MetricsAPI]:
    with MetricsAPI("default", token=TOKEN, base_uri=ld.url, sleep=waits.append) as api:
        yield api


@pytest.fixture(name="latency")
def _latency() -> Metric:
    return Metric("checkout.latency", unit="milliseconds", success_criteria="LowerThanBaseline")


class Script:
    """A server of raw bytes: each connection gets the next answer; what was asked is kept."""

    def __init__(self, *answers: bytes | Callable[[socket.socket], None]) -> None:
        self.requests: list[bytes] = []
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(60)
                self.requests.append(_request(connection))
                answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
                try:
                    if callable(answer):
                        answer(connection)
                    else:
                        connection.sendall(answer)
                except OSError:
                    pass  # the client has gone, which is what some tests are about

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._listener.close()


def _request(connection: socket.socket) -> bytes:
    seen = b""
    while b"\r\n\r\n" not in seen:
        piece = connection.recv(65536)
        if not piece:
            break
        seen += piece
    head, _, body = seen.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ),
        0,
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture(name="script")
def _script() -> Iterator[Callable[..., Script]]:
    started: list[Script] = []

    def start(*answers: Any) -> Script:
        started.append(Script(*answers))
        return started[-1]

    yield start
    for server in started:
        server.stop()
