"""Decorate your code; LaunchDarkly experiments, guarded rollouts and AI configs get the numbers, and get them right."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Catalog": "metrics",
    "EventProcessor": "delivery",
    "Events": "ledger",
    "FlushReport": "delivery",
    "LDInstrumentError": "errors",
    "Metric": "metrics",
    "Outcome": "outcomes",
    "Plugin": "delivery",
    "Session": "sessions",
    "SessionMetricsTracker": "tracker",
    "Stats": "ledger",
    "Summary": "summaries",
    "Tracker": "emission",
    "Values": "ledger",
    "aflush": "delivery",
    "attach": "delivery",
    "bootstrap": "plans",
    "catalog": "metrics",
    "current_session": "sessions",
    "flush": "delivery",
    "launchdarkly_config": "delivery",
    "open_store": "stores",
    "propagate": "threads",
    "session": "scopes",
    "stats": "registry",
    "track_conversion": "patterns",
    "track_feedback": "patterns",
    "track_interaction": "tasks",
    "track_revenue": "patterns",
    "track_satisfaction": "patterns",
    "track_task": "tasks",
    "track_task_success": "patterns",
}

if TYPE_CHECKING:
    from .delivery import EventProcessor, FlushReport, Plugin, aflush, attach, flush, launchdarkly_config
    from .emission import Tracker
    from .errors import LDInstrumentError
    from .ledger import Events, Stats, Values
    from .metrics import Catalog, Metric, catalog
    from .outcomes import Outcome
    from .patterns import (
        track_conversion,
        track_feedback,
        track_revenue,
        track_satisfaction,
        track_task_success,
    )
    from .plans import bootstrap
    from .registry import stats
    from .scopes import session
    from .sessions import Session, current_session
    from .stores import open_store
    from .summaries import Summary
    from .tasks import track_interaction, track_task
    from .threads import propagate
    from .tracker import SessionMetricsTracker

__all__ = [
    "Catalog",
    "EventProcessor",
    "Events",
    "FlushReport",
    "LDInstrumentError",
    "Metric",
    "Outcome",
    "Plugin",
    "Session",
    "SessionMetricsTracker",
    "Stats",
    "Summary",
    "Tracker",
    "Values",
    "aflush",
    "attach",
    "bootstrap",
    "catalog",
    "current_session",
    "flush",
    "launchdarkly_config",
    "open_store",
    "propagate",
    "session",
    "stats",
    "track_conversion",
    "track_feedback",
    "track_interaction",
    "track_revenue",
    "track_satisfaction",
    "track_task",
    "track_task_success",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
