"""`Plugin`, `attach` and `launchdarkly_config`: how a client meets us."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest
from clients import async_client_of, async_sdk, client_of, uris
from ldclient import Config, Context, LDClient
from ldclient.integrations.test_data import TestData

from ldinstrument import session
from ldinstrument.delivery import EventProcessor, Plugin, aflush, attach, flush, launchdarkly_config
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.errors import DefinitionError
from ldinstrument.sessions.current import entered
from ldinstrument.sessions.scopes import open_session
from ldinstrument.settings import scan_in_progress

CONTEXT = Context.builder("u-1").name("Ana").build()


def _exposing() -> TestData:
    """A flag that runs as an experiment, so that its evaluation is an exposure."""
    data = TestData.data_source()
    rollout = {
        "kind": "experiment",
        "contextKind": "user",
        "seed": 61,
        "variations": [{"variation": 0, "weight": 50000}, {"variation": 1, "weight": 50000}],
    }
    flag = data.flag("exp").variation_for_all(True)
    built = flag._build(1) | {"fallthrough": {"rollout": rollout}, "trackEventsFallthrough": True}
    flag._build = lambda version: (
        built | {"version": version}
    )  # the builder cannot express an experiment
    data.update(flag)
    return data


def _evaluated(client: LDClient) -> str | None:
    """The key that a session without identity adopts from an exposure."""
    session = open_session(client=client)
    with entered(session):
        client.variation("exp", CONTEXT, False)
    adopted = session.context
    session.end()
    return None if adopted is None else adopted.key


def test_the_plugin_tells_sessions_of_exposures(server):
    """A session without identity becomes the context of the experiment."""
    client = client_of(
        server,
        update_processor_class=_exposing(),
        plugins=[Plugin()],
        event_processor_class=EventProcessor,
    )
    assert _evaluated(client) == "u-1"
    client.close()


def test_attach_does_so_for_a_client_built_elsewhere(server):
    """Once, however often it is asked for."""
    client = client_of(server, update_processor_class=_exposing(), diagnostic_opt_out=True)
    attach(client)
    attach(client)
    assert _evaluated(client) == "u-1"
    client.close()


def test_a_client_made_again_after_a_fork_keeps_the_hook(server):
    """`postfork()` builds everything anew from the `Config`; a plugin survives that, a hook added
    later does not.
    """
    client = client_of(
        server,
        update_processor_class=_exposing(),
        plugins=[Plugin()],
        event_processor_class=EventProcessor,
    )
    client.postfork(1)
    assert _evaluated(client) == "u-1"
    client.track("a", CONTEXT)
    assert flush(30.0, client).confirmed
    client.close()


@async_sdk
def test_the_plugin_fits_an_async_client(server):
    """The very same `Plugin` goes into an `AsyncConfig`."""

    async def main() -> int:
        client = async_client_of(
            server.url, use_ldd=True, plugins=[Plugin()], event_processor_class=EventProcessor
        )
        await client.start(1)
        client.track("a", CONTEXT)
        report = await aflush(30.0, client)
        await client.close()
        return report.delivered

    assert asyncio.run(main()) == 1


@async_sdk
@pytest.mark.parametrize("plugged", [True, False], ids=["plugin", "attach"])
def test_an_async_client_tells_sessions_of_exposures(caplog, plugged):
    """Its SDK awaits what its hooks return, and takes no sync one: evaluations are seen without a
    complaint.
    """
    from ldclient.async_client import AsyncLDClient
    from ldclient.async_config import AsyncConfig

    ours = {"plugins": [Plugin()], "event_processor_class": EventProcessor} if plugged else {}

    async def main(url: str) -> str | None:
        client = AsyncLDClient(
            AsyncConfig(
                "sdk-key",
                base_uri=url,
                events_uri=url,
                stream_uri=url,
                diagnostic_opt_out=True,
                **ours,
            )
        )
        await client.start(30)
        if not plugged:
            attach(client)
        async with session(client=client) as visit:
            assert await client.variation("exp", CONTEXT, None) in ("old", "new")
        await client.close()
        return None if visit.context is None else visit.context.key

    with LocalLaunchDarkly(flags=[experiment_flag("exp", ["old", "new"])]) as local:
        assert asyncio.run(main(local.url)) == "u-1"
    complaints = [
        record.getMessage()
        for record in caplog.records
        if record.levelname != "INFO"
        # A stock client of another test may still post on a thread of the SDK's.
        and (record.name.startswith("ldinstrument") or record.thread == threading.get_ident())
    ]
    assert complaints == []


def test_disabled_is_inert(monkeypatch, server):
    """`LDINSTRUMENT_DISABLED` adds no hook, and `launchdarkly_config` none of our parts."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    assert Plugin().get_hooks(None) == []
    config = launchdarkly_config("sdk-key", events_uri=server.url)
    assert (config.plugins, config.event_processor_class) == ([], None)
    client = LDClient(Config("sdk-key", offline=True))
    attach(client)
    assert client._LDClient__hooks == []


