"""Clients of a server: with whichever parts a test gives them, sync and async."""

from __future__ import annotations

from typing import Any

import ldclient
import pytest
from event_server import EventServer
from ldclient import Config, LDClient

async_sdk = pytest.mark.skipif(
    tuple(map(int, ldclient.__version__.split(".")[:2])) < (9, 17),
    reason="this SDK has no async client",
)


def uris(url: str) -> dict[str, Any]:
    """The settings that send a client to *url*, whatever it does there."""
    return {"base_uri": url, "events_uri": url, "stream_uri": url}


def client_of(server: EventServer, **settings: Any) -> LDClient:
    """A client of the SDK's own, but for what *settings* say."""
    return LDClient(Config("sdk-key", **uris(server.url), **settings))


def async_client_of(url: str, **settings: Any) -> Any:
    """An async client of the SDK's own, without diagnostics, but for what *settings* say."""
    from ldclient.async_client import AsyncLDClient
    from ldclient.async_config import AsyncConfig

    return AsyncLDClient(AsyncConfig("sdk-key", **uris(url), diagnostic_opt_out=True, **settings))
