"""Make the `Delta` that a store merges from the `SessionPart` that a session returns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ..metrics.catalogs import EventRouting
from ..sessions.accounts import DEFAULT_METRICS
from ..sessions.contexts import kinds
from ..sessions.parts import Segment, SessionPart
from ..sessions.rollups import Group
from ..sessions.validation import frozen
from .protocol import Delta
from .records import Folded, group_key, mark_of, segment_text, utf8

OLDEST_EXPOSURE = 24 * 3_600_000
"""Milliseconds: what was exposed earlier than a session may last divides none."""


def delta_of(part: SessionPart) -> Delta:
    """Return what *part* adds to a stored session."""
    known = [segment.keys for segment in part.segments if segment.keys]
    context = {} if part.context is None else _keys(part)
    first, last = (known[0], known[-1]) if known else (context, context)
    return Delta(
        id=part.id,
        name=part.name,
        context=utf8(first),
        started_ago=max(0, part.over - part.started),
        last_ago=max(0, part.over - part.last),
        now=part.over,
        segments=f"[{','.join(_texts(part, first, last))}]",
        becomes=utf8(last) if last != first else {},
        metrics=() if part.metrics == DEFAULT_METRICS else part.metrics,
        data=json.dumps(part.data, separators=(",", ":")) if part.data else "",
        exposures={
            mark_of(name): date
            for name, date in part.exposures.items()
            if date > part.over - OLDEST_EXPOSURE
        },
        values=sum(group.count for segment in part.segments for _, group in segment.groups),
    )


def _keys(part: SessionPart) -> dict[str, str]:
    return (
        {}
        if part.context is None
        else {kind: single.key for kind, single in kinds(part.context).items()}
    )


def _texts(part: SessionPart, first: Mapping[str, str], last: Mapping[str, str]) -> Iterator[str]:
    """Yield the segments of *part*; its start and its last activity may lie outside of them."""
    segments = part.segments
    if not segments or segments[0].first > part.started:
        yield segment_text(first, part.started, part.started)
    for segment in segments:
        yield _text(segment)
    if not segments or segments[-1].last < part.last:
        yield segment_text(last, part.last, part.last)


def _text(segment: Segment) -> str:
    groups = {_key(routing, group): _folded(routing, group) for routing, group in segment.groups}
    return segment_text(segment.keys, segment.first, segment.last, segment.tallies, groups)


def _key(routing: EventRouting, group: Group) -> str:
    return group_key(routing.event_key, routing.rollup, routing.numeric, frozen(group.data))


def _folded(routing: EventRouting, group: Group) -> Folded:
    dates = group.first_at, group.last_at
    # Only `last` (and a numeric `once`) reports single values; the others would store them in vain.
    if routing.rollup not in ("last", "once") or not routing.numeric:
        return (group.total, group.count, *dates, None, None)
    return (group.total, group.count, *dates, group.first, group.last)
