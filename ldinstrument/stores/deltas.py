"""From a `SessionPart` to the `Delta` that a store merges."""

from __future__ import annotations

import json

from ..clock import clock
from ..metrics.catalogs import EventRouting
from ..sessions.contexts import kinds
from ..sessions.outcomes import OUTCOMES
from ..sessions.parts import Segment, SessionPart
from ..sessions.rollups import Group
from ..sessions.session import Session
from ..sessions.validation import frozen
from .protocol import Delta, GroupValues
from .records import group_key, mark_of


def delta_of(part: SessionPart) -> Delta:
    """Return what *part* adds to a stored session."""
    (segment,) = part.segments
    return Delta(
        id=part.id,
        name=part.name,
        context=dict(segment.keys),
        started_ago=max(0, int(part.now - part.started)),
        last_ago=max(0, int(part.now - part.last)),
        tallies=segment.tallies,
        data=json.dumps(part.data, separators=(",", ":")) if part.data else "",
        flags="".join(sorted({mark_of(flag) for flag in segment.exposures})),
        groups=dict(_group(routing, group, part.now) for routing, group in segment.groups),
        values=part.values,
    )


def _group(routing: EventRouting, group: Group, now: float) -> tuple[str, GroupValues]:
    key = group_key(routing.event_key, routing.rollup, routing.numeric, frozen(group.data))
    # Only `last` (and a numeric `once`) reports a single value; the others would store it in vain.
    value = group.last if routing.rollup in ("last", "once") and routing.numeric else None
    ages = int(now - group.first_at), int(now - group.last_at)
    return key, (group.total, group.count, *ages, value)


def part_of(session: Session) -> SessionPart:
    """Return what *session* leaves (until `Session.leave` does so)."""
    taken = session.hand_over()
    folded, loose = taken or ([], [])
    known, now = session.context, clock()
    offset = session._offset_ms
    tallies = [session._tallies[outcome] for outcome in OUTCOMES[:4]]
    keys = {} if known is None else {kind: part.key for kind, part in kinds(known).items()}
    segment = Segment(
        session._started * 1000 + offset,
        keys,
        tuple(session._exposed_flags),
        (tallies[0], tallies[1], tallies[2], tallies[3]),
        groups=tuple((routing, group) for routing, group in folded if group.count),
    )
    visitor = session._given_id or (session.id if known is None else known.fully_qualified_key)
    return SessionPart(
        session.id,
        session.name,
        (),
        visitor,
        session._data,
        known,
        session.client,
        now * 1000 + offset,
        session._last * 1000 + offset,
        () if taken is None else (segment,),
        tuple(loose),
    )
