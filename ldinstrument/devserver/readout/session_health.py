"""What only the events of sessions show: how much of them lies before the exposure, and whether the
library that sent them sees the exposures at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..database import Database
from ..events.parsing import BIGGEST, number, parsed, units_of

LOOKED_AT = 2_000
"""So many of the newest events of a key are looked at."""
ENOUGH = 5
"""So many sessions that count are no chance."""
THIN = 0.1
ROUNDING = 2.0
"""Milliseconds that dates, which are whole ones, may make of nothing."""
MOST_BYTES = 16 * 1024 * 1024
"""So much of the newest bodies is read, whatever is in them."""
MOST_MEASUREMENTS = 200_000
AT_ONCE = 4
NEWEST = """
SELECT b.first_event, b.body, '' FROM bodies b WHERE b.post IN (SELECT post FROM post_keys
  WHERE kind = 'custom' AND key = ?) AND b.first_event < ? ORDER BY b.first_event DESC LIMIT ?
"""
EXPOSED = """
SELECT min(x.first) FROM units u JOIN exposures x ON x.unit = u.id WHERE u.kind = ? AND u.key = ?
"""
UNWATCHED = """
SELECT coalesce(sum(k.events), 0) FROM posts p JOIN post_keys k ON k.post = p.id
WHERE k.kind = 'custom' AND k.key = ? AND NOT p.duplicate AND p.wrapper = ''
  AND (p.agent LIKE 'PythonClient/%' OR p.agent LIKE 'PythonAsyncClient/%')
"""
UNWATCHED_SESSIONS = """
SELECT b.first_event, b.body, '' FROM bodies b WHERE b.post IN (SELECT p.id FROM posts p
  JOIN post_keys k ON k.post = p.id WHERE k.kind = 'custom' AND p.wrapper = ''
  AND (p.agent LIKE 'PythonClient/%' OR p.agent LIKE 'PythonAsyncClient/%')
  AND (k.key LIKE '%.duration' OR k.key LIKE '%.interactions' OR k.key LIKE '%.success_rate'))
  AND b.first_event < ? ORDER BY b.first_event DESC LIMIT ?
"""
"""Bodies of a client without our `Plugin` that seem to have the totals of sessions in them."""
ELSEWHERE = """
SELECT b.first_event, b.body, p.agent FROM bodies b JOIN posts p ON p.id = b.post
WHERE NOT (p.agent LIKE 'Python%' AND p.wrapper <> '')
  AND b.post IN (SELECT post FROM post_keys WHERE kind = 'feature') AND b.first_event < ?
ORDER BY b.first_event DESC LIMIT ?
"""
MEASURED = """
SELECT DISTINCT u.kind, u.key FROM measurements m JOIN units u ON u.id = m.unit
WHERE m.id > (SELECT max(id) FROM measurements) - ?
  AND m.series = (SELECT id FROM names WHERE space = 'series' AND name = ?)
"""


@dataclass(slots=True)
class Share:
    """How much of the sessions that count lies before their exposure.

    Args:
        sessions: those that count.
        diluted: those of them with a part before it.
        before, whole: of what is measured, all together.
    """

    sessions: int = 0
    diluted: int = 0
    before: float = 0.0
    whole: float = 0.0

    def add(self, before: float, whole: float) -> None:
        """Add one session."""
        self.sessions += 1
        self.diluted += before > 0
        self.before += before
        self.whole += whole

    @property
    def thin(self) -> bool:
        """Whether effects show noticeably thinner."""
        return self.sessions >= ENOUGH and self.before > THIN * self.whole

    def __str__(self) -> str:
        share = self.before / self.whole if self.whole else 0.0
        return (
            f"{self.diluted} of {self.sessions} sessions that count were active before their "
            f"exposure, for {share:.0%} of their {{}}: an effect of 10 % shows as about "
            f"{10 * (1 - share):.1f} %"
        )


def dilution(database: Database, event_key: str) -> str:
    """Say how much of the sessions behind *event_key* lies before their exposure.

    Empty where it is little, or where *event_key* is no duration or rate of sessions.
    """
    name, _, suffix = event_key.rpartition(".")
    if suffix == "duration":
        share, what = _time_before(database, event_key), "time"
    elif suffix == "success_rate":
        share, what = _interactions_before(database, f"{name}.interactions"), "interactions"
    else:
        return ""
    return str(share).format(what) if share.thin else ""


def _time_before(database: Database, event_key: str) -> Share:
    """Measure time: a session was over at its event's date, and began its duration before that."""
    share, first = Share(), _FirstExposures(database)
    for unit, event in _session_events(database, event_key):
        over, duration = event["creationDate"], number(event.get("metricValue")) or 0.0
        exposed = first.get(unit)
        if exposed is not None and exposed <= over:
            before = exposed - (over - duration) - ROUNDING
            share.add(min(duration, max(0.0, before)), duration)
    return share


