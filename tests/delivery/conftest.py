"""Fixtures: a hostile server, a client that delivers to it, an empty ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ldclient import LDClient

from ldinstrument.delivery.memory_spool import memory_spool
from ldinstrument.diagnostics import diagnostics
from ldinstrument.ledger import ledger
from ldinstrument.sessions import emission

sys.path.insert(0, str(Path(__file__).parent))
import faults
from event_server import EventServer


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in (
        "http_proxy",
        "https_proxy",
        "LDINSTRUMENT_URL",
        "LDINSTRUMENT_DISABLED",
        "LAUNCHDARKLY_SDK_KEY",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    ledger.clear()
    diagnostics.clear()
    emission.forget()
    memory_spool.clear()
    yield
    ledger.clear()
    diagnostics.clear()
    emission.forget()
    memory_spool.clear()


@pytest.fixture(name="server")
def _server() -> Iterator[EventServer]:
    with EventServer() as server:
        yield server


@pytest.fixture(name="make")
def _make(server: EventServer) -> Iterator[Callable[..., LDClient]]:
    """`make(**options)`: a client with our event processor; closed at the end."""
    made: list[LDClient] = []

    def make(**options: Any) -> LDClient:
        made.append(LDClient(faults.config(server.url, **options)))
        return made[-1]

    yield make
    server.vanish()
    for client in made:
        client.close()


@pytest.fixture(name="client")
def _client(make: Callable[..., LDClient]) -> LDClient:
    return make(flush_interval=3600)
