"""The unmodified launchdarkly-server-sdk against the local LaunchDarkly: every way in, and every
way events leave.
"""

from __future__ import annotations

import asyncio
import threading

import ldclient
import pytest
from ldclient import Context, datasystem

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag, simple_flag


@pytest.mark.parametrize(
    "config",
    [{}, {"stream": False}, {"enable_event_compression": True}],
    ids=["stream", "poll", "gzip"],
)
def test_flags_arrive_and_exposures_and_events_return(ld, sdk, config):
    """By streaming, by polling and compressed."""
    client = sdk(**config)
    assert client.is_initialized()
    context = Context.create_multi(Context.create("u-1"), Context.create("r-1", "request"))
    value = client.variation("new-prompt", context, "none")
    client.track("session.duration", context, {"sessionId": "s"}, 1834.25)
    client.flush()
    (event,) = ld.wait_for(lambda: ld.custom_events("session.duration"))
    assert (event["metricValue"], event["data"]) == (1834.25, {"sessionId": "s"})
    assert event["context"] == {"kind": "multi", "user": {"key": "u-1"}, "request": {"key": "r-1"}}
    assert event.payload_id
    assert event.received > 1_600_000_000_000
    (exposure,) = ld.events(kind="feature")
    assert (exposure["value"], exposure["reason"]["inExperiment"]) == (value, True)
    assert [event["kind"] for event in ld.events()] == ["index", "feature", "custom", "summary"]
    (post,) = ld.posts()
    assert (post.route, post.status, post.events, post.duplicate) == ("/bulk", 202, 4, False)
    assert post.payload_id == event.payload_id
    assert post.agent.startswith("PythonClient/")


def test_events_only_needs_no_flags(ld, sdk):
    """And sends no diagnostics when these are off."""
    client = sdk(use_ldd=True, diagnostic_opt_out=True)
    client.track("k", Context.create("u"), None, 0)
    client.flush()
    (event,) = ld.wait_for(lambda: ld.custom_events("k"))
    assert event["metricValue"] == 0
    assert ld.diagnostics() == []


def test_diagnostics_are_kept_apart_from_events(ld, sdk):
    """They are no POST of events either."""
    sdk()
    ld.wait_for(ld.diagnostics)
    assert ld.diagnostics()[0]["kind"] == "diagnostic-init"
    assert ld.events() == []
    assert ld.posts() == []
    assert [post.status for post in ld.posts("/diagnostic")] == [202]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_changed_flag_reaches_connected_clients(ld, sdk, version):
    """In both data systems."""
    config = {} if version == "v1" else {"datasystem_config": datasystem.default().build()}
    client = sdk(**config)
    context = Context.create("u")
    assert client.variation("plain", context, "default") == "default"
    ld.set_flag(simple_flag("plain", ["a", "b"], 0))
    ld.wait_for(lambda: client.variation("plain", context, None) == "a")
    ld.set_flag(simple_flag("plain", ["a", "b"], 1))
    ld.wait_for(lambda: client.variation("plain", context, None) == "b")
    ld.delete_flag("plain")
    ld.wait_for(lambda: client.variation("plain", context, "default") == "default")
    ld.set_flag(simple_flag("plain", ["a", "b"], 1))
    ld.wait_for(lambda: client.variation("plain", context, None) == "b")


def test_the_second_data_system_gets_flags_too(ld, sdk):
    """And evaluates them."""
    client = sdk(datasystem_config=datasystem.default().build())
    assert client.is_initialized()
    assert client.variation("new-prompt", Context.create("u"), None) in ("short", "long")


def test_a_client_finds_its_way_back_after_a_restart(sdk, free_port):
    """LaunchDarkly vanishes, changes and returns on the same port; the stream is taken up again."""
    ld = LocalLaunchDarkly(free_port(), flags=[simple_flag("f", ["a", "b"], 0)])
    with ld:
        uris = {"base_uri": ld.url, "stream_uri": ld.url, "events_uri": ld.url}
        client = ldclient.LDClient(
            ldclient.Config("sdk-key", initial_reconnect_delay=0.05, **uris), start_wait=60
        )
        assert client.variation("f", Context.create("u"), None) == "a"
    ld.set_flag(simple_flag("f", ["a", "b"], 1))
    with ld:
        ld.wait_for(lambda: client.variation("f", Context.create("u"), None) == "b", timeout=60)
        client.close()


def test_an_experiment_splits_as_its_weights_say(ld, sdk):
    """By the hashing of the SDK."""
    ld.set_flag(experiment_flag("uneven", ["a", "b"], "request", [9, 1]))
    client = sdk()
    ld.wait_for(lambda: client.variation("uneven", Context.create("r", "request"), None))
    values = [
        client.variation("uneven", Context.create(f"r-{i}", "request"), None) for i in range(1000)
    ]
    assert 820 < values.count("a") < 970
    assert set(values) == {"a", "b"}


