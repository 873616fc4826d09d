"""Open a store by its URL: `memory:`, `sqlite:///path`, `redis://host:port/0`, `rediss://`,
`redis+cluster://`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ..diagnostics import raise_if_interrupted
from ..errors import DefinitionError
from ..values import above_zero, seconds_from_text
from .protocol import Rules, Store
from .reporting import Outlet, SweepReport, outlet_for
from .session_store import SessionStore

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
_ADDRESSES = "memory:, sqlite:///path, redis://host:port/0, rediss://... or redis+cluster://..."


def open_store(
    address: str | Path = "memory:",
    *,
    idle: float | None = None,
    maximum: float | None = None,
    remember: float | None = None,
    **options: Any,
) -> SessionStore:
    """Open a session store.

    Every worker must use the same address and the same times. An address takes `?timeout=`, the
    seconds that a request waits for the store (0.25), and one of Redis `?prefix=` (environments
    that share a server need one each).

    Args:
        address: `memory:` (this process only), `sqlite:///path` or a path (the workers of one
            host), `redis://...` (a fleet; Valkey, too). `sqlite:///x` is relative, `sqlite:////x`
            absolute.
        idle: seconds of silence that end a session; 1800.
        maximum: seconds after which it ends however busy it is; 86400.
        remember: seconds for which a visitor's last session is remembered, for `previousId`; 86400.
        options: keywords of `SessionStore`; `max_sessions` of a `memory:` store.

    Raises:
        DefinitionError: an address that is none, a time that is not positive, or a server that can
            never serve as a store.
        MissingExtra: redis-py is not installed.
    """
    times = {"idle": idle, "maximum": maximum, "remember": remember}
    rules = Rules(
        **{name: above_zero(name, given) for name, given in times.items() if given is not None}
    )
    bounds = {"max_sessions": options.pop("max_sessions")} if "max_sessions" in options else {}
    return SessionStore(_store(str(address), rules, bounds), **options)


def sweep(
    store: SessionStore | Store | str | Path,
    *,
    client: Any | None = None,
    sdk_key: str | None = None,
    limit: int | None = None,
    idle: float | None = None,
    maximum: float | None = None,
    remember: float | None = None,
) -> SweepReport:
    """Report what has ended in a store, now and on this thread: for cron, serverless and tests.
    Never raises for a store or a server that fails; the report says so.

    Args:
        store: a store, or its address.
        client: whose connections to use; else those for *sdk_key*; else the `ldclient` singleton's;
            else those for `LAUNCHDARKLY_SDK_KEY`.
        sdk_key: of the environment that the sessions belong to.
        limit: at most so many sessions.
        idle, maximum, remember: for an address; those that the workers use, or shorter ones.

    Raises:
        DefinitionError: an address that is none, or no SDK key anywhere.
    """
    if isinstance(store, SessionStore):
        report = store.sweep(limit, client=client, outlet=_outlet(store, client, sdk_key))
        return _with_open(report, store)
    with _opened(store, {"idle": idle, "maximum": maximum, "remember": remember}) as opened:
        outlet = _outlet(opened, client, sdk_key)
        shorter = idle is not None or maximum is not None
        report = opened.sweep(limit, client=client, outlet=outlet, own_rules=shorter)
        return _with_open(report, opened)


def _with_open(report: SweepReport, store: SessionStore) -> SweepReport:
    """Add how many sessions are not over yet, unless the store has just failed."""
    try:
        report.open = None if report.error else store.holdings().open
    except Exception as error:
        raise_if_interrupted(error)
    return report


def _outlet(store: SessionStore, client: Any | None, sdk_key: str | None) -> Outlet | None:
    if client is not None or (sdk_key is None and store.outlet() is not None):
        return None
    return outlet_for(sdk_key)


def _opened(store: Store | str | Path, times: dict[str, float | None]) -> SessionStore:
    if isinstance(store, (str, Path)):
        return open_store(store, sweep=False, **times)
    return SessionStore(store, sweep=False)


def _store(address: str, rules: Rules, bounds: dict[str, Any]) -> Store:
    scheme = address.partition(":")[0] if ":" in address else ""
    if address in ("memory:", "memory://"):
        from .memory import MemoryStore

        return MemoryStore(rules, **bounds)
    if scheme in (
        "redis",
        "rediss",
        "unix",
        "redis+cluster",
        "rediss+cluster",
        "valkey",
        "valkeys",
    ):
        return _redis(address, rules)
    if scheme == "sqlite" or not scheme or len(scheme) == 1:  # a drive letter is no scheme
        from .sqlite import SqliteStore

        path, timeout = _path(address, scheme)
        sqlite = SqliteStore(path, rules, timeout=timeout)
        sqlite.check()
        return sqlite
    raise DefinitionError(f"{scheme}: is no session store; use {_ADDRESSES}")


def _path(address: str, scheme: str) -> tuple[str, float]:
    """Return the path that a SQLite address names, and its time-out."""
    parts = urlsplit(address) if scheme == "sqlite" else None
    path = address if parts is None else unquote(parts.path).removeprefix("/")
    if not path or path == ":memory:":
        raise DefinitionError(
            "sqlite: name a file, such as sqlite:///sessions.db; without one, use memory:"
        )
    asked = dict(parse_qsl(parts.query, keep_blank_values=True)) if parts is not None else {}
    timeout = seconds_from_text("?timeout=", asked.pop("timeout", "0.25"))
    if asked:
        raise DefinitionError(f"sqlite: there is no option ?{min(asked)}=, only ?timeout=")
    return path, timeout


def _redis(address: str, rules: Rules) -> Store:
    from .redis import RedisStore
    from .redis_client import connect

    rest = address.partition("://")[2]
    place, _, query = rest.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    ours = {name: asked.pop(name) for name in ("prefix", "timeout") if name in asked}
    asked.pop("decode_responses", None)  # payloads are bytes
    scheme, cluster, _ = address.partition("://")[0].partition("+cluster")
    plain = f"{_SCHEMES.get(scheme, scheme)}://{place}" + (f"?{urlencode(asked)}" if asked else "")
    client = connect(
        plain,
        timeout=seconds_from_text("?timeout=", ours.get("timeout", "0.25")),
        cluster=bool(cluster),
    )
    store = RedisStore(client, rules, prefix=ours.get("prefix", "ldinstrument"))
    store.check()
    return store
