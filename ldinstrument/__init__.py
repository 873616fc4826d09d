"""Decorate your code; LaunchDarkly experiments, guarded rollouts and AI configs get the numbers,
and get them right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# First of all: from now on a fork waits for whatever of ours another thread is importing.
from .imports import public_names

if TYPE_CHECKING:
    from .ai.decorators import track_ai
    from .ai.feedback import feedback_token, track_feedback
    from .delivery import (
        EventProcessor,
        FlushReport,
        Plugin,
        aflush,
        attach,
        flush,
        launchdarkly_config,
    )
    from .errors import LDInstrumentError
    from .ledger import Events, Stats, Values
    from .metrics.catalogs import Catalog, catalog
    from .metrics.metric import Metric
    from .scan.startup import bootstrap
    from .sessions.clients import Tracker
    from .sessions.current import current_session, identify
    from .sessions.outcomes import Outcome, outcome_of_exception
    from .sessions.recipes import (
        track_conversion,
        track_revenue,
        track_satisfaction,
        track_task_success,
    )
    from .sessions.registry import stats
    from .sessions.scopes import session
    from .sessions.session import Session
    from .sessions.summaries import Summary
    from .sessions.threads import propagate
    from .stores import open_store
    from .tasks.decorators import track_interaction, track_task
    from .tracker import SessionMetricsTracker


__version__ = "0.1.0"

_HOMES = {
    "Catalog": "metrics.catalogs",
    "EventProcessor": "delivery",
    "Events": "ledger",
    "FlushReport": "delivery",
    "LDInstrumentError": "errors",
    "Metric": "metrics.metric",
    "Outcome": "sessions.outcomes",
    "Plugin": "delivery",
    "Session": "sessions.session",
    "SessionMetricsTracker": "tracker",
    "Stats": "ledger",
    "Summary": "sessions.summaries",
    "Tracker": "sessions.clients",
    "Values": "ledger",
    "aflush": "delivery",
    "attach": "delivery",
    "bootstrap": "scan.startup",
    "catalog": "metrics.catalogs",
    "current_session": "sessions.current",
    "feedback_token": "ai.feedback",
    "flush": "delivery",
    "identify": "sessions.current",
    "launchdarkly_config": "delivery",
    "open_store": "stores",
    "outcome_of_exception": "sessions.outcomes",
    "propagate": "sessions.threads",
    "session": "sessions.scopes",
    "stats": "sessions.registry",
    "track_ai": "ai.decorators",
    "track_conversion": "sessions.recipes",
    "track_feedback": "ai.feedback",
    "track_interaction": "tasks.decorators",
    "track_revenue": "sessions.recipes",
    "track_satisfaction": "sessions.recipes",
    "track_task": "tasks.decorators",
    "track_task_success": "sessions.recipes",
}

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
    "feedback_token",
    "flush",
    "identify",
    "launchdarkly_config",
    "open_store",
    "outcome_of_exception",
    "propagate",
    "session",
    "stats",
    "track_ai",
    "track_conversion",
    "track_feedback",
    "track_interaction",
    "track_revenue",
    "track_satisfaction",
    "track_task",
    "track_task_success",
]


__getattr__ = public_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
