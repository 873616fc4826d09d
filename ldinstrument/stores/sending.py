"""Where sealed payloads leave: over the connections of a LaunchDarkly client, or through a client of another kind."""

from __future__ import annotations

import json
from typing import Any, Protocol

from .. import sdk
from ..delivery.lifetimes import engine_of
from ..delivery.transport import Answer, Transport, transport_of
from .protocol import Sealed
from .sealing import as_payload


class Outlet(Protocol):
    """Takes a sealed payload to LaunchDarkly."""

    zipped: bool
    """Whether it wants its payloads compressed."""

    def post(self, sealed: Sealed) -> Answer:
        """Send it once and wait for the answer; never raises."""


class WireOutlet:
    """POSTs to `<events_uri>/bulk` with the headers, proxies and time-outs of a client's configuration.

    Args:
        config: an `ldclient` `Config` or `AsyncConfig`; its key is read anew for each POST.
        transport: made for it; the SDK's own connections when None.
    """

    def __init__(self, config: Any, transport: Transport | None = None) -> None:
        self.zipped = bool(config.enable_event_compression)
        self._config = config
        self._transport = transport or transport_of(config)

    def post(self, sealed: Sealed) -> Answer:
        """Send it once and wait for the answer."""
        try:
            headers = sdk.event_headers(self._config) | {"X-LaunchDarkly-Payload-ID": sealed.id}
            if sealed.zipped:
                headers["Content-Encoding"] = "gzip"
            return self._transport.post(as_payload(sealed), headers)
        except Exception as error:
            return Answer(0, error=type(error).__name__)


class TrackOutlet:
    """Hands events to a client that has no SDK configuration, such as a recording one in a test."""

    zipped = False

    def __init__(self, client: Any) -> None:
        self._client = client

    def post(self, sealed: Sealed) -> Answer:
        """Track every event of the payload."""
        from ldclient import Context

        try:
            for event in json.loads(sealed.body):
                context = Context.from_dict(event["context"])
                self._client.track(event["key"], context, event.get("data"), event.get("metricValue"))
        except Exception as error:
            return Answer(0, error=type(error).__name__)
        return Answer(202)


def outlet_of(client: Any | None) -> Outlet | None:
    """The outlet of *client* (the `ldclient` singleton when None); None when there is none, or it sends nothing."""
    taker = client if client is not None else sdk.singleton_client()
    if taker is None or sdk.discards_everything(taker):
        return None
    config = getattr(taker, "_config", None)
    if not isinstance(getattr(config, "events_uri", None), str):
        return TrackOutlet(taker)
    engine = engine_of(taker)
    made = engine.options.transport if engine is not None else None
    return WireOutlet(config, made(config) if made is not None else None)


def outlet_for(sdk_key: str | None) -> Outlet:
    """The outlet of a program without a client, such as `ldinstrument sweep` in cron.

    Args:
        sdk_key: None reads `LAUNCHDARKLY_SDK_KEY`; addresses come from the environment, see `launchdarkly_config`.

    Raises:
        DefinitionError: no key anywhere.
    """
    from ..delivery.configuration import launchdarkly_config

    return WireOutlet(launchdarkly_config(sdk_key, events_only=True, event_processor_class=None))
