"""OpenTelemetry: spans of model calls as values of the session. The API is enough, no SDK is
needed.

Names load at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..imports import public_names

if TYPE_CHECKING:
    from .bridge import SpanBridge, install_bridge

__all__ = ["SpanBridge", "install_bridge"]

_HOMES = {"SpanBridge": "bridge", "install_bridge": "bridge"}

__getattr__ = public_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
