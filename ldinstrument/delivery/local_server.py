"""`LDINSTRUMENT_URL`: clients talk to the local LaunchDarkly, whichever `Config` they were
given.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from .. import sdk
from ..diagnostics import log, log_once, warn_once
from ..errors import DefinitionError
from ..settings import LOCAL_URL, bypass_proxy, local_url

LOOK_SECONDS = 0.3


def use_local_server(config: Any) -> None:
    """Turn the addresses of LaunchDarkly's servers in *config* into the local one's, if it is
    named.

    An address of anything else, such as a relay proxy, was given on purpose and stays.
    """
    url = _local_url()
    if url is None:
        return
    bypass_proxy(url)
    if sdk.redirect(config, url):
        log.info("%s: this client talks to %s", LOCAL_URL, url)
    if not sdk.remote_hosts(config):
        sdk.drop_proxy(config)
    _warn_of_others(config)
    _say_when_nobody_listens(url)


def check_local_server(client: Any) -> None:
    """Warn when `LDINSTRUMENT_URL` is set and *client*, built without our processor, ignores it."""
    if _local_url() is not None:
        _warn_of_others(getattr(client, "_config", None))


def _say_when_nobody_listens(url: str) -> None:
    """Say it at once: the SDK waits for flags for seconds, and names neither cause nor cure."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=LOOK_SECONDS).close()
    except OSError:
        log_once(
            "local_server",
            url,
            f"{LOCAL_URL} is {url}, and nobody listens there: start it with "
            f"ldinstrument dev --port {port}, or unset {LOCAL_URL}",
        )


def _local_url() -> str | None:
    try:
        return local_url()
    except DefinitionError as error:
        warn_once("local_url", "", str(error))
        return None


def _warn_of_others(config: Any) -> None:
    for host in sdk.remote_hosts(config):
        warn_once(
            "not_local",
            host,
            f"{LOCAL_URL} is set, but a client talks to {host}: build its Config with "
            "launchdarkly_config() or with event_processor_class=ld.EventProcessor and leave its "
            f"addresses out, or unset {LOCAL_URL}",
        )
