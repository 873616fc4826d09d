"""Make the `Delta` that a store merges from the `SessionPart` that a session returns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..metrics.catalogs import EventRouting
from ..sessions.accounts import DEFAULT_METRICS
from ..sessions.contexts import kinds
from ..sessions.parts import SessionPart
from ..sessions.rollups import Group
from ..sessions.validation import frozen
from .protocol import Delta
from .records import mark_of
from .segments import StoredSegment, encoded, group_key, keys_of, utf8

OLDEST_EXPOSURE = 24 * 3_600_000
"""Milliseconds: what was exposed earlier than a session may last divides none."""


def delta_of(part: SessionPart) -> Delta:
    """Return what *part* adds to a stored session."""
    context = (
        {}
        if part.context is None
        else {kind: single.key for kind, single in kinds(part.context).items()}
    )
    known = [segment.keys for segment in part.segments if segment.keys] or [context]
    names: dict[str, str] = {}
    return Delta(
        id=part.id,
        name=part.name,
        context=utf8(known[0]),
        started_ago=max(0, part.over - part.started),
        last_ago=max(0, part.over - part.last),
        now=part.over,
        segments=encoded(list(_segments(part, known[0], known[-1])), names, started=part.started),
        names=names,
        becomes=utf8(known[-1]) if known[-1] != known[0] else {},
        metrics=() if part.metrics == DEFAULT_METRICS else part.metrics,
        data=json.dumps(part.data, separators=(",", ":")) if part.data else "",
        exposures={
            mark_of(name): date
            for name, date in part.exposures.items()
            if date > part.over - OLDEST_EXPOSURE
        },
        values=sum(group.count for segment in part.segments for _, group in segment.groups),
    )


def _segments(
    part: SessionPart, first: Mapping[str, str], last: Mapping[str, str]
) -> Iterator[StoredSegment]:
    """Yield the segments of *part*; its start and its last activity may lie outside of them."""
    segments = part.segments
    if not segments:
        yield StoredSegment(keys_of(first), part.started, part.started)
    for segment in segments:
        yield StoredSegment(
            keys_of(segment.keys),
            segment.first,
            segment.last,
            segment.tallies,
            {_key(routing, group): _folded(routing, group) for routing, group in segment.groups},
        )
    if part.last > (segments[-1].last if segments else part.started):
        yield StoredSegment(keys_of(last), part.last, part.last)


def _key(routing: EventRouting, group: Group) -> str:
    return group_key(routing.event_key, routing.rollup, routing.numeric, frozen(group.data))


def _folded(routing: EventRouting, group: Group) -> Group:
    # Only `last` (and a numeric `once`) reports single values; the others would store them in vain.
    if routing.rollup in ("last", "once") and routing.numeric:
        return group
    return replace(group, first=None, last=None)
