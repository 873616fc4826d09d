"""LaunchDarkly's recipe in one call each: conversion, satisfaction, revenue, task success,
feedback.

In a session (of the same context) they record there; elsewhere, and for another `context=`, each
call is one event of its own, within the metric's `limit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..diagnostics import guard
from .clients import Tracker
from .contexts import as_context, same
from .current import current_session
from .scopes import open_session
from .session import Session


@contextmanager
def _receiver(context: Any, client: Tracker | None) -> Iterator[Session]:
    """Find the session that receives: the current one, or one for this call alone."""
    who, found = as_context(context), current_session()
    if (
        found is not None
        and client in (None, found.client)
        and _is_of(found, who, given=context is not None)
    ):
        yield found
        return
    alone = open_session(who, name="task", client=client, silent=True)
    try:
        yield alone
    finally:
        alone.end()


def _is_of(found: Session, who: Any, *, given: bool) -> bool:
    if who is None:
        return not given
    known = found.context
    return known is not None and same(known, who)


def track_conversion(
    value: Any = 0.0, *, context: Any = None, client: Tracker | None = None, **data: Any
) -> None:
    """Record `business.conversion`: *value* in dollars. `config_key=` becomes `configKey` in the
    data.
    """
    with guard("recipe"), _receiver(context, client) as session:
        session.conversion(value, **data)


def track_satisfaction(
    score: Any, *, context: Any = None, client: Tracker | None = None, **data: Any
) -> None:
    """Record `user.satisfaction` (0 to 100), and `user.negative_feedback` below 50."""
    with guard("recipe"), _receiver(context, client) as session:
        session.satisfaction(score, **data)


def track_revenue(
    value: Any, *, context: Any = None, client: Tracker | None = None, **data: Any
) -> None:
    """Record `revenue.impact`: *value* in dollars, only when it is above 0."""
    with guard("recipe"), _receiver(context, client) as session:
        session.revenue(value, **data)


def track_task_success(
    task_type: str,
    success: bool,
    *,
    context: Any = None,
    client: Tracker | None = None,
    **data: Any,
) -> None:
    """Record `task.success_rate`: 1 or 0, with *task_type* as `taskType` in the data."""
    with guard("recipe"), _receiver(context, client) as session:
        session.task_success(task_type, success, **data)


def track_feedback(
    positive: bool, *, context: Any = None, client: Tracker | None = None, **data: Any
) -> None:
    """Record a thumb: satisfaction 100 or 0, and `user.negative_feedback` for a thumb down."""
    with guard("recipe"), _receiver(context, client) as session:
        session.feedback(positive, **data)
