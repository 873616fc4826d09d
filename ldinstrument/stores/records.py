"""A session as a store keeps it: one short JSON text, and how a delta is merged into it.

`redis.lua` does the same on a Redis server, number for number; tests hold both to each other.
Numbers that must not lose a digit travel as text, because Lua's JSON keeps fourteen.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from .protocol import Delta, GroupValues, Merged, Rules

MARK = 6
"""Characters per flag in `Record.flags`."""
MOST_GROUPS = 64
"""Groups that one open session holds; beyond, they leave early as events of their own."""
MOST_FLAGS = 128
"""Flags that one session remembers; evaluating more costs folding, never correctness."""
ROUNDING = 1
"""Milliseconds by which whole ones may date a beginning too early."""
TOMBSTONE_MARK = "-"
"""The first character of a `Tombstone`."""


@dataclass(slots=True)
class Record:
    """A session in a store; dates are milliseconds after `base`, which keeps them short.

    Args:
        id: of the session.
        previous: the visitor's session before it.
        name: the prefix of its metrics.
        base: milliseconds since the epoch, by the store's clock.
        started, last: its first and last activity.
        context: key by context kind.
        tallies: successes, failures, cancelled, abandoned.
        data: its own data, as JSON text.
        flags: marks of the flags it has evaluated.
        groups: folded values by group key.
        reason: why it ended; empty while it is open.
        part: only groups that leave early: no totals, the session goes on.
        before: the place of *previous* and the beginning of its end, as in `Tombstone`; empty when
            that was sealed already.
    """

    id: str
    previous: str
    name: str
    base: int
    started: int
    last: int
    context: dict[str, str]
    tallies: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    data: str = ""
    flags: str = ""
    groups: dict[str, GroupValues] = field(default_factory=dict)
    reason: str = ""
    part: bool = False
    before: str = ""

    def text(self) -> str:
        """Return the record as it is stored; what is empty is left out."""
        fields: dict[str, Any] = {"i": self.id, "p": self.previous, "b": self.base}
        fields |= {"s": self.started, "l": self.last, "c": self.context, "t": self.tallies}
        fields |= {"d": self.data, "x": self.flags, "r": self.reason, "z": self.before}
        if self.name != "session":
            fields["n"] = self.name
        if self.part:
            fields["q"] = 1
        if self.groups:
            fields["g"] = {key: group_fields(group) for key, group in self.groups.items()}
        kept = {key: value for key, value in fields.items() if value or key in "bsl"}
        return json.dumps(kept, separators=(",", ":"))

    def deadline(self, rules: Rules) -> int:
        """Return when it is over if nothing more happens, in milliseconds since the epoch."""
        return self.base + min(
            self.last + int(rules.idle * 1000), self.started + int(rules.maximum * 1000)
        )

    def over(self, began: int, context: dict[str, str], rules: Rules) -> str:
        """Return why activity that began at *began* does not belong to it; empty when it does."""
        if began > self.base + self.last + int(rules.idle * 1000):
            return "idle"
        if began > self.base + self.started + int(rules.maximum * 1000):
            return "maximum"
        differs = any(self.context.get(kind, key) != key for kind, key in context.items())
        return "identified" if differs else ""

    def crosses(self, delta: Delta) -> bool:
        """Tell whether the groups must leave before *delta* is added: no fold crosses an exposure,
        nor grows for ever.
        """
        if not self.groups:
            return False
        if any(mark not in _marks(self.flags) for mark in _marks(delta.flags)):
            return True
        return len(self.groups.keys() | delta.groups.keys()) > MOST_GROUPS

    def take(self, delta: Delta, now: int) -> None:
        """Add *delta*."""
        there = now - self.base
        last = there - delta.last_ago
        if delta.data and (last >= self.last or not self.data):
            self.data = delta.data
        self.started = min(self.started, there - delta.started_ago)
        self.last = max(self.last, last)
        self.context = {**self.context, **delta.context}
        self.tallies = [mine + more for mine, more in zip(self.tallies, delta.tallies, strict=True)]
        known = _marks(self.flags)
        new = [mark for mark in _marks(delta.flags) if mark not in known]
        self.flags += "".join(new[: max(0, MOST_FLAGS - len(known))])
        for key, (total, count, first, latest, value) in delta.groups.items():
            coming = (total, count, there - first, there - latest, value)
            mine = self.groups.get(key)
            self.groups[key] = coming if mine is None else merge_groups(mine, coming)

    def spill(self) -> Record:
        """Move the groups to a record of their own, which may be sealed at once."""
        part = Record(
            self.id,
            "",
            self.name,
            self.base,
            self.started,
            self.last,
            dict(self.context),
            part=True,
        )
        part.groups, self.groups = self.groups, {}
        return part


def parsed(text: str) -> Record:
    """Return a record from its text.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, IndexError: the text is none of ours.
    """
    fields = json.loads(text)
    groups = {key: group_of(group) for key, group in (fields.get("g") or {}).items()}
    return Record(
        id=fields.get("i", ""),
        previous=fields.get("p", ""),
        name=fields.get("n", "session"),
        base=int(fields["b"]),
        started=int(fields["s"]),
        last=int(fields["l"]),
        context=fields.get("c") or {},
        tallies=[int(tally) for tally in fields.get("t", (0, 0, 0, 0))],
        data=fields.get("d", ""),
        flags=fields.get("x", ""),
        groups=groups,
        reason=fields.get("r", ""),
        part=bool(fields.get("q")),
        before=fields.get("z", ""),
    )


def readable(text: str) -> Record | None:
    """Return a record from its text; None if the text is corrupt."""
    try:
        return parsed(text)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What a key holds once its session is over.

    Args:
        id: of the session.
        at: when its end began (of a logout: the request), in milliseconds since the epoch by the
            store's clock: whoever has waited for the end began later.
        place: where its record waits to be sealed, while it does.
    """

    id: str
    at: int
    place: str

    def text(self) -> str:
        """Return the tombstone as it is stored."""
        return f"{TOMBSTONE_MARK}{self.place} {self.at} {self.id}"