def _interactions_before(database: Database, event_key: str) -> Share:
    """Measure interactions: those before an exposure leave with a date before it."""
    share, first = Share(), _FirstExposures(database)
    found: dict[tuple[Any, str], list[tuple[int, float]]] = {}
    for unit, event in _session_events(database, event_key):
        part = event["creationDate"], number(event.get("metricValue")) or 0.0
        found.setdefault((unit, event["data"]["sessionId"]), []).append(part)
    for (unit, _), parts in found.items():
        exposed = first.get(unit)
        if exposed is not None and exposed <= max(at for at, _ in parts):
            before = sum(value for at, value in parts if at < exposed)
            share.add(before, sum(value for _, value in parts))
    return share


class _FirstExposures:
    """When a unit was first exposed, asked for one by one: there may be millions."""

    def __init__(self, database: Database):
        self.database = database
        self._known: dict[tuple[str, str], int | None] = {}

    def get(self, unit: tuple[str, str]) -> int | None:
        """Return the date, or None."""
        if unit not in self._known:
            self._known[unit] = self.database.rows(EXPOSED, unit)[0][0]
        return self._known[unit]

    def __contains__(self, unit: tuple[str, str]) -> bool:
        return self.get(unit) is not None


def _newest_bodies(database: Database, sql: str, *parameters: Any) -> Iterator[tuple[bytes, str]]:
    """Yield bodies and the agents that sent them, the newest first, some at a time."""
    before, left = BIGGEST, MOST_BYTES
    while left > 0 and (found := database.rows(sql, (*parameters, before, AT_ONCE))):
        for first, body, agent in found:
            before, left = first, left - len(body)
            yield body, agent
            if left <= 0:
                return


def _session_events(
    database: Database, event_key: str
) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield the newest events of *event_key* that sessions have sent, with each of their units."""
    left = LOOKED_AT
    for body, _ in _newest_bodies(database, NEWEST, event_key):
        for event in json.loads(body):
            if left and isinstance(event, dict) and _is_of_session(event, event_key):
                left -= 1
                for unit in units_of(parsed(event)).items():
                    yield unit, event
        if not left:
            return


def _is_of_session(event: dict[str, Any], event_key: str) -> bool:
    return (
        event.get("kind") == "custom"
        and event.get("key") == event_key
        and type(event.get("creationDate")) is int
        and _has_session(event)
    )


def _has_session(event: dict[str, Any]) -> bool:
    data = event.get("data")
    return isinstance(data, dict) and isinstance(data.get("sessionId"), str)


def changed_keys(database: Database, event_key: str) -> str:
    """Say how many sessions went on under a key that was not exposed, after one that was.

    Empty for none, and where *event_key* is no duration of sessions.
    """
    if not event_key.endswith(".duration"):
        return ""
    first = _FirstExposures(database)
    keys: dict[tuple[str, str], dict[str, bool]] = {}
    for (kind, key), event in _session_events(database, event_key):
        keys.setdefault((event["data"]["sessionId"], kind), {})[key] = (kind, key) in first
    several = [exposed for exposed in keys.values() if len(exposed) > 1]
    lost = sum(any(exposed.values()) and not all(exposed.values()) for exposed in several)
    if not lost:
        return ""
    return f"{lost} sessions have one key that was exposed and another one that was not"


def unwatched(database: Database, event_key: str) -> str:
    """Say how many events came from a client whose exposures nobody sees, where sessions come from
    such a client, too: who only tracks by hand needs nobody to see them.

    Empty for none.
    """
    (count,) = database.rows(UNWATCHED, (event_key,))[0]
    if not count or not _has_unwatched_sessions(database):
        return ""
    return f"{count} events came from a client of sessions without ldinstrument's Plugin"


def _has_unwatched_sessions(database: Database) -> bool:
    return any(
        isinstance(event, dict) and _has_session(event)
        for body, _ in _newest_bodies(database, UNWATCHED_SESSIONS)
        for event in json.loads(body)
    )


def exposed_elsewhere(database: Database, event_key: str) -> str:
    """Say how many of the units of *event_key* a client has exposed that ldinstrument does not see.

    Empty for none, and where the events themselves come from such a client: they aggregate nothing.
    """
    bodies = _newest_bodies(database, ELSEWHERE)
    newest = next(bodies, None)
    if newest is None or database.rows(UNWATCHED, (event_key,))[0][0]:
        return ""
    measured = set(database.rows(MEASURED, (MOST_MEASUREMENTS, f"={event_key}")))
    units, agents = set(), set()
    for body, agent in chain([newest], bodies):
        for event in json.loads(body):
            if _is_exposure(event) and (found := measured & units_of(parsed(event)).items()):
                units |= found
                agents.add(agent.partition("/")[0] or "another client")
    if not units:
        return ""
    return (
        f"{len(units)} of {len(measured)} units were exposed by {' and '.join(sorted(agents))}, "
        "where ldinstrument does not see it"
    )


def _is_exposure(event: Any) -> bool:
    reason = event.get("reason") if isinstance(event, dict) else None
    in_experiment = isinstance(reason, dict) and reason.get("inExperiment") is True
    return in_experiment and event.get("kind") == "feature"
