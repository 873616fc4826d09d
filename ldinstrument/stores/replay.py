"""Work out what a stored session amounts to: its accounts, its folded values, its events.

A record only collects what its requests recorded. Here it is put in order: values fold between
exposures and within one identity; each context kind and key has an account of its own, with start,
end and interactions. Events are dated by the clocks of the workers, which also date the exposures;
what a session lasted, and what came first, goes by the store's clock.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter

from ..metrics.catalogs import EventRouting
from ..metrics.metric import Rollup
from ..sessions.accounts import DEFAULT_METRICS, Piece
from ..sessions.contexts import context_of_keys, units_of
from ..sessions.dilution import EndedSession
from ..sessions.emission import session_totals
from ..sessions.exposures import exposures
from ..sessions.outcomes import NO_TALLIES, Tallies, added
from ..sessions.rollups import Emission, Group
from .deltas import OVERLAP, Keys, StoredSegment, decoded, group_parts, mark_of, merged
from .protocol import Rules
from .records import Record

_in_order = attrgetter("started", "ended")

LONGEST_WAIT = 1000
"""Milliseconds that a line may have waited; beyond, a clock was set, or the host slept."""
ROLLUPS: dict[str, Rollup] = {"s": "sum", "m": "mean", "l": "last", "o": "once", "e": "each"}


def segments_of(record: Record) -> list[StoredSegment]:
    """Return the segments of *record* in the order of the store's clock, each with its keys.

    What was recorded while nobody was known belongs to the first keys that were; what came without
    keys later, to those that held then.
    """
    found = [
        segment
        for number, text in enumerate(record.lines)
        for segment in decoded(text, record.names, number)
    ]
    if len(record.lines) > 1:
        _subtract_waits(found)
    found.sort(key=_in_order)
    first = next((segment.keys for segment in found if segment.keys), ())
    current = dict(first)
    for segment in found:
        current |= dict(segment.keys)
        segment.keys = segment.keys or tuple(sorted(current.items()))
    return found


def _subtract_waits(segments: list[StoredSegment]) -> None:
    """Date what was recorded as if its line had waited for the store as little as any other line of
    its host about then: a line is dated when it arrives, and a request that waits for longer than
    others would seem to begin after a login that it began before.

    By the host's monotonic clock, which nobody sets; so what comes from one host keeps its order.
    """
    lines = {segment.line: segment for segment in segments if segment.host}
    waited = {
        number: line.ahead
        - min(
            other.ahead
            for other in lines.values()
            if other.host == line.host
            and abs(other.ended - line.ended) <= OVERLAP
            and line.ahead - other.ahead <= LONGEST_WAIT
        )
        for number, line in lines.items()
    }
    for segment in segments:
        late = waited.get(segment.line, 0)
        segment.started -= late
        segment.ended -= late


@dataclass(frozen=True, slots=True)
class Boundaries:
    """The dates of the exposures that divide a session, in order."""

    dates: list[int]

    def region(self, first: int) -> int:
        """Return the stretch between two exposures in which something that began at *first* lies.

        What lies on both sides of an exposure counts as before it.
        """
        return bisect_right(self.dates, first)

    def within(self, segments: Iterable[StoredSegment]) -> int:
        """Count the exposures that lie within what had folded before they were known.

        No region divides that: it counts as before the exposure.
        """
        stretches: list[tuple[int, int]] = []
        for segment in segments:
            stretches += [
                (group.first_at, group.last_at)
                for key, group in segment.values.items()
                if key[0] not in ("o", "e")  # first and last are right for every exposure
            ]
            if sum(segment.tallies[:2]) > 1:
                stretches.append((segment.first, segment.last))
        return sum(any(first < date <= last for first, last in stretches) for date in self.dates)

    def date(self, region: int, last: int) -> int:
        """Return *last*, or the last date of *region* if that is earlier."""
        return min(last, self.dates[region] - 1) if 0 <= region < len(self.dates) else last


# -- accounts --------------------------------------------------------------------------------------


@dataclass(slots=True)
class StoredAccount:
    """The part of one context kind and key in a session.

    Args:
        keys: whose; several pairs when their accounts are equal.
        started, ended: first and last activity by the store's clock.
        began, last: the same as dates.
        tallies: all its interactions.
        pieces: tallies and last date by the region between exposures that they lie in.
        over: the date of its end.
        reason: of the end.
        ends: its last activity by the store's clock, by region.
    """

    keys: Keys
    started: int
    ended: int
    began: int
    last: int
    tallies: Tallies = NO_TALLIES
    pieces: dict[int, tuple[Tallies, int]] = field(default_factory=dict)
    over: int = 0
    reason: str = ""
    ends: dict[int, int] = field(default_factory=dict)

    def add(self, segment: StoredSegment, region: int) -> None:
        """Add the interactions and the activity of *segment*."""
        self.ends[region] = max(segment.ended, self.ends.get(region, segment.ended))
        if segment.started < self.started:
            self.started, self.began = segment.started, segment.first
        if segment.ended == self.ended:
            self.last = max(self.last, segment.last)
        elif segment.ended > self.ended:
            self.ended, self.last = segment.ended, segment.last
        more = segment.tallies
        if not any(more):
            return
        self.tallies = more if self.tallies == NO_TALLIES else added(self.tallies, more)
        known, last = self.pieces.get(region, (None, segment.last))
        self.pieces[region] = more if known is None else added(known, more), max(last, segment.last)


def accounts_of(
    record: Record, segments: list[StoredSegment], boundaries: Boundaries, rules: Rules
) -> list[StoredAccount]:
    """Return the accounts of a session; equal ones are one, of a context of several kinds."""
    first = segments[0]
    if not record.part and all(segment.keys == first.keys for segment in segments):
        account = StoredAccount(first.keys, first.started, first.ended, first.first, first.last)
        for segment in segments:
            account.add(segment, boundaries.region(segment.first) if boundaries.dates else 0)
        account.reason, account.over = end_of(record, account, rules)
        return [account]

    found: list[StoredAccount] = []
    for kind in sorted({kind for segment in segments for kind, _ in segment.keys}):
        ours = _accounts_of_kind(kind, segments, boundaries)
        for account, following in zip(ours, [*ours[1:], None], strict=True):
            _end(account, following, record, rules)
        found += ours
    return _united(
        account for account in found if not record.part or account.keys[0] in record.accounts
    )


def _accounts_of_kind(
    kind: str, segments: list[StoredSegment], boundaries: Boundaries
) -> list[StoredAccount]:
    """Return the accounts of one context kind, in the order in which they began.

    Another key ends an account, and a key that comes back opens a new one. Requests overlap, so
    what counts is the order in which they began, or became somebody else: one that goes on with its
    key beside one of another key adds to the account that it began with.
    """
    accounts: list[StoredAccount] = []
    of_lines: dict[int, StoredAccount] = {}
    for segment in segments:
        for pair in segment.keys:
            if pair[0] != kind:
                continue
            account = of_lines.get(segment.line)
            if account is None or account.keys != (pair,):
                if not accounts or accounts[-1].keys != (pair,):
                    dates = segment.started, segment.ended, segment.first, segment.last
                    accounts.append(StoredAccount((pair,), *dates))
                account = of_lines[segment.line] = accounts[-1]
            account.add(segment, boundaries.region(segment.first))
    return accounts


def _end(
    account: StoredAccount, following: StoredAccount | None, record: Record, rules: Rules
) -> None:
    """Date the end of an account: that of the session, or when another key of its kind began."""
    if following is None:
        account.reason, account.over = end_of(record, account, rules)
    else:
        account.reason, account.over = "identified", max(account.last, following.began)


def end_of(record: Record, account: StoredAccount, rules: Rules) -> tuple[str, int]:
    """Return why and at which date a session ended: by its own word, or by itself."""
    if record.over:
        return record.reason, max(record.over, account.last)
    # A worker whose clock is far ahead may have dated an exposure in it after that.
    exposed = max(record.exposures.values(), default=0)
    idle, maximum = int(rules.idle * 1000), int(rules.maximum * 1000)
    if record.started + maximum < record.last + idle:
        return record.reason or "maximum", max(account.began + maximum, account.last, exposed)
    return record.reason or "idle", max(account.last + idle, exposed)


def _united(accounts: Iterable[StoredAccount]) -> list[StoredAccount]:
    """Return *accounts* with those that differ only in their key in one."""
    found: list[StoredAccount] = []
    for account in accounts:
        same = next((other for other in found if _equal(other, account)), None)
        if same is None:
            found.append(account)
        else:
            same.keys += account.keys
    return found


def _equal(account: StoredAccount, other: StoredAccount) -> bool:
    """Tell whether two accounts differ only in the kind and key that they are of."""
    kinds, others = dict(account.keys).keys(), dict(other.keys).keys()
    return kinds.isdisjoint(others) and replace(account, keys=other.keys) == other


# -- events ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class RecordEvents:
    """The events of one session, each with the context it is for.

    Args:
        values: of folded values.
        totals: the `<name>.*` events.
        ended: what is counted of each of its accounts.
        unseen: how many exposures lie within values that had folded before they were known.
    """

    values: list[tuple[Emission, Keys]] = field(default_factory=list)
    totals: list[tuple[Emission, Keys]] = field(default_factory=list)
    ended: list[EndedSession] = field(default_factory=list)
    unseen: int = 0


def events_of(record: Record, rules: Rules) -> RecordEvents:
    """Return the events that *record* becomes."""
    segments = segments_of(record)
    exposed = record.exposures or exposures.changes
    boundaries = Boundaries(_dates_of_exposures(record.exposures, segments) if exposed else [])
    found = RecordEvents()
    if any(segment.values for segment in segments):
        found.values = value_events(segments, boundaries)
    if boundaries.dates:
        found.unseen = boundaries.within(segments)

    data = json.loads(record.data) if record.data else {}
    for account in accounts_of(record, segments, boundaries, rules):
        events = session_totals(
            record.name,
            record.metrics or DEFAULT_METRICS,
            account.tallies,
            float(account.ended - account.started),
            _pieces(account, boundaries) if boundaries.dates else [],
            account.over,
            id=record.id,
            data=data,
            reason=account.reason,
            previous=record.previous,
        )
        found.totals += [(event, account.keys) for event in events]
        if account.keys:
            # Which part of it lies before its first exposure?
            is_exposed = bool(boundaries.dates) and boundaries.region(account.over) > 0
            end = account.ends.get(0) if is_exposed else None
            before = None if end is None else float(end - account.started)
            length = float(account.ended - account.started)
            found.ended.append(EndedSession(record.name, is_exposed, length, before))
    return found


def _dates_of_exposures(told: Mapping[str, int], segments: Iterable[StoredSegment]) -> list[int]:
    """Return the dates of the exposures that the parts have told, and of those that this process
    has noted, which no part may have told (a tracker's).
    """
    found = dict(told)
    for kind, key in {pair for segment in segments for pair in segment.keys}:
        context = context_of_keys({kind: key})
        for exposure in () if context is None else exposures.of(units_of(context)):
            mark = mark_of(exposure.name)
            found[mark] = min(exposure.date, found.get(mark, exposure.date))
    return sorted(set(found.values()))


def value_events(
    segments: Iterable[StoredSegment], boundaries: Boundaries
) -> list[tuple[Emission, Keys]]:
    """Fold the values of *segments*, within one identity and between exposures."""
    folds: dict[tuple[Keys, str, int], Group] = {}
    for segment in segments:
        for key, group in segment.values.items():
            # First and last of `once` are right for every exposure time: it is not divided.
            region = -1 if key[0] == "o" else boundaries.region(group.first_at)
            place = segment.keys, key, region
            folds[place] = merged(folds.get(place), group)
    return [
        (event, keys)
        for (keys, key, region), group in folds.items()
        for event in _emissions(key, group, boundaries.date(region, group.last_at))
    ]


def _emissions(key: str, group: Group, last_at: int) -> list[Emission]:
    rollup, numeric, event_key, text = group_parts(key)
    routing = EventRouting(event_key, numeric, False, ROLLUPS[rollup], None, frozenset())
    data = json.loads(text) if text else None
    return group.replace(data=data, last_at=last_at).events(routing)


def _pieces(account: StoredAccount, boundaries: Boundaries) -> list[Piece]:
    """Return the interactions of *account* that lie before the last exposure in it."""
    over_region = boundaries.region(account.over)
    return [
        Piece(tallies[0] + tallies[1], tallies[0], boundaries.date(region, last))
        for region, (tallies, last) in sorted(account.pieces.items())
        if region != over_region and tallies[0] + tallies[1]
    ]


@dataclass(frozen=True, slots=True)
class StoredSummary:
    """What a stored session has seen.

    Args:
        keys: the current key by context kind.
        started: the date of its start.
        duration: milliseconds from its start to its last activity.
        tallies: successes, failures, cancelled, abandoned.
    """

    keys: Mapping[str, str]
    started: int
    duration: int
    tallies: Tallies


def summary_of(record: Record) -> StoredSummary:
    """Return what *record* has seen, whoever it was."""
    segments = segments_of(record)
    tallies = NO_TALLIES
    for segment in segments:
        tallies = added(tallies, segment.tallies)
    last = max(segment.ended for segment in segments)
    duration = max(0, last - segments[0].started)
    return StoredSummary(record.keys, segments[0].first, duration, tallies)
