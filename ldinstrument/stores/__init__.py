"""Sessions that outlive a request or a process: in memory, in SQLite, on Redis.

Names load at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..imports import public_names

if TYPE_CHECKING:
    from .memory import MemoryStore
    from .protocol import Delta, Holdings, Rules, Store, VisitRef
    from .redis import RedisStore
    from .reporting import SweepReport
    from .session_store import SessionStore, aend_request, end_request, end_session
    from .sqlite import SqliteStore
    from .urls import open_store, sweep


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
    "SessionStore": "session_store",
    "SqliteStore": "sqlite",
    "Store": "protocol",
    "SweepReport": "reporting",
    "VisitRef": "protocol",
    "aend_request": "session_store",
    "end_request": "session_store",
    "end_session": "session_store",
    "open_store": "urls",
    "sweep": "urls",
}


__getattr__ = public_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
