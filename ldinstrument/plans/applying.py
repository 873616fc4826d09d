"""`apply`: create what is missing, and change what differs when asked to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

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
        update: patch drifted metrics. Running experiments keep the old version until a new iteration.
        create_context_kinds: create missing context kinds and make them available for experiments first.
        progress: told how far it is.

    Returns:
        The plan with what happened to each change. A metric that LaunchDarkly refused does not keep the others from
        being created; see `Plan.failed`.

    Raises:
        PlanError: the plan has errors; nothing was done.
        ApiError: a context kind could not be created.
    """
    # A metric that does not exist yet can only be in error for want of its analysis units.
    errors = [change for change in plan.errors if change.found is not None or not create_context_kinds]
    if errors:
        raise PlanError(
            "nothing was applied: " + "; ".join(f"{change.metric.key}: {change.problem}" for change in errors)
        )
    if create_context_kinds:
        plan = _with_context_kinds(plan, api)
    return carry_out(plan, api, update, progress or (lambda *_: None))


def _with_context_kinds(plan: Plan, api: MetricsAPI) -> Plan:
    kinds = api.context_kinds() if plan.missing_units else {}
    for unit, _ in plan.missing_units:
        if kinds.get(unit, True):
            api.create_context_kind(unit)
        api.add_analysis_unit(unit)
    changes = tuple(
        replace(change, action="create", problem="") if change.action == "error" else change for change in plan.changes
    )
    return replace(plan, changes=changes, missing_units=())


def carry_out(plan: Plan, api: MetricsAPI, update: bool, report: Progress) -> Plan:
    """Do what *plan* says, except for what it calls an error."""
    done: list[Change] = []
    others: dict[str, RemoteMetric] = {}
    hopeless = False
    todo = sum(_is_work(change, update) for change in plan.changes)
    for position, change in enumerate(plan.changes):
        if not _is_work(change, update):
            done.append(change)
            continue
        if hopeless:
            done.append(replace(change, result="not tried"))
            continue
        report(change.metric.key, sum(bool(one.result) for one in done), todo)
        try:
            done.append(_carried_out(change, api, others.get(change.metric.key)))
        except ApiError as error:
            done.append(replace(change, result="failed", failure=error))
            # Only a refusal of this one metric says nothing about the next.
            hopeless = error.status not in (400, 404, 409, 422)
        if done[-1].result == "created by another" and change.metric.key not in others:
            others = _created_meanwhile(plan.changes[position + 1 :], api)
    report("", todo, todo)
    return replace(plan, changes=tuple(done))


def _created_meanwhile(changes: Sequence[Change], api: MetricsAPI) -> dict[str, RemoteMetric]:
    """What others have created of *changes* by now: processes that start together then share the work.

    Each would otherwise send a create and a look for every single metric, and all of them wait for the rate limit.
    """
    try:
        return reading_events_of([change.metric for change in changes if change.action == "create"], api)
    except ApiError:
        return {}


def _carried_out(change: Change, api: MetricsAPI, other: RemoteMetric | None) -> Change:
    if change.action != "create":
        return _patch(change, api)
    return _create(change, api) if other is None else _created_by(other, change)


def _created_by(other: RemoteMetric, change: Change) -> Change:
    return replace(compared(change.metric, other, change.place), result="created by another")


def _is_work(change: Change, update: bool) -> bool:
    return change.action == "create" or (update and change.action != "error" and bool(change.differences))


def _create(change: Change, api: MetricsAPI) -> Change:
    """Create; when another process was faster, look whether it made the same."""
    for attempt in range(3):
        try:
            found = api.create(change.metric)
            # LaunchDarkly ignores fields that it does not know, without an error: only its answer tells.
            after = compared(change.metric, found, change.place)
            return replace(after if after.differences else change, found=found, result="created")
        except Conflict as error:
            conflict = error
        other = api.find(change.metric.key)
        if other is not None:
            return _created_by(other, change)
        # "Try again later" is LaunchDarkly's own advice for a 409 behind which there is nothing.
        time.sleep(0.1 * 2**attempt)
    raise conflict


def _patch(change: Change, api: MetricsAPI) -> Change:
    found = api.update(change.metric.key, {one.field: one.wanted for one in change.differences})
    after = compared(change.metric, found, change.place)
    return replace(after, result="not taken") if after.differences else replace(change, found=found, result="updated")
