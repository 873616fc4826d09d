"""OpenTelemetry: spans of model calls as values of the session, sessions and their tasks as spans,
and the session's id in its baggage. The API is enough, no SDK is needed.

Names load at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..imports import public_names

if TYPE_CHECKING:
    from .agents_traces import AgentsTraces, install_agents_traces
    from .bridge import SpanBridge, install_bridge
    from .propagation import SessionPropagator, install_propagator
    from .session_spans import SpanObserver, install_observer

__all__ = [
    "AgentsTraces",
    "SessionPropagator",
    "SpanBridge",
    "SpanObserver",
    "install_agents_traces",
    "install_bridge",
    "install_observer",
    "install_propagator",
]

_HOMES = {
    "AgentsTraces": "agents_traces",
    "SessionPropagator": "propagation",
    "SpanBridge": "bridge",
    "SpanObserver": "session_spans",
    "install_agents_traces": "agents_traces",
    "install_bridge": "bridge",
    "install_observer": "session_spans",
    "install_propagator": "propagation",
}

__getattr__ = public_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
