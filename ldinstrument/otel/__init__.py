"""OpenTelemetry: spans of model calls as values of the session. The API is enough, no SDK is
needed.

Names load at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bridge import SpanBridge, install_bridge

__all__ = ["SpanBridge", "install_bridge"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(".bridge", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
