"""`apply`: create what is missing, and change what differs when asked to."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

from ..backoff import exponential
from ..errors import ApiError, Conflict, PlanError
from ..rest import MetricsAPI, RemoteMetric
from .changes import Change, Plan, Progress
from .comparing import compared, reading_events_of


def apply(
    plan: Plan,
    api: MetricsAPI,
    *,
    update: bool = False,
    create_context_kinds: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Create what *plan* says is missing; with *update*, also change what differs.

    Args:
        update: patch drifted metrics. Running experiments keep the old version until a new
            iteration.
        create_context_kinds: create missing context kinds and make them available for experiments
            first.
        progress: told how far it is.

    Returns:
        The plan with what happened to each change. A metric that LaunchDarkly refused does not keep
        the others from being created; see `Plan.failed`.

    Raises:
        PlanError: the plan has errors; nothing was done.
        ApiError: a context kind could not be created.

    """
    # A metric that does not exist yet can only be in error for want of its analysis units.
    errors = [
        change for change in plan.errors if change.found is not None or not create_context_kinds
    ]
    refuse_errors(errors)
    if create_context_kinds:
        plan = _with_context_kinds(plan, api)
    return carry_out(plan, api, update=update, progress=progress)


def _with_context_kinds(plan: Plan, api: MetricsAPI) -> Plan:
    kinds = api.context_kinds() if plan.missing_units else {}
    for unit, _ in plan.missing_units:
        if kinds.get(unit, True):
            api.create_context_kind(unit)
        api.add_analysis_unit(unit)
    changes = tuple(
        replace(change, action="create", problem="") if change.action == "error" else change
        for change in plan.changes
    )
    return replace(plan, changes=changes, missing_units=())


def refuse_errors(errors: Sequence[Change]) -> None:
    """Raise `PlanError` when there are any."""
    if errors:
        told = "; ".join(f"{change.metric.key}: {change.problem}" for change in errors)
        raise PlanError(f"nothing was applied: {told}")


def carry_out(
    plan: Plan,
    api: MetricsAPI,
    *,
    update: bool = False,
    shuffled: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Do what *plan* says, except for what it calls an error.

    Args:
        shuffled: in any order, so that processes which start together begin with different metrics,
            and share the work.

    """
    report = progress or (lambda *_: None)
    changes = list(plan.changes)
    work = [position for position, change in enumerate(changes) if _is_work(change, update)]
    if shuffled:
        random.shuffle(work)
    others: dict[str, RemoteMetric] = {}
    hopeless = False
    for number, position in enumerate(work):
        change = changes[position]
        if hopeless:
            changes[position] = replace(change, result="not tried")
            continue
        report(change.metric.key, number, len(work))
        try:
            changes[position] = _carried_out(change, api, others.get(change.metric.key))
        except ApiError as error:
            changes[position] = replace(change, result="failed", failure=error)
            # Only a refusal of this one metric says nothing about the next.
            hopeless = error.status not in (400, 404, 409, 422)
        if changes[position].result == "created by another" and change.metric.key not in others:
            others = _created_meanwhile([changes[later] for later in work[number + 1 :]], api)
    report("", len(work), len(work))
    return replace(plan, changes=tuple(changes))


def _created_meanwhile(changes: Sequence[Change], api: MetricsAPI) -> dict[str, RemoteMetric]:
    """Return what others have created of *changes* by now.

    Each of many processes would otherwise send a create and a look for every metric, and all wait
    for the rate limit.
    """
    try:
        return reading_events_of(
            [change.metric for change in changes if change.action == "create"], api
        )
    except ApiError:
        return {}


def _carried_out(change: Change, api: MetricsAPI, other: RemoteMetric | None) -> Change:
    if change.action != "create":
        return _patch(change, api)
    return _create(change, api) if other is None else _created_by(other, change)


def _created_by(other: RemoteMetric, change: Change) -> Change:
    return replace(compared(change.metric, other, change.place), result="created by another")


def _is_work(change: Change, update: bool) -> bool:
    return change.action == "create" or (
        update and change.action != "error" and bool(change.differences)
    )


def _create(change: Change, api: MetricsAPI) -> Change:
    """Create; when another process was faster, look whether it made the same."""
    for attempt in range(3):
        try:
            found = api.create(change.metric)
            # LaunchDarkly ignores fields that it does not know, without an error: only its answer
            # tells.
            after = compared(change.metric, found, change.place)
            return replace(after if after.differences else change, found=found, result="created")
        except Conflict as error:
            conflict = error
        other = api.find(change.metric.key)
        if other is not None:
            return _created_by(other, change)
        # "Try again later" is LaunchDarkly's own advice for a 409 behind which there is nothing.
        time.sleep(exponential(attempt + 1, 0.1))
    raise conflict


def _patch(change: Change, api: MetricsAPI) -> Change:
    found = api.update(
        change.metric.key,
        {difference.field: difference.wanted for difference in change.differences},
    )
    after = compared(change.metric, found, change.place)
    return (
        replace(after, result="not taken")
        if after.differences
        else replace(change, found=found, result="updated")
    )