def tombstone(held: str | None, began: int) -> Tombstone | None:
    """Return the session that is over and that what began at *began* may be part of, if it still
    waits to be sealed.

    Args:
        held: the text under the key: a tombstone, or a session, which may know the one before it.
        began: in milliseconds since the epoch.
    """
    if held is None:
        return None
    if held.startswith(TOMBSTONE_MARK):
        place, _, rest = held[1:].partition(" ")
        at, _, id = rest.partition(" ")
        return Tombstone(id, int(at), place) if at.isdigit() else None
    record = readable(held) if '"z":"' in held else None
    if record is None or not record.before:
        return None
    place, _, at = record.before.partition(" ")
    return Tombstone(record.previous, int(at), place) if began < int(at) - ROUNDING else None


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a delta makes of the sessions of a key.

    Args:
        record: the session that it went into. With a reason it has ended: with this very delta, or
            earlier (*keeps_place*).
        ended: what else has ended with it: the session before, or groups that leave early.
        answer: to the merge.
        keeps_place: the record had ended and goes back to its place among those that wait to be
            sealed; what the key holds does not change.
        reopened: the record had only fallen silent and goes on: it leaves that place.
        successor: the record was opened because the last of *ended* was over, and has to know its
            place; see `follow`.
    """

    record: Record
    ended: list[Record]
    answer: Merged
    keeps_place: bool = False
    reopened: bool = False
    successor: bool = False

    def follow(self, place: object, began: int) -> None:
        """Let the record know where the one before it waits, whose end began at *began*."""
        if self.successor and self.record.previous:
            self.record.before = f"{place} {began}"


def merge(
    held: str | None, delta: Delta, now: int, rules: Rules, waiting: str | None = None
) -> MergeResult | None:
    """Merge *delta* into the session of a key; None when it only joins and there is nothing to
    join.

    A delta may come late: what began before its session's end belongs to it for as long as that
    waits to be sealed.

    Args:
        held: the text under the key: a record, a tombstone, or None.
        delta: what is added.
        now: the store's clock, in milliseconds since the epoch.
        rules: when a session is over.
        waiting: the record at the place that `tombstone` names, while it waits to be sealed.
    """
    began, dead = now - delta.started_ago, held is None or held.startswith(TOMBSTONE_MARK)
    over = tombstone(held, began)
    previous = over.id if over is not None else ""
    late = _late(over, waiting, delta, began, rules)
    found = late if late is not None or dead else readable(held or "")
    ended: list[Record] = []
    reason = "" if found is None else found.over(began, delta.context, rules)
    if delta.joins and (found is None or reason):
        return None
    if found is not None and reason:
        found.reason, previous = reason, found.id
        ended.append(found)
        found = None
    elif found is not None and found.crosses(delta):
        ended.append(found.spill())
    opened = found is None
    if found is None:
        previous = "" if previous == delta.id else previous
        found = Record(delta.id, previous, delta.name, now, -delta.started_ago, -delta.last_ago, {})
        if dead and waiting and over is not None and previous:
            found.before = f"{over.place} {over.at}"
    found.take(delta, now)
    keeps_place = late is not None and (bool(late.reason) or not dead)
    if not keeps_place:
        found.reason = delta.ends
    return MergeResult(
        found,
        ended,
        Merged(found.id, found.previous, opened, found.context),
        keeps_place=keeps_place,
        reopened=late is not None and not keeps_place,
        successor=opened and bool(ended),
    )


def _late(
    over: Tombstone | None, waiting: str | None, delta: Delta, began: int, rules: Rules
) -> Record | None:
    """Return the session that is over and that *delta* is still part of."""
    record = readable(waiting) if over is not None and waiting else None
    if over is None or record is None or record.id != over.id:
        return None
    if record.over(began, delta.context, rules) or (record.reason and began >= over.at - ROUNDING):
        return None
    return record


def close(
    held: str | None, now: int, reason: str, active: bool, rules: Rules
) -> tuple[Record | None, bool]:
    """End the open session under a key; return it, and whether it was open until now.

    `(None, False)` when there is none.

    Args:
        held: the text under the key.
        now: the store's clock.
        reason: of the end; a session that fell silent long ago keeps that as its reason.
        active: whether to end it is its last activity.
        rules: when a session is over.
    """
    if held is None or held.startswith(TOMBSTONE_MARK):
        return None, False
    record = readable(held)
    if record is None or now > record.deadline(rules):
        return record, False
    record.reason = reason
    if active:
        record.last = max(record.last, now - record.base)
    return record, True


def merge_groups(mine: GroupValues, other: GroupValues) -> GroupValues:
    """Fold two groups of equal data into one; the order does not matter. Of equally late values
    the larger is the last.
    """
    latest = max(
        (mine[3], _rank(mine[4]), mine[4]),
        (other[3], _rank(other[4]), other[4]),
        key=lambda group: group[:2],
    )
    return mine[0] + other[0], mine[1] + other[1], min(mine[2], other[2]), latest[0], latest[2]


def _rank(value: float | None) -> float:
    return float("-inf") if value is None else value


# -- texts -----------------------------------------------------------------------------------------


def group_key(event_key: str, rollup: str, numeric: bool, data: str) -> str:
    """Return the key under which equal values fold; a sweeper needs no catalog to read it."""
    return f"{rollup[0]}{int(numeric)}{event_key}\n{data}"


def group_parts(key: str) -> tuple[str, bool, str, str]:
    """Return `(rollup's initial, numeric, event key, data)` of a group key.

    Data as JSON never holds a raw newline.
    """
    event_key, _, data = key[2:].rpartition("\n")
    return key[0], key[1] == "1", event_key, data


def group_fields(group: GroupValues) -> list[Any]:
    """Return a group as JSON holds it."""
    total, count, first, last, value = group
    same = value is not None and value == total
    return [
        _text(total),
        count,
        first,
        last,
        "=" if same else "" if value is None else _text(value),
    ]


def group_of(fields: list[Any]) -> GroupValues:
    """Return a group from what JSON held."""
    total = _number(fields[0])
    value = total if fields[4] == "=" else None if fields[4] == "" else _number(fields[4])
    return total, int(fields[1]), int(fields[2]), int(fields[3]), value


def _text(number: float) -> str:
    if not isinstance(number, (int, float)):
        raise TypeError("a folded value is a number")
    return repr(number)


def _number(text: Any) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


def mark_of(flag_key: str) -> str:
    """Return the mark of a flag, short and the same in every process; one pair of flags in 16
    million shares one.
    """
    return f"{zlib.crc32(flag_key.encode()) & 0xFFFFFF:06x}"


def _marks(flags: str) -> list[str]:
    return [flags[at : at + MARK] for at in range(0, len(flags), MARK)]
