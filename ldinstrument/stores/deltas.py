"""What a request adds to a stored session, in whichever store: its line, and what it changes in the
header (the formats are in `records`).
"""

from __future__ import annotations

from ..metrics.catalogs import EventRouting
from ..sessions.accounts import DEFAULT_METRICS
from ..sessions.contexts import keys_of as keys_by_kind
from ..sessions.parts import SessionPart
from ..sessions.rollups import Group
from ..sessions.validation import frozen
from .protocol import Delta, Operation
from .records import (
    OLDEST_EXPOSURE,
    OVERLAP,
    Keys,
    StoredSegment,
    compact_json,
    encoded,
    group_key,
    keys_of,
    mark_of,
)


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
    first = last = keys_of(known[0])
    if known[-1] is not known[0]:  # others came, of some kinds at least
        last = keys_of({kind: key for keys in known for kind, key in keys.items()})
    segments, began = _stored_segments(part, first, last)

    names: dict[str, str] = {}
    return Delta(
        id=part.id,
        name=part.name,
        context=dict(first),
        started_ago=part.age,
        last_ago=part.idle,
        now=part.over,
        shift=max(0, segments[0].started - segments[0].first),
        segments=encoded(segments, names, started=began),
        names=names,
        becomes=dict(last) if last != first else {},
        overlap=OVERLAP,
        metrics=() if part.metrics == DEFAULT_METRICS else part.metrics,
        data=compact_json(part.data) if part.data else "",
        exposures={
            mark_of(name): date
            for name, date in part.exposures.items()
            if date > part.over - OLDEST_EXPOSURE
        },
        values=sum([group.count for segment in part.segments for _, group in segment.groups]),
        ends=ends,
        operation=operation,
    )


def _stored_segments(part: SessionPart, first: Keys, last: Keys) -> tuple[list[StoredSegment], int]:
    """Return the segments of *part*, whose start and last activity may lie outside of them.

    Args:
        part: what a request recorded.
        first, last: whom it began and ended with.

    Returns:
        The segments, at least one, and when *first* were active already.
    """
    found = [
        StoredSegment(
            keys_of(segment.keys),
            segment.first,
            segment.last,
            segment.tallies,
            {_key(routing, group): _folded(routing, group) for routing, group in segment.groups},
            int(segment.began * 1000 + part.offset),
            int((segment.active or segment.began) * 1000 + part.offset),
        )
        for segment in part.segments
    ]
    began, active = part.over - part.age, part.over - part.idle
    if not found:
        found.append(StoredSegment(first, part.started, part.started, started=began, ended=began))
    elif part.segments[0].active is None and not part.segments[0].groups:
        began = found[0].started  # nothing had happened when they came: they began here
    if active > found[-1].ended:
        found.append(StoredSegment(last, part.last, part.last, started=active, ended=active))
    return found, began


def _key(routing: EventRouting, group: Group) -> str:
    return group_key(routing.event_key, routing.rollup, routing.numeric, frozen(group.data))


def _folded(routing: EventRouting, group: Group) -> Group:
    # Only `last` (and a numeric `once`) reports single values; the others would store them in vain.
    if routing.rollup in ("last", "once") and routing.numeric:
        return group
    return group.replace(first=None, last=None)
