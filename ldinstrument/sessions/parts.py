"""What a stay in a stored session adds to it: a value, which the store merges.

A session is divided into segments: a new one begins at each exposure of its context and at each
change of identity. Within a segment values fold; across one they may not, or what was recorded
before an exposure would be dated after it, and counted.

Dates are milliseconds since the epoch by the clock of this worker, which also dates the exposures
that it sees. A store's own clock decides what is idle or leased; it must never date an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..metrics.catalogs import EventRouting
from ..values import Fields
from .contexts import context_of_keys, units_of
from .outcomes import Tallies
from .rollups import Emission, FinishedRuns, Group

if TYPE_CHECKING:
    from ldclient import Context


class Segment(Fields):
    """A stretch of a session between two boundaries: one identity, and no exposure within.

    Args:
        keys: the keys by context kind that held in it; empty while nobody was known.
        first: the date of its first entry.
        last: the date of its last entry, before the boundary that ends the segment.
        tallies: its interactions.
        groups: its folded values, each with the routing of its event key. The rollup `once` is not
            divided at exposures, only by identity: its groups are in the last segment of their
            identity, and reach back.
        began: its first entry, else when it began, in clock seconds of this process.
        active: its last activity, in clock seconds of this process; None when there was none.
        exposed: whether an exposure ends it; else a change of identity, or the end.
    """

    __slots__ = (
        "keys",
        "first",
        "last",
        "tallies",
        "groups",
        "began",
        "active",
        "exposed",
    )

    def __init__(
        self,
        keys: Mapping[str, str],
        first: int,
        last: int,
        tallies: Tallies,
        groups: tuple[tuple[EventRouting, Group], ...],
        began: float,
        active: float | None,
        exposed: bool,
    ) -> None:
        self.keys = keys
        self.first = first
        self.last = last
        self.tallies = tallies
        self.groups = groups
        self.began = began
        self.active = active
        self.exposed = exposed


class SessionPart(Fields):
    """All that a stay in a stored session has to say, once it is over.

    Args:
        id: of the session, if this part opens it.
        given_id: the id that the program gave, None when it is random.
        name: the prefix of its `session.*` metrics.
        metrics: which of them it feeds, by suffix.
        started: the date of its start.
        last: the date of its last activity.
        over: the date at which this was made.
        age, idle: milliseconds from its start, and from its last activity, to `over`; no clock that
            was set meanwhile is in them.
        offset: what dates a clock reading of this process as `over` is dated, in milliseconds.
        context: whose it is at the end, with attributes.
        data: goes with the `session.*` events; checked and copied already.
        exposures: the dates by name (flag, its version, unit) of the exposures of its units that
            this process has noted; a name is the same in every worker.
        segments: what was recorded, in order.
        loose: values that do not fold, for *context*.
    """

    __slots__ = (
        "id",
        "given_id",
        "name",
        "metrics",
        "started",
        "last",
        "over",
        "age",
        "idle",
        "offset",
        "context",
        "data",
        "exposures",
        "segments",
        "loose",
    )

    def __init__(
        self,
        id: str,
        given_id: str | None,
        name: str,
        metrics: tuple[str, ...],
        started: int,
        last: int,
        over: int,
        age: int,
        idle: int,
        offset: float,
        context: Context | None,
        data: Mapping[str, Any],
        exposures: Mapping[str, int],
        segments: tuple[Segment, ...],
        loose: tuple[Emission | FinishedRuns, ...] = (),
    ) -> None:
        self.id = id
        self.given_id = given_id
        self.name = name
        self.metrics = metrics
        self.started = started
        self.last = last
        self.over = over
        self.age = age
        self.idle = idle
        self.offset = offset
        self.context = context
        self.data = data
        self.exposures = exposures
        self.segments = segments
        self.loose = loose


def units_in(segments: Iterable[Segment], units: Iterable[str]) -> set[str]:
    """Return *units*, those of the present identity, with those of the identities of *segments*."""
    found = set(units)
    for segment in segments:
        if (bare := context_of_keys(segment.keys)) is not None:
            found.update(units_of(bare))
    return found
