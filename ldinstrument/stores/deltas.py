"""From a `SessionPart` to the `Delta` that a store merges."""

from __future__ import annotations

import json

from ..metrics.catalogs import EventRouting
from ..sessions.accounts import NO_TALLIES, added
from ..sessions.parts import SessionPart
from ..sessions.rollups import Group
from ..sessions.validation import frozen
from .protocol import Delta, GroupValues
from .records import group_key, mark_of, merge_groups


def delta_of(part: SessionPart) -> Delta:
    """Return what *part* adds to a stored session."""
    tallies, groups, keys = NO_TALLIES, dict[str, GroupValues](), dict[str, str]()
    for segment in part.segments:
        tallies, keys = added(tallies, segment.tallies), {**keys, **segment.keys}
        for routing, group in segment.groups:
            key, values = _group(routing, group, part.over)
            groups[key] = merge_groups(groups[key], values) if key in groups else values
    return Delta(
        id=part.id,
        name=part.name,
        context=keys,
        started_ago=max(0, part.over - part.started),
        last_ago=max(0, part.over - part.last),
        tallies=tallies,
        data=json.dumps(part.data, separators=(",", ":")) if part.data else "",
        flags="".join(sorted({mark_of(name) for name in part.exposures})),
        groups=groups,
        values=sum(group.count for segment in part.segments for _, group in segment.groups),
    )


def _group(routing: EventRouting, group: Group, now: int) -> tuple[str, GroupValues]:
    key = group_key(routing.event_key, routing.rollup, routing.numeric, frozen(group.data))
    # Only `last` (and a numeric `once`) reports a single value; the others would store it in vain.
    value = group.last if routing.rollup in ("last", "once") and routing.numeric else None
    ages = now - group.first_at, now - group.last_at
    return key, (group.total, group.count, *ages, value)
