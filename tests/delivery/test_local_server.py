"""`LDINSTRUMENT_URL`: every client talks to the local LaunchDarkly, or it is said loudly."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import ldclient
import pytest
from event_server import DrippingServer
from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig

from ldinstrument.delivery import (
    EventProcessor,
    Plugin,
    aflush,
    attach,
    flush,
    launchdarkly_config,
)
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.diagnostics import diagnostics

CONTEXT = Context.builder("u-1").name("Ana").build()


@pytest.fixture(name="local")
def _local(monkeypatch) -> Any:
    with LocalLaunchDarkly(flags=[experiment_flag("exp", ["old", "new"])]) as local:
        monkeypatch.setenv("LDINSTRUMENT_URL", local.url)
        yield local


def _ours(**options: Any) -> dict[str, Any]:
    return {"plugins": [Plugin()], "event_processor_class": EventProcessor, **options}


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "polling"])
def test_a_client_with_its_own_config_talks_to_it(local, stream):
    """Flags come from there, and events go there."""
    client = LDClient(Config("sdk-key", stream=stream, **_ours()), start_wait=20)
    assert client.variation("exp", CONTEXT, None) in ("old", "new")
    client.track("a", CONTEXT)
    assert flush(20.0, client).delivered == 1
    client.close()


@pytest.mark.skipif(
    tuple(map(int, ldclient.__version__.split(".")[:2])) < (9, 17),
    reason="this SDK has no async client",
)
def test_an_async_client_with_its_own_config_talks_to_it(local):
    """The same `AsyncConfig` that would talk to LaunchDarkly."""
    from ldclient.async_client import AsyncLDClient
    from ldclient.async_config import AsyncConfig

    async def main() -> tuple[Any, int]:
        client = AsyncLDClient(AsyncConfig("sdk-key", **_ours()))
        await client.start(20)
        value = await client.variation("exp", CONTEXT, None)
        client.track("a", CONTEXT)
        delivered = (await aflush(20.0, client)).delivered
        await client.close()
        return value, delivered

    value, delivered = asyncio.run(main())
    assert value in ("old", "new")
    assert delivered == 1


def test_an_address_that_was_given_stays_and_is_said(local, caplog):
    """A relay proxy was named on purpose; that the variable does not reach it is no secret."""
    client = LDClient(
        Config("sdk-key", use_ldd=True, events_uri="http://relay.example.test", **_ours())
    )
    assert client._config.events_uri == "http://relay.example.test/bulk"
    assert client._config.base_uri == local.url
    assert caplog.text.count("talks to relay.example.test") == 1
    client.close()


@pytest.mark.parametrize("way", ["plugin", "attach"])
def test_a_client_without_our_processor_is_said(local, caplog, way):
    """Its events cannot be redirected; the line says what to do."""
    plugins = [Plugin()] if way == "plugin" else []
    client = LDClient(Config("sdk-key", use_ldd=True, diagnostic_opt_out=True, plugins=plugins))
    if way == "attach":
        attach(client)
    assert "talks to events.launchdarkly.com" in caplog.text
    assert "launchdarkly_config()" in caplog.text
    client.close()


def test_a_local_client_is_not_said(local, caplog):
    """Whoever is there already needs no advice."""
    uris = {"base_uri": local.url, "events_uri": local.url, "stream_uri": local.url}
    client = LDClient(Config("sdk-key", use_ldd=True, diagnostic_opt_out=True, **uris))
    attach(client)
    client.close()
    assert diagnostics.counts() == {}


@pytest.mark.parametrize("named", ["environment", "config"])
@pytest.mark.parametrize("own", [True, False], ids=["own config", "launchdarkly_config"])
def test_no_proxy_gets_the_events_or_the_key(local, monkeypatch, own, named):
    """The SDK uses a proxy even for this machine, also one that the program's `Config` names: it
    must not here.
    """
    proxy = DrippingServer()
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "example.test")
    http = HTTPConfig(http_proxy=proxy.url) if named == "config" else HTTPConfig()
    options = {"http": http}
    config = (
        Config("sdk-real", **_ours(**options))
        if own
        else launchdarkly_config("sdk-real", **options)
    )
    client = LDClient(config, start_wait=20)
    assert client.variation("exp", CONTEXT, None) in ("old", "new")
    client.track("a", CONTEXT)
    assert flush(20.0, client).delivered == 1
    client.close()
    assert proxy.connections == 0
    assert http.http_proxy == (proxy.url if named == "config" else None)
    assert os.environ["no_proxy"] == "example.test,127.0.0.1"
    proxy.close()


def test_a_wrong_url_does_not_reach_the_host(monkeypatch, caplog):
    """A client with its own `Config` is made all the same; what is wrong is said."""
    monkeypatch.setenv("LDINSTRUMENT_URL", "http://metrics.example.test")
    client = LDClient(Config("sdk-key", use_ldd=True, **_ours(diagnostic_opt_out=True)))
    assert "not a loopback address" in caplog.text
    assert client._config.events_uri == "https://events.launchdarkly.com/bulk"
    client.close()


def test_a_server_that_is_not_there_is_said_at_once(monkeypatch, caplog):
    """With what to do, before the SDK has waited for flags."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("LDINSTRUMENT_URL", f"http://127.0.0.1:{port}")

    client = LDClient(launchdarkly_config(), start_wait=0)
    try:
        said = [line for line in caplog.messages if "nobody listens" in line]
    finally:
        client.close()

    assert len(said) == 1
    assert f"ldinstrument dev --port {port}" in said[0]
