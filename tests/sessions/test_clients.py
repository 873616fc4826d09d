"""Which client takes the events: without `client=`, and for clients of every make."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from laboratory import client_of
from ldclient import Config, LDClient

import ldinstrument as ld
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.sessions import clients
from ldinstrument.testing import RecordingClient


def work() -> None:
    with ld.session("u-1") as s:
        s.interaction()


def urls(server: LocalLaunchDarkly) -> dict[str, str]:
    return {"base_uri": server.url, "stream_uri": server.url, "events_uri": server.url}


@pytest.mark.parametrize("way", ["parts", "config", "attach"])
def test_a_client_that_is_no_singleton_takes_the_events(way: str) -> None:
    """Each way of making a client that README names."""
    with LocalLaunchDarkly() as server:
        if way == "parts":
            client = client_of(server)
        elif way == "config":
            client = LDClient(ld.launchdarkly_config("sdk-local", **urls(server)))
        else:
            client = LDClient(Config("sdk-local", **urls(server)))
            ld.attach(client)
        try:
            work()
            ld.flush(10)
            client.flush()
            server.wait_for(lambda: server.count() == 3)
        finally:
            client.close()
    assert "no_client" not in {cause for cause, _ in ld.stats().warnings}


def test_an_async_client_takes_the_events() -> None:
    """The only one there is, with the very same two names in its configuration."""
    async_client = pytest.importorskip("ldclient.async_client")
    async_config = pytest.importorskip("ldclient.async_config")

    async def main(server: LocalLaunchDarkly) -> None:
        client = async_client.AsyncLDClient(
            async_config.AsyncConfig(
                "sdk-local",
                plugins=[ld.Plugin()],
                event_processor_class=ld.EventProcessor,
                **urls(server),
            )
        )
        await client.start(5)
        work()
        await ld.aflush(10)
        await client.close()

    with LocalLaunchDarkly() as server:
        asyncio.run(main(server))
        assert server.count() == 3


@pytest.mark.parametrize("given", [True, False])
def test_an_openfeature_client_stands_for_its_providers(given: bool) -> None:
    """Given as `client=`, or known because its provider's client carries our parts."""
    ld_openfeature = pytest.importorskip("ld_openfeature")
    from openfeature import api

    with LocalLaunchDarkly() as server:
        config = Config(
            "sdk-local",
            plugins=[ld.Plugin()],
            event_processor_class=ld.EventProcessor,
            **urls(server),
        )
        provider = ld_openfeature.LaunchDarklyProvider(config)
        api.set_provider(provider)
        try:
            with ld.session("u-1", client=api.get_client() if given else None) as s:
                s.conversion(10)
            ld.flush(10)
            assert [event["metricValue"] for event in server.custom_events("business.conversion")]
        finally:
            api.shutdown()
            api.clear_providers()


def test_a_closed_client_is_none() -> None:
    """The next one takes over; nothing is ambiguous about one that has ended."""
    with LocalLaunchDarkly() as first, LocalLaunchDarkly() as second:
        client_of(first, "sdk-first").close()
        client = client_of(second, "sdk-second")
        try:
            assert clients.client_for(None) is client
        finally:
            client.close()


def test_the_one_that_is_given_comes_first() -> None:
    """Before the one whose exposure was seen, before any known one."""
    given = RecordingClient()
    with LocalLaunchDarkly() as server:
        client = client_of(server)
        try:
            assert clients.client_for(given) is given
        finally:
            client.close()


def test_an_object_that_is_no_launchdarkly_client_gets_each_value_at_once() -> None:
    """Nothing is known of the exposures that it makes, nor can it date an event."""

    class Wrapper:
        def __init__(self) -> None:
            self.keys: list[str] = []

        def track(self, key: str, *_: Any) -> None:
            self.keys.append(key)

    wrapper = Wrapper()
    with ld.session("u-1", client=wrapper) as s:  # type: ignore[arg-type]
        s.conversion(1)
        s.conversion(2)
        assert wrapper.keys == ["business.conversion"] * 2


def test_a_disabled_library_says_nothing_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves, so nobody needs to see exposures."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    with LocalLaunchDarkly() as server:
        client = LDClient(Config("sdk-local", **urls(server)))
        try:
            with ld.session("u-1", client=client) as s:
                s.conversion(1)
        finally:
            client.close()
    assert dict(ld.stats().warnings) == {}