def test_the_config_is_suitable():
    """Our parts, our name, short time-outs; events only: no flag traffic, no diagnostics."""
    config = launchdarkly_config("sdk-key", events_only=True, flush_interval=7)
    assert isinstance(config.plugins[0], Plugin)
    assert config.event_processor_class is EventProcessor
    assert (config.wrapper_name, config.flush_interval) == ("ldinstrument", 7)
    assert (config.use_ldd, config.diagnostic_opt_out) == (True, True)
    assert (config.http.connect_timeout, config.http.read_timeout) == (1, 2)
    server = launchdarkly_config("sdk-key")
    assert (server.use_ldd, server.http.connect_timeout, server.http.read_timeout) == (False, 2, 5)


def test_what_the_caller_says_wins(tmp_path):
    """Keywords of `Config` pass through; a spool and other plugins join ours."""

    class Other(Plugin):
        """Some other plugin of ours; one is enough."""

    config = launchdarkly_config("sdk-key", spool=tmp_path, plugins=[Other()], wrapper_name="mine")
    assert isinstance(config.event_processor_class, partial)
    assert config.event_processor_class.keywords == {"spool": tmp_path}
    assert [type(plugin) for plugin in config.plugins] == [Other]
    assert config.wrapper_name == "mine"


def test_key_and_addresses_come_from_the_environment(monkeypatch):
    """Explicit argument before environment; `LDINSTRUMENT_URL` only for this machine."""
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-env")
    monkeypatch.setenv("LAUNCHDARKLY_EVENTS_URI", "http://127.0.0.1:9")
    config = launchdarkly_config()
    assert (config.sdk_key, config.events_uri) == ("sdk-env", "http://127.0.0.1:9/bulk")
    assert (
        launchdarkly_config("sdk-mine", events_uri="http://127.0.0.1:8").events_uri
        == "http://127.0.0.1:8/bulk"
    )
    monkeypatch.setenv("LDINSTRUMENT_URL", "http://127.0.0.1:8030/")
    local = launchdarkly_config()
    assert (local.base_uri, local.stream_base_uri) == (
        "http://127.0.0.1:8030",
        "http://127.0.0.1:8030",
    )
    assert local.events_uri == "http://127.0.0.1:9/bulk"
    monkeypatch.setenv("LDINSTRUMENT_URL", "http://metrics.example.test")
    with pytest.raises(DefinitionError, match="not a loopback address"):
        launchdarkly_config()


def test_no_key_says_what_to_do(monkeypatch):
    """No key anywhere is an error that names the variable; a local LaunchDarkly takes any."""
    with pytest.raises(DefinitionError, match="LAUNCHDARKLY_SDK_KEY"):
        launchdarkly_config()
    monkeypatch.setenv("LDINSTRUMENT_URL", "http://localhost:8030")
    assert launchdarkly_config().sdk_key


def test_no_key_is_needed_where_nothing_is_sent(monkeypatch):
    """`manage.py check` in a build: switched off, the client is offline."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    config = launchdarkly_config()
    assert (config.offline, config.sdk_key) == (True, "")
    LDClient(config).close()
    assert launchdarkly_config("sdk-key").offline is False


@pytest.mark.parametrize("own", [True, False], ids=["own config", "launchdarkly_config"])
def test_a_program_that_is_only_read_sends_nothing(server, own):
    """`plan` runs its top level; whatever client that makes, no event leaves."""
    addresses = uris(server.url)
    with scan_in_progress():
        config = (
            Config("sdk-key", use_ldd=True, event_processor_class=EventProcessor, **addresses)
            if own
            else launchdarkly_config(events_only=True, **addresses)
        )
        client = LDClient(config)
        client.track("a", CONTEXT)
        client.flush()
        client.close()
    assert server.posts == []


def test_a_flush_without_a_client_reaches_one_with_the_plugin(server):
    """Whoever delivers its events."""
    client = client_of(
        server, update_processor_class=_exposing(), plugins=[Plugin()], diagnostic_opt_out=True
    )
    client.track("k", CONTEXT)
    flush(30.0)
    assert server.keys() == {"k": 1}
    client.close()
