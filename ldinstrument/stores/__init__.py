"""Sessions that outlive a request or a process: in memory, in SQLite, on Redis.

Names load at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .addresses import open_store, sweep
    from .keeping import SessionStore
    from .memory import MemoryStore
    from .protocol import Delta, Holdings, Rules, Store, VisitRef
    from .redis import RedisStore
    from .sqlite import SqliteStore
    from .sweeping import SweepReport
    from .visits import aend_request, end_request, end_session

__all__ = [
    "Delta",
    "Holdings",
    "MemoryStore",
    "RedisStore",
    "Rules",
    "SessionStore",
    "SqliteStore",
    "Store",
    "SweepReport",
    "VisitRef",
    "aend_request",
    "end_request",
    "end_session",
    "open_store",
    "sweep",
]

_HOMES = {
    "Delta": "protocol",
    "Holdings": "protocol",
    "MemoryStore": "memory",
    "RedisStore": "redis",
    "Rules": "protocol",
    "SessionStore": "keeping",
    "SqliteStore": "sqlite",
    "Store": "protocol",
    "SweepReport": "sweeping",
    "VisitRef": "protocol",
    "aend_request": "visits",
    "end_request": "visits",
    "end_session": "visits",
    "open_store": "addresses",
    "sweep": "addresses",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
