"""Sessions as the newest events tell them: who, how long, and which tasks ran in them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..events.parsing import number, parsed, units_of

LOOKED_AT = 1_500
SHOWN = 12
MOST_MARKS = 40


@dataclass(frozen=True, slots=True)
class Mark:
    """A task in a timeline: its event key, where it began and how long it took, as shares of the
    session, and its value in words.
    """

    key: str
    start: float
    length: float
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """One session.

    Args:
        id: its `sessionId`.
        name: the prefix of its metrics, such as `session` or `request`.
        who: kind and key of its context.
        over: when it was over, epoch milliseconds.
        milliseconds: how long it took; None when its duration did not come.
        reason: why it ended.
        interactions: successes and failures in it.
        marks: the tasks of the same context in its time.
    """

    id: str
    name: str
    who: str
    over: int
    milliseconds: float | None
    reason: str
    interactions: tuple[int, int]
    marks: tuple[Mark, ...]


def timelines(texts: Iterable[str]) -> list[Timeline]:
    """Return the sessions in the texts of events, the newest first."""
    events = [event for event in map(json.loads, texts) if event.get("kind") == "custom"]
    ended: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        data = event.get("data")
        if isinstance(data, dict) and isinstance(data.get("sessionId"), str):
            ended.setdefault(data["sessionId"], []).append(event)
    newest = list(ended.items())[::-1][:SHOWN]
    return [_timeline(id, own, events) for id, own in newest]


def _timeline(id: str, own: list[dict[str, Any]], events: list[dict[str, Any]]) -> Timeline:
    lengths = [event for event in own if str(event.get("key")).endswith(".duration")]
    shown = lengths[0] if lengths else own[-1]
    milliseconds = number(lengths[0].get("metricValue")) if lengths else None
    over = int(number(shown.get("creationDate")) or 0)
    data = shown["data"]
    units = units_of(parsed(shown))
    start = over - (milliseconds or 0.0)
    inside = [
        event
        for event in events
        if not _is_of_session(event, id)
        and start - 1 <= (number(event.get("creationDate")) or 0) <= over + 1
        and units_of(parsed(event)).items() & units.items()
    ]
    marks = [_mark(event, start, milliseconds or 1.0) for event in inside[:MOST_MARKS]]
    return Timeline(
        id=id,
        name=str(shown.get("key", "")).rpartition(".")[0],
        who=" ".join(f"{kind}:{key}" for kind, key in units.items()),
        over=over,
        milliseconds=milliseconds,
        reason=str(data.get("endReason", "")),
        interactions=(_count(data.get("successes")), _count(data.get("failures"))),
        marks=tuple(marks),
    )


def _is_of_session(event: dict[str, Any], id: str) -> bool:
    data = event.get("data")
    return isinstance(data, dict) and data.get("sessionId") == id


def _mark(event: dict[str, Any], start: float, whole: float) -> Mark:
    at, value = number(event.get("creationDate")) or start, number(event.get("metricValue"))
    key = str(event.get("key", ""))
    length = value if value is not None and key.endswith(".duration") else 0.0
    begin = (at - length - start) / whole
    share = min(1.0, max(0.0, begin))
    text = key if value is None else f"{key} = {value:.6g}"
    return Mark(key, share, min(1.0 - share, max(0.0, length / whole)), text)


def _count(value: Any) -> int:
    found = number(value)
    return int(found) if found is not None else 0
