"""`launchdarkly_config`: the SDK's `Config` with our parts in it and time-outs that suit a server or a Lambda."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ldclient.config import Config, HTTPConfig

from ..emission import disabled
from ..errors import DefinitionError
from .plugins import Plugin
from .processors import EventProcessor

_URIS = {
    "base_uri": "LAUNCHDARKLY_BASE_URI",
    "events_uri": "LAUNCHDARKLY_EVENTS_URI",
    "stream_uri": "LAUNCHDARKLY_STREAM_URI",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def launchdarkly_config(
    sdk_key: str | None = None, *, events_only: bool = False, spool: str | Path | None = None, **config: Any
) -> Config:
    """Make a `Config` for `ldclient.set_config` or `LDClient`.

    Args:
        sdk_key: None reads `LAUNCHDARKLY_SDK_KEY`.
        events_only: for a program that only tracks: the client is ready at once and fetches no flags.
        spool: a folder in which undelivered events outlive the process.
        config: anything that `Config` takes; it wins over what we would choose.

    Returns:
        A `Config` with `Plugin`, `EventProcessor`, our name as wrapper, and short time-outs: 2 s to connect and 5 s
        to read, 1 s and 2 s with *events_only*. Addresses come from `LAUNCHDARKLY_BASE_URI`, `_EVENTS_URI` and
        `_STREAM_URI`, or, when `LDINSTRUMENT_URL` names a server on this machine, from there.

    Raises:
        DefinitionError: no key anywhere, or `LDINSTRUMENT_URL` is not on this machine.
    """
    chosen: dict[str, Any] = {**_addresses(), "http": _timeouts(events_only), "wrapper_name": "ldinstrument"}
    if events_only:
        chosen |= {"use_ldd": True, "diagnostic_opt_out": True}
    chosen |= config
    if not disabled():
        chosen.setdefault("event_processor_class", partial(EventProcessor, spool=spool) if spool else EventProcessor)
        chosen["plugins"] = _with_ours(config.get("plugins") or [])
    return Config(_key(sdk_key), **chosen)


def _with_ours(plugins: list[Any]) -> list[Any]:
    return [*plugins] if any(isinstance(one, Plugin) for one in plugins) else [*plugins, Plugin()]


def _timeouts(events_only: bool) -> HTTPConfig:
    connect, read = (1, 2) if events_only else (2, 5)
    return HTTPConfig(connect_timeout=connect, read_timeout=read)


def _key(given: str | None) -> str:
    key = given or os.environ.get("LAUNCHDARKLY_SDK_KEY") or ("sdk-local" if os.environ.get("LDINSTRUMENT_URL") else "")
    if not key:
        raise DefinitionError("no SDK key: pass it, or set LAUNCHDARKLY_SDK_KEY")
    return key


def _addresses() -> dict[str, str]:
    named = {name: os.environ[variable] for name, variable in _URIS.items() if os.environ.get(variable)}
    local = os.environ.get("LDINSTRUMENT_URL")
    if local:
        if urlsplit(local).hostname not in _LOOPBACK:
            raise DefinitionError(
                "LDINSTRUMENT_URL must name a server on this machine, such as http://127.0.0.1:8030; for any other "
                "address set LAUNCHDARKLY_BASE_URI, LAUNCHDARKLY_EVENTS_URI and LAUNCHDARKLY_STREAM_URI"
            )
        named = dict.fromkeys(_URIS, local.rstrip("/")) | named
    return named
