"""A session as a store keeps it: text, and how a delta is merged into it.

The text is a header, one line of JSON, and a line per delta (see `deltas`). Merging reads and
writes the header only and adds a line, which is all that `redis.lua` has to do on a Redis server;
what the lines amount to is worked out when the session is reported (see `replay`).

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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .deltas import ROUNDING, UNREADABLE, compact_json, segments_text
from .protocol import Delta, Merged, Rules, today

VERSION = 2
MOST_LINES = 32
"""Lines after which a record is compacted."""
LINE_BYTES = 512
"""What counts as one line; a longer one counts as several."""
OLD_EXPOSURE = 300_000
"""Milliseconds before a visit: what was exposed earlier hardly divides a part that comes late."""
TOMBSTONE_MARK = "-"
"""The first character of a `Tombstone`."""
PLACES_PER_WINDOW = 100_000
"""Places of a batch are in a row: those from the number of its window times this."""


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
        lines: what was merged, each line JSON; see `deltas`.
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
        return "\n".join([compact_json(fields), *self.lines])

    def deadline(self, rules: Rules) -> int:
        """Return when it is over if nothing more happens, in milliseconds since the epoch."""
        return self.opened_at + min(
            self.last + int(rules.idle * 1000), self.started + int(rules.maximum * 1000)
        )

    def place_and_tombstone(
        self, number: int, now: int, rules: Rules, began: int | None = None
    ) -> tuple[int, str]:
        """Return where it waits to be sealed, as the *number*-th session that ended, and the
        `Tombstone` that its key holds then.

        Args:
            number: counts what has ended in this store.
            now: the store's clock; the session ended now, unless it fell silent before, and its
                place is in the window of that moment.
            rules: when a session is over.
            began: when its end began, if not now.
        """
        spoke = self.over or self.part
        ended_at = now if spoke else min(now, self.deadline(rules))
        window = ended_at // int(rules.window * 1000)
        place = window * PLACES_PER_WINDOW + number % PLACES_PER_WINDOW
        return place, f"{TOMBSTONE_MARK}{place} {now if began is None else began} {self.id}"

    def refuses(self, began: int, delta: Delta, rules: Rules) -> str:
        """Return why *delta*, which began at *began*, does not belong to it; empty when it does."""
        if began > self.opened_at + self.last + int(rules.idle * 1000):
            return "idle"
        if began > self.opened_at + self.started + int(rules.maximum * 1000):
            return "maximum"
        if began < self.opened_at + self.last + delta.overlap:
            return ""  # a login may lie between them whose request is still open, or was
        # Other keys for all kinds that are known here: somebody else.
        same = [self.keys[kind] == key for kind, key in delta.context.items() if kind in self.keys]
        return "identified" if same and not any(same) else ""

    def take(self, delta: Delta, now: int, *, ends: bool = True) -> bool:
        """Add *delta*; with *ends*, also the end that it may bring.

        Returns:
            Whether it has become long: by its lines, of which long ones, and what they mention,
            count by their bytes.
        """
        there = now - self.opened_at
        last = there - delta.last_ago
        known = {**delta.context, **delta.becomes}
        if last >= self.last:
            self.data = delta.data or self.data
            self.keys |= known
        else:
            self.data = self.data or delta.data
            self.keys = known | self.keys
        self.started = min(self.started, there - delta.started_ago)
        self.last = max(self.last, last)
        self.metrics = delta.metrics or self.metrics

        oldest = self.opened_at + self.started - (now - delta.now) - delta.shift - OLD_EXPOSURE
        for mark, date in delta.exposures.items():
            if date > oldest:
                self.exposures[mark] = min(date, self.exposures.get(mark, date))
        self.names |= delta.names
        self.lines.append(f"[{now - delta.now},{delta.segments or segments_text(delta)}]")
        if ends and delta.ends:
            self.end(delta.ends, delta.now)

        size = sum(map(len, self.lines)) + sum(map(len, self.names.values()))
        return max(len(self.lines), size // LINE_BYTES) > MOST_LINES

    def end(self, reason: str, date: int) -> None:
        """End it for *reason* at *date*, and never before an exposure that it knows already, which
        the clock of another worker may have dated.
        """
        self.reason, self.over = reason, max([date, *self.exposures.values()])

    def touch(self, now: int, date: int) -> None:
        """Note activity at *date*, which is *now* by the store's clock."""
        self.last = max(self.last, now - self.opened_at)
        self.lines.append(f"[{now - date},{date},[[]]]")


