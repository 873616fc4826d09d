"""What a request adds to a stored session, in whichever store: a line of text, and what changes in
the header (see `records`).

A line is `[offset, base, [segment, ...]]`: *offset* is the store's clock minus the worker's, in
milliseconds, *base* a date that the others are counted from, at which the first segment's keys were
active already. A segment is `[keys, first, length, tallies, groups]`, trailing zeros left out: keys
by context kind, the dates of its first and last entry, interactions by outcome, and folded values
by the mark of their group key: `[total, count, first date, last date, first value, last value]`, of
which what follows from the segment is left out; a total alone stands by itself. Where the store's
clock says something else than these dates and *offset*, two more fields say it, counted from
*base*: the worker's clock was set meanwhile, or the line comes from several workers (*offset* 0).
Two more, of the first segment of a request's line, say what a monotonic clock read at *base*, in
milliseconds, and on which host: a line is dated when it arrives, which may be late (see `replay`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import zlib
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from ..metrics.catalogs import EventRouting
from ..sessions.accounts import DEFAULT_METRICS
from ..sessions.contexts import keys_of as keys_by_kind
from ..sessions.outcomes import NO_TALLIES, Tallies, added
from ..sessions.parts import SessionPart
from ..sessions.rollups import Group
from ..sessions.validation import frozen
from ..values import without_surrogates
from .protocol import Delta, Operation

OVERLAP = 60_000
"""Milliseconds for which a request may go on, unheard of, after others of its visit have ended."""
OLDEST_EXPOSURE = 24 * 3_600_000
"""Milliseconds: what was exposed earlier than a session may last divides none."""
LONGEST_DATA = 12
"""Characters of data that a group key holds itself."""
REFERENCE = "#"
"""What stands before the mark of data in a group key; data as JSON begins with a brace."""
ROUNDING = 1
"""Milliseconds by which two readings of one clock, rounded, may differ."""
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError)
"""What is raised by a line that is corrupt."""

HOST = f"{zlib.crc32(socket.gethostname().encode('utf-8', 'replace')) & 0xFFFF:04x}"
"""Stands for this host, whose processes have one monotonic clock."""

Keys: TypeAlias = "tuple[tuple[str, str], ...]"
"""A context: `(kind, key)` pairs, sorted."""

compact_json = json.JSONEncoder(separators=(",", ":")).encode
"""What `json.dumps` would return, without making an encoder for each text."""


# -- what a request adds ---------------------------------------------------------------------------


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
        segments=encoded(segments, names, started=began, offset=int(part.offset)),
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


# -- segments --------------------------------------------------------------------------------------


@dataclass(slots=True)
class StoredSegment:
    """What was recorded between two boundaries.

    Args:
        keys: whose it is; empty when nobody was known.
        first, last: the dates of its first and last entry, by the worker's clock.
        tallies: its interactions.
        values: folded values by group key.
        started, ended: the same as *first* and *last* by the store's clock; of a request, by the
            clock that the worker had at its end. Until they are known, 0.
        line: the number of its line.
        host: that the line comes from; empty when that is not known.
        ahead: milliseconds by which the store's clock was ahead of the host's monotonic one when
            the line arrived: more, by so much, where it has waited.
    """

    keys: Keys
    first: int
    last: int
    tallies: Tallies = NO_TALLIES
    values: dict[str, Group] = field(default_factory=dict)
    started: int = 0
    ended: int = 0
    line: int = 0
    host: str = ""
    ahead: int = 0

    def merge(self, other: StoredSegment) -> StoredSegment:
        """Return both in one."""
        values = dict(self.values)
        for key, more in other.values.items():
            values[key] = merged(values.get(key), more)
        return StoredSegment(
            self.keys,
            min(self.first, other.first),
            max(self.last, other.last),
            added(self.tallies, other.tallies),
            values,
            min(self.started, other.started),
            max(self.ended, other.ended),
        )


def merged(mine: Group | None, more: Group) -> Group:
    """Return both in one, and leave both as they are."""
    whole = more.replace()
    if mine is not None:
        whole.merge(mine)
    return whole


def keys_of(keys: Mapping[str, str]) -> Keys:
    """Return *keys* in their order, without lone surrogates, which no store can carry."""
    if all(map(str.isascii, keys.values())):
        return tuple(sorted(keys.items()))
    return tuple(sorted(utf8(keys).items()))


def utf8(keys: Mapping[str, str]) -> dict[str, str]:
    """Return *keys* without lone surrogates, which no store can carry."""
    return {kind: without_surrogates(key) for kind, key in keys.items()}


# -- group keys ------------------------------------------------------------------------------------


def group_key(event_key: str, rollup: str, numeric: bool, data: str) -> str:
    """Return the key under which equal values fold; a sweeper needs no catalog to read it."""
    return f"{rollup[0]}{int(numeric)}{event_key}\n{data}"


def group_parts(key: str) -> tuple[str, bool, str, str]:
    """Return `(rollup's initial, numeric, event key, data)` of a group key.

    Data as JSON never holds a raw newline.
    """
    event_key, _, data = key[2:].rpartition("\n")
    return key[0], key[1] == "1", event_key, data


@lru_cache(maxsize=4096)
def mark_of_text(text: str) -> str:
    """Return five characters, 30 bits, that stand for *text* within one record."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest()
    return base64.urlsafe_b64encode(digest)[:5].decode()


