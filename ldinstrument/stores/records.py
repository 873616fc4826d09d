r"""A session as a store keeps it: text, and how a delta is merged into it.

The text is a header, one line of JSON, and a line per delta (see `segments`). Merging
reads and writes the header only and adds a line, which is all that `redis.lua` has to do on a
Redis server; what the lines amount to is worked out when the session is reported (see `replay`).

The header's fields, empty ones left out:
    v version of this format        i id                    p id of the session before
    n name                          m metrics               h the store's clock when it was opened
    s, l start and last activity by the store's clock, after h
    c current key by context kind   d own data as JSON      x date of exposures by mark
    r reason of the end             o date of the end       z place and end of the session before
    u number of lines               g the merge that opened it
    w parts that left early         q number of this part
    y accounts that a part reports, [kind, key]
    k group keys by their marks
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .protocol import Delta, Merged, Rules, today
from .segments import StoredSegment, encoded, keys_of

VERSION = 2
MOST_LINES = 32
"""Lines after which a record is compacted."""
LINE_BYTES = 512
"""What counts as one line; a longer one counts as several."""
ROUNDING = 1
"""Milliseconds by which whole ones may date a beginning too early."""
OLD_EXPOSURE = 300_000
"""Milliseconds before a visit: what was exposed earlier hardly divides a part that comes late."""
TOMBSTONE_MARK = "-"
"""The first character of a `Tombstone`."""
PLACES_PER_WINDOW = 100_000


@dataclass(slots=True)
class Record:
    """A session in a store.

    Args:
        id: of the session.
        previous: the visitor's session before it.
        name: the prefix of its metrics.
        opened_at: milliseconds since the epoch, by the store's clock.
        started, last: its first and last activity, milliseconds after that.
        keys: the current key by context kind.
        metrics: which `<name>.*` metrics it feeds; empty for the default ones.
        data: its own data, as JSON text.
        exposures: the date of each exposure known to it, by mark.
        names: the group keys of its values, by mark.
        lines: what was merged, each line JSON; see `segments`.
        reason: why it ended; empty while it is open.
        over: the date of that end by the clock of the worker that said so; 0 if it fell silent.
        part: 0, or the number of a part that left early while the session goes on.
        accounts: of a part: whose `<name>.*` events it reports, as (kind, key).
        parts: how many parts have left early.
        before: the place of *previous* and the beginning of its end, as in `Tombstone`; empty when
            that was sealed already.
        opened_by: names the merge that opened it.
    """

    id: str
    previous: str
    name: str
    opened_at: int
    started: int
    last: int
    keys: dict[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    data: str = ""
    exposures: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    reason: str = ""
    over: int = 0
    part: int = 0
    accounts: tuple[tuple[str, str], ...] = ()
    parts: int = 0
    before: str = ""
    opened_by: str = ""

    @property
    def identity(self) -> str:
        """The same text for the same session, whatever was lost of it; see `reporting`."""
        return f"{self.id} {self.opened_at} {self.opened_by} {self.part}"

    def text(self) -> str:
        """Return the record as it is stored."""
        fields: dict[str, Any] = {"v": VERSION, "i": self.id, "h": self.opened_at}
        fields |= {"s": self.started, "l": self.last, "u": len(self.lines)}
        optional = {
            "p": self.previous,
            "n": "" if self.name == "session" else self.name,
            "m": ",".join(self.metrics),
            "c": self.keys,
            "d": self.data,
            "x": self.exposures,
            "k": self.names,
            "r": self.reason,
            "o": self.over,
            "z": self.before,
            "g": self.opened_by,
            "w": self.parts,
            "q": self.part,
            "y": self.accounts,
        }
        fields |= {name: value for name, value in optional.items() if value}
        return "\n".join([json.dumps(fields, separators=(",", ":")), *self.lines])

    def deadline(self, rules: Rules) -> int:
        """Return when it is over if nothing more happens, in milliseconds since the epoch."""
        return self.opened_at + min(
            self.last + int(rules.idle * 1000), self.started + int(rules.maximum * 1000)
        )

    def ended_at(self, now: int, rules: Rules) -> int:
        """Return when it ended by the store's clock: *now*, unless it fell silent before."""
        return now if self.over or self.part else min(now, self.deadline(rules))

    def refuses(self, began: int, context: Mapping[str, str], rules: Rules) -> str:
        """Return why activity that began at *began* does not belong to it; empty when it does."""
        if began > self.opened_at + self.last + int(rules.idle * 1000):
            return "idle"
        if began > self.opened_at + self.started + int(rules.maximum * 1000):
            return "maximum"
        same = [self.keys[kind] == key for kind, key in context.items() if kind in self.keys]
        return "identified" if same and not any(same) else ""

    def take(self, delta: Delta, now: int) -> None:
        """Add *delta*."""
        there = now - self.opened_at
        last = there - delta.last_ago
        if delta.data and (last >= self.last or not self.data):
            self.data = delta.data
        self.started = min(self.started, there - delta.started_ago)
        self.last = max(self.last, last)
        self.keys |= {**delta.context, **delta.becomes}
        self.metrics = delta.metrics or self.metrics
        oldest = self.opened_at + self.started - (now - delta.now) - OLD_EXPOSURE
        for mark, date in delta.exposures.items():
            if date > oldest:
                self.exposures[mark] = min(date, self.exposures.get(mark, date))
        self.names |= delta.names
        self.lines.append(line(now - delta.now, segments_text(delta)))

    @property
    def length(self) -> int:
        """How many lines it has, long ones and what they mention counted by their bytes."""
        size = sum(map(len, self.lines)) + sum(map(len, self.names.values()))
        return max(len(self.lines), size // LINE_BYTES)

    def touch(self, now: int, date: int) -> None:
        """Note activity at *date*, which is *now* by the store's clock."""
        self.last = max(self.last, now - self.opened_at)
        self.lines.append(line(now - date, f"{date},[[]]"))


def segments_text(delta: Delta) -> str:
    """Return what *delta* recorded, as the part of a line that follows its offset."""
    if delta.segments:
        return delta.segments
    first, last = delta.now - delta.started_ago, delta.now - delta.last_ago
    segment = StoredSegment(keys_of(delta.context), first, last, delta.tallies)
    return encoded([segment], {})


def line(offset: int, segments: str) -> str:
    """Return a line of a record: JSON segments, and the store's clock minus the worker's."""
    return f"[{offset},{segments}]"


def parsed(text: str) -> Record:
    """Return a record from its text.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the text is not a record of this version.
    """
    header, *lines = text.split("\n")
    fields = json.loads(header)
    if fields["v"] != VERSION or not lines:
        raise ValueError("a record of another version")
    metrics = fields.get("m", "")
    return Record(
        id=fields["i"],
        previous=fields.get("p", ""),
        name=fields.get("n", "session"),
        opened_at=int(fields["h"]),
        started=int(fields["s"]),
        last=int(fields["l"]),
        keys=dict(fields.get("c") or {}),
        metrics=tuple(metrics.split(",")) if metrics else (),
        data=fields.get("d", ""),
        exposures={mark: int(date) for mark, date in (fields.get("x") or {}).items()},
        names=dict(fields.get("k") or {}),
        lines=lines,
        reason=fields.get("r", ""),
        over=int(fields.get("o", 0)),
        part=int(fields.get("q", 0)),
        accounts=tuple((kind, key) for kind, key in fields.get("y", ())),
        parts=int(fields.get("w", 0)),
        before=fields.get("z", ""),
        opened_by=fields.get("g", ""),
    )


def readable(text: str) -> Record | None:
    """Return a record from its text; None if it is corrupt or of another version."""
    try:
        return parsed(text)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


# -- sessions that are over ------------------------------------------------------------------------


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


def window_of(ended_at: int, rules: Rules) -> int:
    """Return the number of the window in which a session ended; places of a batch begin with it."""
    return ended_at // int(rules.window * 1000)


def place_in(window: int, number: int) -> int:
    """Return the place of the *number*-th session that ended, in *window*."""
    return window * PLACES_PER_WINDOW + number % PLACES_PER_WINDOW


def window_at(place: int | str) -> int:
    """Return the window of a place."""
    return int(place) // PLACES_PER_WINDOW


def batch_due(window: int, rules: Rules) -> int:
    """Return when a window is over, so that its batch does not grow any more."""
    return (window + 1) * int(rules.window * 1000)


# -- merging ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a delta makes of the sessions of a key.

    Args:
        record: the session that it went into. With a reason it has ended: with this very delta, or
            earlier (*keeps_place*).
        ended: the session before it, if that has ended now.
        answer: to the merge.
        keeps_place: the record had ended and goes back to its place among those that wait to be
            sealed; what the key holds does not change.
        reopened: the record had only fallen silent and goes on: it leaves that place.
    """

    record: Record
    ended: Record | None
    answer: Merged
    keeps_place: bool = False
    reopened: bool = False

    def follow(self, place: object, began: int) -> None:
        """Let the record know where the one before it waits, whose end began at *began*."""
        if self.record.previous:
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
    late = _late(over, waiting, delta, began, rules)
    found = late if late is not None or dead else readable(held or "")
    reason = "" if found is None else found.refuses(began, delta.context, rules)
    if delta.joins and (found is None or reason):
        return None
    if found is None or reason:
        waits = waiting if dead else None
        return _open_next(delta, now, _ended(found, reason, delta), over, waits)
    keeps_place = late is not None and (bool(late.reason) or not dead)
    reopened = late is not None and not keeps_place
    _take(found, delta, now, ends=not keeps_place)
    return MergeResult(found, None, _answer(found), keeps_place, reopened)


def _take(record: Record, delta: Delta, now: int, *, ends: bool = True) -> None:
    record.take(delta, now)
    if ends and delta.ends:
        record.reason, record.over = delta.ends, delta.now


def _answer(record: Record, *, opened: bool = False) -> Merged:
    return Merged(record.id, record.previous, opened, dict(record.keys))


def _ended(record: Record | None, reason: str, delta: Delta) -> Record | None:
    """End a session that *delta* does not belong to; that it is somebody else's is known to
    date.
    """
    if record is not None:
        record.reason = reason
        record.over = delta.now - delta.started_ago if reason == "identified" else 0
    return record


def _open_next(
    delta: Delta, now: int, ended: Record | None, over: Tombstone | None, waiting: str | None
) -> MergeResult:
    """Open a session with *delta*, which knows the one before it, if there is one."""
    before = ended.id if ended is not None else over.id if over is not None else ""
    record = _opened(delta, now, "" if before == delta.id else before)
    if waiting and ended is None and over is not None and record.previous:
        record.before = f"{over.place} {over.at}"
    _take(record, delta, now)
    return MergeResult(record, ended, _answer(record, opened=True))


def _opened(delta: Delta, now: int, previous: str) -> Record:
    by = "" if delta.operation is None else f"{delta.operation.worker}:{delta.operation.number}"
    started, last = -delta.started_ago, -delta.last_ago
    return Record(delta.id, previous, delta.name, now, started, last, opened_by=by)


def _late(
    over: Tombstone | None, waiting: str | None, delta: Delta, began: int, rules: Rules
) -> Record | None:
    """Return the session that is over and that *delta* is still part of."""
    record = readable(waiting) if over is not None and waiting else None
    if over is None or record is None or record.id != over.id:
        return None
    if record.reason and began >= over.at - ROUNDING:
        return None
    return None if record.refuses(began, delta.context, rules) else record


def close(
    held: str | None, now: int, reason: str, over: int | None, active: bool, rules: Rules
) -> tuple[Record | None, bool]:
    """End the open session under a key; return it, and whether it was open until now.

    `(None, False)` when there is none.

    Args:
        held: the text under the key.
        now: the store's clock.
        reason: of the end; a session that fell silent long ago keeps that as its reason.
        over: the date of the end, by the worker's clock; None: this moment.
        active: whether to end it is its last activity.
        rules: when a session is over.
    """
    if held is None or held.startswith(TOMBSTONE_MARK):
        return None, False
    record = readable(held)
    if record is None or now > record.deadline(rules):
        return record, False
    date = today() if over is None else over
    if active:
        record.touch(now, date)
    record.reason, record.over = reason, date
    return record, True


# -- texts -----------------------------------------------------------------------------------------


def mark_of(exposure: str) -> str:
    """Return the mark of an exposure, short and the same in every process."""
    return f"{zlib.crc32(exposure.encode('utf-8', 'replace')) & 0xFFFFFF:06x}"
