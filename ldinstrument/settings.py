"""Read the environment, once for everybody: switches, the local LaunchDarkly's URL, loopback.

An empty or blank variable counts as unset, white space around a value is dropped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from .errors import DefinitionError

ON = ("1", "true", "yes", "on")
LOCAL_URL = "LDINSTRUMENT_URL"
DISABLED = "LDINSTRUMENT_DISABLED"
DEBUG = "LDINSTRUMENT_DEBUG"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

scans: list[bool] = []
"""One entry per program that is only being read now."""

# Who asks for every session or event looks at these in line, and mostly enters no function:
#     if (scans or DISABLED_KEY in encoded or os.environ is not environ) and disabled(): ...
#     if (DEBUG_KEY in encoded or os.environ is not environ) and debug(): ...
environ = os.environ
DISABLED_KEY, DEBUG_KEY = map(getattr(environ, "encodekey", str), (DISABLED, DEBUG))
encoded: Mapping[Any, Any] = getattr(environ, "_data", {DISABLED_KEY: "", DEBUG_KEY: ""})
"""What `environ` looks its names up in, encoded as those keys are: it tells in a tenth of the time
that a name is not set. Where somebody had put another mapping in its place, both may be.
"""


def variable(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the stripped value of the environment variable *name*; None when unset or blank."""
    return ((os.environ if environ is None else environ).get(name) or "").strip() or None


def switch(name: str) -> bool:
    """Tell whether *name* is one of `1`, `true`, `yes`, `on`, in any case."""
    value = os.environ.get(name)
    return value is not None and value.strip().lower() in ON


def disabled() -> bool:
    """Tell whether `LDINSTRUMENT_DISABLED`, or a scan, makes everything inert."""
    if DISABLED_KEY not in encoded and os.environ is environ:  # mostly, and cheap to find out
        return bool(scans)
    return bool(scans) or switch(DISABLED)


def scanning() -> bool:
    """Tell whether a program is only being read: clients that it makes must send nothing."""
    return bool(scans)


@contextlib.contextmanager
def scan_in_progress() -> Iterator[None]:
    """Make everything inert meanwhile, on every thread: importing a program runs its top level."""
    scans.append(True)
    try:
        yield
    finally:
        scans.pop()


def debug() -> bool:
    """Tell whether `LDINSTRUMENT_DEBUG` asks for a log line per event."""
    return switch(DEBUG)


def local_url(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the URL of the local LaunchDarkly, without a trailing slash; None when none is named.

    Raises:
        DefinitionError: `LDINSTRUMENT_URL` is no URL of a server on this machine.
    """
    value = variable(LOCAL_URL, environ)
    if value is None:
        return None
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        hostname, _ = parts.hostname or "", parts.port
    except ValueError:
        hostname = ""
    if not hostname or not url.isprintable() or " " in url:
        raise DefinitionError(f"{LOCAL_URL}: write a URL such as http://127.0.0.1:8030")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise DefinitionError(f"{LOCAL_URL}: give scheme and host only: http://127.0.0.1:8030")
    if parts.scheme not in ("http", "https"):
        raise DefinitionError(f"{LOCAL_URL}: use http or https: http://127.0.0.1:8030")
    if not is_loopback(hostname):
        raise DefinitionError(
            f"{LOCAL_URL} is for a local LaunchDarkly only, and {hostname} is not a loopback "
            f"address; for any other "
            "set LAUNCHDARKLY_BASE_URI, LAUNCHDARKLY_EVENTS_URI, LAUNCHDARKLY_STREAM_URI and "
            "LAUNCHDARKLY_API_HOST"
        )
    return url.rstrip("/")


def bypass_proxy(url: str) -> None:
    """Let this process reach the local server at *url* without a proxy.

    Clients of LaunchDarkly's and `requests` honour `http_proxy` even for this machine: events and
    the SDK key would go to the proxy. Where one is set, `no_proxy` gets this host, too.
    """
    host = urlsplit(url).hostname or ""
    if not any(variable(name) for name in PROXIES):
        return
    excepted = variable("no_proxy") or variable("NO_PROXY") or ""
    if excepted != "*" and host not in [entry.strip() for entry in excepted.split(",")]:
        os.environ["no_proxy"] = f"{excepted},{host}".lstrip(",")


def is_loopback(hostname: str) -> bool:
    """Tell whether *hostname* is this machine, judged by its spelling (no look-up)."""
    if hostname.lower() == "localhost":
        return True
    try:
        return ip_address(hostname.strip("[]")).is_loopback
    except ValueError:
        return False
