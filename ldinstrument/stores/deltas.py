"""Make the `Delta` that a store merges from the `SessionPart` that a session returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from ..metrics.catalogs import EventRouting
from ..sessions.accounts import DEFAULT_METRICS
from ..sessions.contexts import keys_of as keys_by_kind
from ..sessions.parts import SessionPart
from ..sessions.rollups import Group
from ..sessions.validation import frozen
from .protocol import Delta, Operation
from .records import mark_of
from .segments import StoredSegment, encoded, group_key, keys_of

OLDEST_EXPOSURE = 24 * 3_600_000
"""Milliseconds: what was exposed earlier than a session may last divides none."""


def delta_of(part: SessionPart, *, ends: str = "", operation: Operation | None = None) -> Delta:
    """Return what *part* adds to a stored session.

    Args:
        part: what a request recorded.
        ends: the reason with which it ends the session, too; empty when it goes on.
        operation: names the merge.
    """
    known = [segment.keys for segment in part.segments if segment.keys]
    if not known:
        known = [{} if part.context is None else keys_by_kind(part.context)]
    names: dict[str, str] = {}
    return Delta(
        id=part.id,
        name=part.name,
        context=dict(keys_of(known[0])),
        started_ago=max(0, part.over - part.started),
        last_ago=max(0, part.over - part.last),
        now=part.over,
        segments=encoded(_segments(part, known[0], known[-1]), names, started=part.started),
        names=names,
        becomes=dict(keys_of(known[-1])) if known[-1] != known[0] else {},
        metrics=() if part.metrics == DEFAULT_METRICS else part.metrics,
        data=json.dumps(part.data, separators=(",", ":")) if part.data else "",
        exposures={
            mark_of(name): date
            for name, date in part.exposures.items()
            if date > part.over - OLDEST_EXPOSURE
        },
        values=sum([group.count for segment in part.segments for _, group in segment.groups]),
        ends=ends,
        operation=operation,
    )


def _segments(
    part: SessionPart, first: Mapping[str, str], last: Mapping[str, str]
) -> list[StoredSegment]:
    """Return the segments of *part*; its start and its last activity may lie outside of them."""
    found = [
        StoredSegment(
            keys_of(segment.keys),
            segment.first,
            segment.last,
            segment.tallies,
            {_key(routing, group): _folded(routing, group) for routing, group in segment.groups},
        )
        for segment in part.segments
    ]
    if not found:
        found.append(StoredSegment(keys_of(first), part.started, part.started))
    if part.last > found[-1].last:
        found.append(StoredSegment(keys_of(last), part.last, part.last))
    return found


def _key(routing: EventRouting, group: Group) -> str:
    return group_key(routing.event_key, routing.rollup, routing.numeric, frozen(group.data))


def _folded(routing: EventRouting, group: Group) -> Group:
    # Only `last` (and a numeric `once`) reports single values; the others would store them in vain.
    if routing.rollup in ("last", "once") and routing.numeric:
        return group
    return replace(group, first=None, last=None)
