"""Compact long records: fold their older lines, and let leave early what is over.

What stays and what leaves amount to what the whole record would have: a sweeper reports each by
itself (see `replay`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..sessions.outcomes import NO_TALLIES
from .deltas import UNREADABLE, Keys, StoredSegment, encoded, named
from .records import LINE_BYTES, Record
from .replay import Boundaries, segments_of

KEEP_LINES = 16
"""Lines that compacting leaves as they are: an exposure of another worker may still divide them."""
MOST_VALUES = 64
"""Groups of values that a compacted record keeps; beyond, they leave early as events."""
MOST_KEY_BYTES = 8192
"""Characters of their event keys and data, likewise."""
MOST_EXPOSURES = 128


def compact(record: Record) -> list[Record]:
    """Fold the older lines of a long record; return what leaves early, each as a part of its own.

    An account leaves, with its values, when its kind has another key by now; values that do not
    fold leave when they are too many. What stays amounts to the same as before.
    """
    try:
        segments = segments_of(record)
    except UNREADABLE:  # said, and counted, when it is reported
        return []
    first_recent = _first_recent(record.lines)
    recent = record.lines[first_recent:]
    older = [segment for segment in segments if segment.line < first_recent]
    parts = []
    finished = _finished(segments, first_recent)
    if finished:
        older, leaving = _divided(segments, older, finished)
        parts.append(_part(record, leaving, tuple(sorted(finished))))
    folded = _folded(older, Boundaries(sorted(set(record.exposures.values()))))
    if _too_much(record, folded):
        leaving = [replace(segment, tallies=NO_TALLIES) for segment in folded if segment.values]
        if leaving:
            parts.append(_part(record, leaving, ()))
        folded = [replace(segment, values={}) for segment in folded]
    record.lines = [_line(folded, record.names), *recent] if folded else recent
    _forget(record, segments)
    return parts


def _first_recent(lines: list[str]) -> int:
    """Return the number of the first line that stays as it is: the latest, if they are short."""
    room, first = KEEP_LINES * LINE_BYTES, len(lines)
    while first > max(0, len(lines) - KEEP_LINES) and room >= len(lines[first - 1]):
        first -= 1
        room -= len(lines[first])
    return first


def _finished(segments: list[StoredSegment], first_recent: int) -> set[tuple[str, str]]:
    """Return the accounts that have no recent line, and whose kind has another key by now."""
    current = dict(pair for segment in segments for pair in segment.keys)
    recent = {pair for segment in segments for pair in segment.keys if segment.line >= first_recent}
    known = {pair for segment in segments for pair in segment.keys}
    return known - recent - set(current.items())


def _divided(
    segments: list[StoredSegment], older: list[StoredSegment], finished: set[tuple[str, str]]
) -> tuple[list[StoredSegment], list[StoredSegment]]:
    """Return what stays of *older* and what leaves with the *finished* accounts, whose successors
    are named in it, because they date the end.
    """
    staying, leaving = [], []
    for segment in older:
        if finished.isdisjoint(segment.keys):
            staying.append(segment)
            continue
        leaving.append(segment)
        keys = tuple(pair for pair in segment.keys if pair not in finished)
        if keys:
            staying.append(replace(segment, keys=keys, values={}))
    return staying, [*leaving, *_successors(segments, finished)]


def _successors(
    segments: list[StoredSegment], finished: set[tuple[str, str]]
) -> Iterable[StoredSegment]:
    """Yield where those accounts began that go on after *finished* ones of their kind."""
    began: dict[str, dict[tuple[str, str], StoredSegment]] = {}
    for segment in segments:
        for pair in segment.keys:
            began.setdefault(pair[0], {}).setdefault(pair, segment)
    for accounts in began.values():
        for pair, following in zip(accounts, [*accounts][1:], strict=False):
            if pair in finished and following not in finished:
                first = accounts[following]
                yield replace(
                    first,
                    keys=(following,),
                    last=first.first,
                    ended=first.started,
                    tallies=NO_TALLIES,
                    values={},
                )


def _folded(segments: list[StoredSegment], boundaries: Boundaries) -> list[StoredSegment]:
    """Return *segments* with those of the same keys and between the same exposures in one.

    Those of the same keys begin together, so that no others come between them.
    """
    folds: dict[tuple[Keys, int], StoredSegment] = {}
    for segment in (piece for whole in segments for piece in _pieces(whole)):
        place = segment.keys, boundaries.region(segment.first)
        folds[place] = folds[place].merge(segment) if place in folds else segment
    began: dict[Keys, int] = {}
    for (keys, _), segment in folds.items():
        began[keys] = min(segment.started, began.get(keys, segment.started))
    return [replace(segment, started=began[segment.keys]) for segment in folds.values()]


def _pieces(segment: StoredSegment) -> Iterable[StoredSegment]:
    """Return the interactions and each of the values of *segment* as segments of their own, each of
    which begins with what it holds.
    """
    yield replace(segment, values={})
    for key, values in segment.values.items():
        first = min(max(values.first_at, segment.first), segment.last)
        started = min(segment.started + first - segment.first, segment.ended)
        yield replace(
            segment, first=first, started=started, tallies=NO_TALLIES, values={key: values}
        )


def _too_much(record: Record, folded: list[StoredSegment]) -> bool:
    keys = [key for segment in folded for key in segment.values]
    return (
        len(keys) > MOST_VALUES
        or sum(map(len, set(keys))) > MOST_KEY_BYTES
        or len(record.exposures) > MOST_EXPOSURES
    )


def _part(
    record: Record, segments: list[StoredSegment], accounts: tuple[tuple[str, str], ...]
) -> Record:
    record.parts += 1
    names: dict[str, str] = {}
    line = _line(segments, names)
    return replace(
        record,
        keys={},
        exposures=dict(record.exposures),
        names=names,
        lines=[line],
        part=record.parts,
        accounts=accounts,
        parts=0,
        before="",
    )


def _line(segments: list[StoredSegment], names: dict[str, str]) -> str:
    """Return a line that holds *segments*, which may come from several workers."""
    return f"[0,{encoded(segments, names)}]"


def _forget(record: Record, segments: list[StoredSegment]) -> None:
    """Drop the names of values that have left, and the exposures that divide nothing, because they
    are older than all there is.
    """
    used: dict[str, str] = {}
    for key in {key for segment in segments_of(record) for key in segment.values}:
        named(key, used)
    record.names = used
    began = min(
        min([segment.first, *(values.first_at for values in segment.values.values())])
        for segment in segments
    )
    newest = sorted(record.exposures.items(), key=lambda entry: entry[1])[-MOST_EXPOSURES:]
    record.exposures = {mark: date for mark, date in newest if date > began}
