"""What a client is told about us: the plugin for its `Config`, and `attach` for a client that exists already."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ldclient import plugin as theirs
from ldclient.plugin import EnvironmentMetadata, PluginMetadata

from .. import emission
from ..emission import disabled
from ..ledger import ledger
from .lifetimes import remember


class _Nothing:
    """What an `AsyncLDClient` may await."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


if TYPE_CHECKING:

    class _EitherPlugin(theirs.Plugin, theirs.AsyncPlugin):
        """What a type checker shall see: it goes into a `Config` and into an `AsyncConfig`."""

        def register(self, client: Any, metadata: EnvironmentMetadata) -> Any: ...

        def get_hooks(self, metadata: EnvironmentMetadata) -> list[Any]: ...

else:
    _EitherPlugin = theirs.Plugin


class Plugin(_EitherPlugin):
    """Tells sessions of flag evaluations, and lets events recorded before there was a client leave.

    `Config("sdk-key", plugins=[ld.Plugin()], event_processor_class=ld.EventProcessor)`; the same in an `AsyncConfig`.

    Args:
        meter_provider: an OpenTelemetry meter provider that shall show the ledger as counters.
    """

    def __init__(self, *, meter_provider: Any | None = None) -> None:
        self._meter_provider = meter_provider

    @property
    def metadata(self) -> PluginMetadata:
        """Who this is."""
        return PluginMetadata(name="ldinstrument")

    def get_hooks(self, metadata: EnvironmentMetadata) -> list[Any]:
        """The evaluation hook, of the class that a sync or an async client wants."""
        if disabled():
            return []
        from ..exposure import hook

        return [hook()]

    def register(self, client: Any, metadata: EnvironmentMetadata) -> Any:
        """Called once the client exists; hands over what was recorded before."""
        if not disabled():
            remember(client)
            _release(client)
            if self._meter_provider is not None:
                from .counters import show

                show(self._meter_provider)
        return _Nothing()


if hasattr(theirs, "AsyncPlugin"):
    # `AsyncPlugin.register` is the plugin's own method; `ABCMeta.register` is the one that makes a virtual subclass.
    ABCMeta.register(theirs.AsyncPlugin, Plugin)


def attach(client: Any) -> None:
    """Tell sessions of the evaluations of *client*, which was built without `Plugin`. Doing it twice is harmless.

    Delivery of its events stays the SDK's: `flush` waits as well as it can and says `confirmed=False`. Build the
    client with `EventProcessor` for receipts.

    Args:
        client: an `LDClient` or an `AsyncLDClient`.
    """
    if disabled() or not remember(client):
        return
    from ..exposure import hook

    try:
        client.add_hook(hook())
    except Exception as error:
        ledger.failure("attach", error)
    _release(client)


def _release(client: Any) -> None:
    try:
        emission.release_held(client)
    except Exception as error:
        ledger.failure("release_held", error)
