"""`LDINSTRUMENT_URL`: clients talk to the local LaunchDarkly, whichever `Config` they were given."""

from __future__ import annotations

from typing import Any

from .. import sdk
from ..diagnostics import log, warn_once
from ..errors import DefinitionError
from ..settings import LOCAL_URL, bypass_proxy, local_url


def use_local_server(config: Any) -> None:
    """Turn the addresses of LaunchDarkly's servers in *config* into the local one's, if it is named.

    An address of anything else, such as a relay proxy, was given on purpose and stays.
    """
    url = _local_url()
    if url is None:
        return
    bypass_proxy(url)
    if sdk.redirect(config, url):
        log.info("%s: this client talks to %s", LOCAL_URL, url)
    _warn_of_others(config)


def check_local_server(client: Any) -> None:
    """Warn when `LDINSTRUMENT_URL` is set and *client*, built without our processor, ignores it."""
    if _local_url() is not None:
        _warn_of_others(getattr(client, "_config", None))


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