def test_the_async_client(ld):
    """By streaming and by polling."""
    pytest.importorskip("aiohttp")
    from ldclient.async_client import AsyncLDClient
    from ldclient.async_config import AsyncConfig

    async def use(stream: bool) -> str:
        uris = {"base_uri": ld.url, "stream_uri": ld.url, "events_uri": ld.url}
        async with asyncio.timeout(100) if hasattr(asyncio, "timeout") else _NoTimeout():
            client = AsyncLDClient(AsyncConfig("sdk-key", stream=stream, **uris))
            await client.start(60)
            value = await client.variation("new-prompt", Context.create("u"), None)
            client.track("from.async", Context.create("u"), None, 7)
            assert await client.flush_and_wait(60)
            await client.close()
            return value

    assert asyncio.run(use(True)) == asyncio.run(use(False))
    assert [event["metricValue"] for event in ld.custom_events("from.async")] == [7, 7]
    assert ld.posts()[0].agent.startswith("PythonAsyncClient/")


class _NoTimeout:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *error: object) -> None: ...


def test_a_wrong_key_stops_the_sdk(sdk):
    """It does not try for ever."""
    with LocalLaunchDarkly(sdk_keys={"sdk-good"}) as ld:
        uris = {"base_uri": ld.url, "stream_uri": ld.url, "events_uri": ld.url}
        bad = ldclient.LDClient(ldclient.Config("sdk-bad", **uris), start_wait=0.2)
        assert not bad.is_initialized()
        bad.track("k", Context.create("u"))
        bad.flush()
        ld.wait_for(lambda: [post.status for post in ld.posts()] == [401])
        bad.close()
        ld.sdk_keys = {"sdk-good", "sdk-bad"}
        good = ldclient.LDClient(ldclient.Config("sdk-bad", **uris), start_wait=60)
        assert good.is_initialized()
        good.close()
        assert ld.events() == []


def test_the_retry_of_the_sdk_carries_the_same_payload_id(ld, sdk):
    """So the second POST can be told from a new one."""
    ld.fault("/bulk", status=503)
    client = sdk()
    client.track("k", Context.create("u"))
    client.flush()
    ld.wait_for(lambda: ld.custom_events("k"))
    assert [(post.status, post.fault, post.events) for post in ld.posts()] == [
        (503, "503", 2),
        (202, "", 2),
    ]
    assert len({post.payload_id for post in ld.posts()}) == 1


def test_an_answer_that_never_came_makes_a_duplicate_that_counts_once(ld, sdk):
    """The SDK cannot know better."""
    ld.fault("/bulk", drop=True, after=True)
    client = sdk()
    client.track("k", Context.create("u"))
    client.flush()
    ld.wait_for(lambda: len(ld.posts()) == 2)
    assert [(post.fault, post.duplicate) for post in ld.posts()] == [
        ("after:drop", False),
        ("", True),
    ]
    assert len(ld.custom_events("k")) == 1


def test_many_clients_at_once_lose_nothing(ld):
    """Eight clients on eight threads, and a flag that changes meanwhile."""

    def work(number: int) -> None:
        uris = {"base_uri": ld.url, "stream_uri": ld.url, "events_uri": ld.url}
        client = ldclient.LDClient(
            ldclient.Config("sdk-key", diagnostic_opt_out=True, **uris), start_wait=60
        )
        assert client.is_initialized()
        for i in range(200):
            context = Context.create(f"u-{number}-{i}")
            client.variation("new-prompt", context, None)
            client.track("work", context, None, i)
        client.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for i in range(20):
        ld.set_flag(simple_flag("other", ["a", "b"], i % 2))
    for thread in threads:
        thread.join(60)
    assert ld.count(key="work") == 1600
    assert ld.count("feature") == 1600
    assert sum(event["metricValue"] for event in ld.custom_events("work")) == 8 * sum(range(200))


def test_the_ai_sdk(ld, sdk):
    """An experiment on an AI config: its variation arrives, its exposure and the tracker's events
    return.
    """
    ai = pytest.importorskip("ldai.client")
    variations = [
        {
            "_ldMeta": {"enabled": True, "variationKey": name, "version": 1},
            "model": {"name": name},
            "provider": {"name": "local"},
            "messages": [{"role": "system", "content": "Hello {{name}}"}],
        }
        for name in ("small", "large")
    ]
    ld.set_flag(experiment_flag("assistant", variations))
    client = sdk()
    config = ai.LDAIClient(client).completion_config(
        "assistant", Context.create("u"), None, {"name": "Ana"}
    )
    assert config.messages[0].content == "Hello Ana"
    tracker = config.create_tracker()
    tracker.track_success()
    tracker.track_duration(120)
    client.flush()
    (event,) = ld.wait_for(lambda: ld.custom_events("$ld:ai:duration:total"))
    assert (event["metricValue"], event["data"]["modelName"]) == (120, config.model.name)
    assert ld.custom_events("$ld:ai:usage:completion-config")[0]["data"] == "assistant"
    (exposure,) = ld.events("feature")
    assert exposure["value"]["model"]["name"] == config.model.name in ("small", "large")
    assert ld.health() == []