def named(key: str, names: MutableMapping[str, str]) -> str:
    """Return the mark of a group key, and note in *names* what it stands for.

    Values of several events often have the same data, so that has a mark of its own.
    """
    mark, (head, _, data) = mark_of_text(key), key.rpartition("\n")
    if len(data) > LONGEST_DATA:
        names[mark_of_text(data)] = data
        key = f"{head}\n{REFERENCE}{mark_of_text(data)}"
    names[mark] = key
    return mark


def key_named(mark: str, names: Mapping[str, str]) -> str:
    """Return the group key that *mark* stands for.

    Raises:
        KeyError: *names* does not know it.
    """
    head, _, data = names[mark].rpartition("\n")
    return f"{head}\n{names[data[1:]] if data.startswith(REFERENCE) else data}"


# -- lines -----------------------------------------------------------------------------------------


def encoded(
    segments: Sequence[StoredSegment],
    names: MutableMapping[str, str],
    *,
    started: int | None = None,
    offset: int | None = None,
) -> str:
    """Return *segments* as the part of a line that follows its offset.

    Args:
        segments: at least one.
        names: the group keys that they mention are added, by their marks.
        started: when the first one's keys were active already, by the clock of `started`.
        offset: what dates a reading of this host's monotonic clock, in milliseconds; None where
            they come from elsewhere, too.

    Raises:
        TypeError: a folded value is no number.
    """
    base = segments[0].first if started is None else started
    texts: list[list[object]] = []
    for segment in segments:
        groups = {
            named(key, names): _group(group, segment, base) for key, group in segment.values.items()
        }
        tallies = list(segment.tallies)
        while tallies and not tallies[-1]:
            tallies.pop()
        first, last = segment.first, segment.last
        fields = [dict(segment.keys), first - base, last - first, tallies, groups or 0]

        differs = segment.started - first, segment.ended - last
        if offset is not None and not texts:
            fields += [segment.started - base, segment.ended - base, base - offset, HOST]
        elif segment.ended and not -ROUNDING <= min(differs) <= max(differs) <= ROUNDING:
            fields += [segment.started - base, segment.ended - base]
        else:
            while fields and not fields[-1]:
                fields.pop()
        texts.append(fields)
    return f"{base},{compact_json(texts)}"


def _group(group: Group, segment: StoredSegment, base: int) -> list[Any] | float:
    values = (group.total, group.first, group.last)
    if not all(value is None or isinstance(value, (int, float)) for value in values):
        raise TypeError("a folded value is a number")
    dates = [group.first_at - base, group.last_at - base]
    if group.first is not None or group.last is not None:
        return [group.total, group.count, *dates, group.first, group.last]
    if (group.first_at, group.last_at) != (segment.first, segment.last):
        return [group.total, group.count, *dates]
    return group.total if group.count == 1 else [group.total, group.count]


def decoded(line: str, names: Mapping[str, str], number: int = 0) -> Iterable[StoredSegment]:
    """Yield the segments of a line.

    Args:
        line: the text.
        names: group keys by their marks.
        number: of the line.

    Raises:
        One of `UNREADABLE`: it is not the text of a line.
    """
    offset, base, segments = json.loads(line)
    began, host, ahead = base + offset, "", 0
    for at, fields in enumerate(segments):
        keys, first, length, tallies, groups, *clock = fields + _ABSENT[len(fields) :]
        if len(clock) > 2:
            host, ahead = clock[3], began - clock[2]
        first, last = base + first, base + first + length
        started, ended = (
            (began + clock[0], began + clock[1]) if clock else (first + offset, last + offset)
        )
        whose = tuple(sorted(keys.items()))
        tallies = (*tallies, *NO_TALLIES[len(tallies) :])
        segment = StoredSegment(
            whose, first, last, tallies, {}, started, ended, number, host, ahead
        )
        for name, values in (groups or {}).items():
            segment.values[key_named(name, names)] = _group_of(values, segment, base)

        if not at and first != base and started > began:  # its keys were active before
            date = first - (started - began)
            yield StoredSegment(
                whose, date, date, NO_TALLIES, {}, began, began, number, host, ahead
            )
        yield segment


_ABSENT: list[Any] = [{}, 0, 0, [], 0]


def _group_of(fields: list[Any] | float, segment: StoredSegment, base: int) -> Group:
    if not isinstance(fields, list):
        return Group(None, fields, 1, segment.first, segment.last)
    total, count = fields[0], fields[1] if len(fields) > 1 else 1
    if len(fields) < 4:
        return Group(None, total, count, segment.first, segment.last)
    first, last = fields[4:6] if len(fields) > 4 else (None, None)
    return Group(None, total, count, base + fields[2], base + fields[3], first, last)


def segments_text(delta: Delta) -> str:
    """Return the only segment of a *delta* that names none, as the part of a line that follows its
    offset.
    """
    first, last = delta.now - delta.started_ago, delta.now - delta.last_ago
    segment = StoredSegment(keys_of(delta.context), first, last, delta.tallies)
    return encoded([segment], {})


def mark_of(exposure: str) -> str:
    """Return the mark of an exposure, short and the same in every process."""
    return f"{zlib.crc32(exposure.encode('utf-8', 'replace')) & 0xFFFFFF:06x}"