def readable(text: str) -> Record | None:
    """Return a record from its text; None if it is corrupt or of another version."""
    try:
        header, *lines = text.split("\n")
        fields = json.loads(header)
        if fields["v"] != VERSION or not lines:
            return None
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
    except UNREADABLE:
        return None


# -- sessions that are over ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What a key holds once its session is over: after the mark place, time and id, with spaces.

    Args:
        id: of the session.
        at: when its end began (of a logout: the request), in milliseconds since the epoch by the
            store's clock: whoever has waited for the end began later.
        place: where its record waits to be sealed, while it does.
    """

    id: str
    at: int
    place: str


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


# -- merging ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class MergeResult:
    """What a delta makes of the sessions of a key.

    Args:
        record: the session that it went into. With a reason it has ended: with this very delta, or
            earlier (*keeps_place*).
        answer: to the merge.
        ended: the session before it, if that has ended now.
        place: where the record waited to be sealed, if it did.
        is_long: the record is to be compacted.
        keeps_place: the record had ended and goes back there; what the key holds does not change.
            Else it had only fallen silent and goes on: it leaves that place.
    """

    record: Record
    answer: Merged
    ended: Record | None = None
    is_long: bool = False
    place: str = ""
    keeps_place: bool = False

    def follow(self, place: object, began: int) -> None:
        """Let the record know where the one before it waits, whose end began at *began*."""
        if self.record.previous:
            self.record.before = f"{place} {began}"


def merge(
    held: str | None,
    delta: Delta,
    now: int,
    rules: Rules,
    waiting_at: Callable[[str], str | None] = lambda place: None,
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
        waiting_at: returns the record at a place, while it waits there to be sealed.
    """
    record = ended = None
    before = waits = ""  # the id of the session before, and where that waits to be sealed
    if held is not None and (held.startswith(TOMBSTONE_MARK) or '"z":"' in held):
        late, before, waits = _look_back(held, delta, now, rules, waiting_at)
        if late is not None:
            return late
    if held is not None and not held.startswith(TOMBSTONE_MARK):
        record = readable(held)

    # Does it belong to the open session? That it is somebody else's is known to date.
    if record is not None and (reason := record.refuses(now - delta.started_ago, delta, rules)):
        if delta.joins:
            return None
        record.reason, record.over = reason, delta.began if reason == "identified" else 0
        ended, before, record = record, record.id, None

    opens = record is None
    if record is None:
        if delta.joins:
            return None
        by = "" if delta.operation is None else f"{delta.operation.worker}:{delta.operation.number}"
        before = "" if before == delta.id else before
        record = Record(
            delta.id,
            before,
            delta.name,
            now,
            -delta.started_ago,
            -delta.last_ago,
            before=waits if before else "",
            opened_by=by,
        )

    is_long = record.take(delta, now)
    answer = Merged(record.id, record.previous, opens, dict(record.keys))
    return MergeResult(record, answer, ended, is_long)


def _look_back(
    held: str, delta: Delta, now: int, rules: Rules, waiting_at: Callable[[str], str | None]
) -> tuple[MergeResult | None, str, str]:
    """Merge *delta* into the session of a key that is over, if it is still part of that.

    Returns:
        The result, if it is; else the id of that session, where no other has been opened since, and
        its place and the beginning of its end, while it waits to be sealed.
    """
    began, dead = now - delta.started_ago, held.startswith(TOMBSTONE_MARK)
    over = tombstone(held, began)
    waiting = None if over is None else waiting_at(over.place)
    record = None if over is None else _late(over, waiting, delta, began, rules)
    if over is not None and record is not None:
        keeps_place = bool(record.reason) or not dead
        is_long = record.take(delta, now, ends=not keeps_place)
        answer = Merged(record.id, record.previous, context=dict(record.keys))
        return MergeResult(record, answer, None, is_long, over.place, keeps_place), "", ""
    if over is None or not dead:
        return None, "", ""
    return None, over.id, "" if waiting is None else f"{over.place} {over.at}"


def _late(
    over: Tombstone, waiting: str | None, delta: Delta, began: int, rules: Rules
) -> Record | None:
    """Return the session that is over and that *delta* is still part of."""
    record = None if waiting is None else readable(waiting)
    if record is None or record.id != over.id:
        return None
    if record.reason and began >= over.at - ROUNDING:
        return None
    return None if record.refuses(began, delta, rules) else record


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
    record.end(reason, date)
    return record, True
