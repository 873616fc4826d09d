"""What the session of one request adds to the stored session of a visit."""

from __future__ import annotations

import json

from ..accumulator import clock
from ..contexts import kinds
from ..data import frozen
from ..metrics import EventRule
from ..outcomes import OUTCOMES
from ..rollups import Group
from ..sessions import Session
from .protocol import Delta, GroupValues
from .records import group_key, mark_of


def delta_of(session: Session, folded: list[tuple[EventRule, Group]]) -> Delta:
    """What a session that has handed over adds to a stored one; dates become ages, by the worker's steady clock."""
    at = clock()
    today = at * 1000 + session._offset_ms
    groups = dict(_group(rule, group, today) for rule, group in folded if group.count)
    known = session.context
    tallies = session._tallies
    return Delta(
        id=session.id,
        name=session.name,
        context={} if known is None else {kind: part.key for kind, part in kinds(known).items()},
        started_ago=max(0, int((at - session._started) * 1000)),
        last_ago=max(0, int((at - session._last) * 1000)),
        tallies=(tallies[OUTCOMES[0]], tallies[OUTCOMES[1]], tallies[OUTCOMES[2]], tallies[OUTCOMES[3]]),
        data=json.dumps(session._data, separators=(",", ":")) if session._data else "",
        flags="".join(sorted({mark_of(flag) for flag in session._exposed_flags})),
        groups=groups,
        values=sum(group.count for _, group in folded),
    )


def _group(rule: EventRule, group: Group, today: float) -> tuple[str, GroupValues]:
    key = group_key(rule.event_key, rule.rollup, rule.numeric, frozen(group.data))
    # Only `last` (and a numeric `once`) reports a single value; the others would store it in vain.
    value = group.last if rule.rollup in ("last", "once") and rule.numeric else None
    return key, (group.total, group.count, int(today - group.first_at), int(today - group.last_at), value)
