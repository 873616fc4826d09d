"""Give a LaunchDarkly client our parts: `Plugin`, `attach` and `launchdarkly_config`."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldclient import plugin as theirs
from ldclient.config import Config, HTTPConfig
from ldclient.plugin import EnvironmentMetadata, PluginMetadata

from .. import sdk
from ..diagnostics import guard
from ..errors import DefinitionError
from ..sessions import emission
from ..settings import bypass_proxy, disabled, local_url, scanning, variable
from .local_server import check_local_server
from .processors import EventProcessor
from .registry import register_client
from .worker import worker_of

if TYPE_CHECKING:

    class _EitherPlugin(theirs.Plugin, theirs.AsyncPlugin):
        """Tell a type checker that it goes into a `Config` and into an `AsyncConfig`."""

        def register(self, client: Any, metadata: EnvironmentMetadata) -> Any: ...

        def get_hooks(self, metadata: EnvironmentMetadata) -> list[Any]: ...

else:
    _EitherPlugin = theirs.Plugin


class _AwaitableNothing:
    """Be awaited by an `AsyncLDClient`, and do nothing."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class Plugin(_EitherPlugin):
    """Tells sessions of flag evaluations, and lets events recorded before there was a client leave.

    `Config("sdk-key", plugins=[ld.Plugin()], event_processor_class=ld.EventProcessor)`; the same in
    an `AsyncConfig`.

    Args:
        meter_provider: an OpenTelemetry meter provider that shall show the ledger as counters.
    """

    def __init__(self, *, meter_provider: Any | None = None) -> None:
        self._meter_provider = meter_provider
        self._hook: Any = None

    @property
    def metadata(self) -> PluginMetadata:
        """Our name, for the SDK."""
        return PluginMetadata(name="ldinstrument")

    def get_hooks(self, metadata: EnvironmentMetadata) -> list[Any]:
        """Return the evaluation hook where exposures cannot be seen otherwise."""
        if disabled() or sdk.can_watch_events():
            return []
        from ..sessions.hook import ExposureHook

        self._hook = ExposureHook()
        return [self._hook]

    def register(self, client: Any, metadata: EnvironmentMetadata) -> Any:
        """Hand over what was recorded before there was a client; the SDK calls this once it
        exists.
        """
        if not disabled():
            from ..sessions.watching import watch

            register_client(client)
            with guard("Plugin.register"):
                watch(client, self._hook)
            if worker_of(client) is None:
                check_local_server(client)
            _release(client)
            if self._meter_provider is not None:
                from .otel import export_ledger

                export_ledger(self._meter_provider)
        return _AwaitableNothing()


if hasattr(theirs, "AsyncPlugin"):
    # `AsyncPlugin.register` is the plugin's own method; `ABCMeta.register` is the one that makes a
    # virtual subclass.
    ABCMeta.register(theirs.AsyncPlugin, Plugin)


def attach(client: Any) -> None:
    """Tell sessions of the evaluations of *client*, which was built without `Plugin`. Doing it
    twice is harmless.

    Delivery of its events stays the SDK's: `flush` waits as well as it can and says
    `confirmed=False`. Build the client with `EventProcessor` for receipts.

    Args:
        client: an `LDClient` or an `AsyncLDClient`.
    """
    if disabled() or not register_client(client):
        return
    from ..sessions.watching import watch

    if worker_of(client) is None:
        check_local_server(client)
    with guard("attach"):
        watch(client)
    _release(client)


def _release(client: Any) -> None:
    with guard("release_held"):
        emission.release_held(client)


_URIS = {
    "base_uri": "LAUNCHDARKLY_BASE_URI",
    "events_uri": "LAUNCHDARKLY_EVENTS_URI",
    "stream_uri": "LAUNCHDARKLY_STREAM_URI",
}


def launchdarkly_config(
    sdk_key: str | None = None,
    *,
    events_only: bool = False,
    spool: str | Path | None = None,
    **config: Any,
) -> Config:
    """Make a `Config` for `ldclient.set_config` or `LDClient`.

    Args:
        sdk_key: None reads `LAUNCHDARKLY_SDK_KEY`.
        events_only: for a program that only tracks: the client is ready at once and fetches no
            flags.
        spool: a folder in which undelivered events outlive the process.
        config: anything that `Config` takes; it wins over what we would choose.

    Returns:
        A `Config` with `Plugin`, `EventProcessor`, our name as wrapper, and short time-outs: 2 s to
        connect and 5 s to read, 1 s and 2 s with *events_only*. Addresses come from
        `LAUNCHDARKLY_BASE_URI`, `_EVENTS_URI` and `_STREAM_URI`, or, when `LDINSTRUMENT_URL` names
        a server on this machine, from there. Without a key it is offline where
        `LDINSTRUMENT_DISABLED` is set, and always while a program is only read, as by `plan`.

    Raises:
        DefinitionError: no key anywhere, or `LDINSTRUMENT_URL` is not on this machine.
    """
    chosen: dict[str, Any] = {
        **_addresses(),
        "http": _timeouts(events_only),
        "wrapper_name": "ldinstrument",
    }
    if events_only:
        chosen |= {"use_ldd": True, "diagnostic_opt_out": True}
    chosen |= config
    if not disabled():
        chosen.setdefault(
            "event_processor_class",
            partial(EventProcessor, spool=spool) if spool else EventProcessor,
        )
        chosen["plugins"] = _with_ours(config.get("plugins") or [])
    key = _key(sdk_key)
    if scanning() or not key:
        chosen["offline"] = True
    return Config(key, **chosen)


def _with_ours(plugins: list[Any]) -> list[Any]:
    given = any(isinstance(plugin, Plugin) for plugin in plugins)
    return [*plugins] if given else [*plugins, Plugin()]


def _timeouts(events_only: bool) -> HTTPConfig:
    connect, read = (1, 2) if events_only else (2, 5)
    return HTTPConfig(connect_timeout=connect, read_timeout=read)


def _key(given: str | None) -> str:
    key = given or variable("LAUNCHDARKLY_SDK_KEY") or ("sdk-local" if local_url() else "")
    if not key and not disabled():
        raise DefinitionError("no SDK key: pass it, or set LAUNCHDARKLY_SDK_KEY")
    return key


def _addresses() -> dict[str, str]:
    named = {name: value for name, uri in _URIS.items() if (value := variable(uri))}
    local = local_url()
    if local is not None:
        bypass_proxy(local)
    return named if local is None else dict.fromkeys(_URIS, local) | named
