"""What one stay in a stored session adds to it: a value, which the store merges.

A session is divided into segments: a new one begins at each exposure of its context and at each
change of identity. Within a segment values fold; across one they may not, or what was recorded
before an exposure would be dated after it and counted.

All dates are milliseconds since the epoch, as floats, by the clock of this worker, which also
dates the exposures that it sees. A store's own clock decides what is idle or leased; it must never
date an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..metrics.catalogs import EventRouting
from .rollups import Emission, Group

if TYPE_CHECKING:
    from ldclient import Context

    from .emission import Tracker


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a session between two boundaries: one identity, and no exposure within.

    Args:
        began: the date of the boundary that began it; for the first one, the session's start.
        keys: the keys by context kind that held in it; empty while nobody was known.
        exposures: names of the exposures (flag, its version, unit) that began it, each the same
            text in every worker; empty for the first one and for a change of identity. A store
            that has seen all of them in this session already need not divide here.
        tallies: its interactions: successes, failures, cancelled, abandoned.
        last: its last activity; None when nothing was noted in it. An evaluation is no activity.
        groups: its folded values by the routing of their event key; the rollup `once` is not
            divided at exposures (first and last value are right for each), only by identity: it is
            in the last segment of its identity, and its dates may lie before `began`.
    """

    began: float
    keys: Mapping[str, str] = field(default_factory=dict)
    exposures: tuple[str, ...] = ()
    tallies: tuple[int, int, int, int] = (0, 0, 0, 0)
    last: float | None = None
    groups: tuple[tuple[EventRouting, Group], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionPart:
    """All that a stay in a stored session has to say once it is over.

    Args:
        id: for the session, if this part opens it.
        name: the prefix of its `session.*` metrics.
        metrics: which of them it feeds, by suffix (`duration`, `success_rate`, ...).
        visitor: whose session it is when the caller does not say: an explicit id's, else the
            context's, else its own; the key under which a store looks.
        data: goes with the `session.*` events; already checked and copied.
        context: the last identity, with its attributes, which events that leave at once carry.
        client: takes them; None: the one that `emission` finds.
        now: the date at which this was made.
        last: the last activity of the whole part.
        segments: at least one, in order.
        loose: values that do not fold, and whose owner is not known: for the identity that the
            store knows. Those of a known one have left already.
    """

    id: str
    name: str
    metrics: tuple[str, ...]
    visitor: str
    data: Mapping[str, Any]
    context: Context | None
    client: Tracker | None
    now: float
    last: float
    segments: tuple[Segment, ...]
    loose: tuple[Emission, ...] = ()

    @property
    def started(self) -> float:
        """The date of its start."""
        return self.segments[0].began

    @property
    def values(self) -> int:
        """How many recorded values its groups stand for."""
        return sum(group.count for segment in self.segments for _, group in segment.groups)
