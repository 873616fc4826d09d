"""Store: a few verbs, each atomic, each one round trip; and the values that they take and return.

A session lives in three places, one after the other, and in exactly one of them at any moment:

* *open*, under the key of its visitor: `merge` adds to it, `end` moves it on, `claim` moves on what
  has fallen silent;
* *ended*, waiting to be sealed: `claim` hands it out under a lease;
* *sealed*, the bytes and the payload id of one POST: `claim_sealed` hands it out under a lease,
  until `acknowledge`.

Whoever dies holding a lease loses nothing: when it has run out, the next one is handed the same
thing.

Values are never changed by whom they were given to. Those that each request makes are not frozen:
setting the fields of frozen ones, by calls, cost a tenth of a request.

There are two clocks. The store's own decides what is idle, leased or due, and how long a session
lasted; for it, workers only say how long ago something was. Events are dated by the clock of the
worker that recorded them, because that one also dates the exposures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol


def today() -> int:
    """Return the date of this moment by this machine's clock, in milliseconds since the epoch."""
    return int(time.time() * 1000)


MINUTE = 60.0
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Rules:
    """When a session is over. All workers of one store must have the same.

    Args:
        idle: seconds of silence that end a session.
        maximum: seconds after which a session ends however busy it is.
        remember: seconds for which a visitor's last session is remembered, to be the next one's
            `previousId`.
        window: seconds, at least 0.05; what ends in the same window is reported in the same batch,
            whoever sweeps.
    """

    idle: float = 30 * MINUTE
    maximum: float = 24 * HOUR
    remember: float = 24 * HOUR
    window: float = 5.0


@dataclass(slots=True)
class Operation:
    """The name of one merge, so that repeating it after a time-out cannot count twice.

    Args:
        worker: random, made when the process (or the forked child) first merges.
        number: counts the merges of that worker.
    """

    worker: str
    number: int


@dataclass(slots=True)
class Delta:
    """What one request (block, call) adds to a session. Two deltas in either order make the same
    session.

    Dates are milliseconds since the epoch by the worker's clock, ages milliseconds before `now`.

    Args:
        id: the id that a session gets which this delta opens.
        name: the prefix of the session's metrics.
        context: the keys by context kind that it began with; empty when nobody is known yet.
        started_ago: the age of its start.
        last_ago: the age of its last activity.
        tallies: its interactions, if it has no *segments*: successes, failures, cancelled,
            abandoned.
        now: the date at which it is looked at.
        shift: milliseconds by which the worker's clock was set forward since its start.
        segments: what was recorded, as JSON text (see `deltas`); by default one segment from
            start to last activity with *tallies*.
        names: the group keys that *segments* mention, by mark.
        becomes: the keys that it ended with; empty when they are the same.
        overlap: milliseconds after the session's last activity within which somebody else's is
            taken for one that overlaps a login, and joins.
        metrics: which `<name>.*` metrics it feeds, by suffix; empty for the default ones.
        data: the session's own data as JSON text; empty when there is none.
        exposures: the date of each exposure of its units that the worker knows, by `mark_of`.
        values: how many recorded values the segments stand for.
        joins: only joins a session that is open; opens none.
        ends: the reason with which it ends the session, too; empty when it goes on.
        operation: names this merge.
    """

    id: str
    name: str = "session"
    context: Mapping[str, str] = field(default_factory=dict)
    started_ago: int = 0
    last_ago: int = 0
    tallies: tuple[int, int, int, int] = (0, 0, 0, 0)
    now: int = field(default_factory=today)
    shift: int = 0
    segments: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    becomes: Mapping[str, str] = field(default_factory=dict)
    overlap: int = 0
    metrics: tuple[str, ...] = ()
    data: str = ""
    exposures: Mapping[str, int] = field(default_factory=dict)
    values: int = 0
    joins: bool = False
    ends: str = ""
    operation: Operation | None = None

    @property
    def began(self) -> int:
        """The date of its start, by the clock that the worker had then."""
        return self.now - self.started_ago - self.shift

    def aged(self, milliseconds: int) -> Delta:
        """Return the same delta, looked at *milliseconds* later."""
        return replace(
            self,
            now=self.now + milliseconds,
            started_ago=self.started_ago + milliseconds,
            last_ago=self.last_ago + milliseconds,
        )


@dataclass(slots=True)
class Merged:
    """The session that a delta went into: the store says which.

    Args:
        id: of the session.
        previous_id: of the visitor's session before it; empty when there was none, or it is
            forgotten.
        opened: whether the delta opened it.
        context: key by context kind, as far as the store knows.
    """

    id: str
    previous_id: str = ""
    opened: bool = False
    context: dict[str, str] = field(default_factory=dict)


class VisitRef(NamedTuple):
    """Which session a request was part of.

    Args:
        visitor: whose.
        session_id: the session; the request's own id when the store did not answer.
        previous_id: the visitor's session before it; empty when there was none, or it is forgotten.
        opened: whether the request opened the session.
        stored: whether the store has taken the request's numbers; False: they wait for it in
            memory.
    """

    visitor: str
    session_id: str
    previous_id: str = ""
    opened: bool = False
    stored: bool = False


@dataclass(slots=True)
class Ended:
    """A session that is over, handed out under a lease: *text* is its record (see `records`).

    Places of the same batch begin with the same window; see `Rules`.
    """

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """One POST to be: the exact bytes under their payload id, stored before they are first sent.

    Args:
        id: `X-LaunchDarkly-Payload-ID`.
        body: the exact bytes; with *zipped*, gzip.
        events: how many events are inside.
        zipped: whether *body* is gzip.
        attempts: how often it was claimed.
        age: seconds since it was sealed, by the store's clock.
        sessions: the digests of the sessions inside, see `reporting`; only Redis keeps them.
    """

    id: str
    body: bytes
    events: int
    zipped: bool = False
    attempts: int = 0
    age: float = 0.0
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a store holds now: open sessions, ended ones that wait to be sealed, payloads that wait
    to be sent.
    """

    open: int = 0
    ended: int = 0
    sealed: int = 0


class Store(Protocol):
    """Where sessions outlive a request or a process. Methods may raise: `SessionStore` copes."""

    shared: bool
    """Whether other processes see the same sessions."""

    def merge(self, key: str, delta: Delta) -> Merged | None:
        """Add *delta* to the open session of *key*, or open the next one when that is over. One
        round trip.

        Returns:
            The session; None when the delta only joins, and none is open.
        """

    def end(
        self, key: str, reason: str, *, over: int | None = None, active: bool = False
    ) -> str | None:
        """End the open session of *key* now.

        Args:
            key: of the session.
            reason: of the end.
            over: the date of the end, by the worker's clock; None: this moment.
            active: whether to end it is its last activity.

        Returns:
            Its record; None when none is open.
        """

    def claim(self, limit: int, lease: float, owner: str, *, early: bool = True) -> list[Ended]:
        """Hand out sessions that are over, all of one batch; nobody else is handed them for *lease*
        seconds.

        Args:
            limit: at most so many.
            lease: in seconds.
            owner: a random name.
            early: also of a batch that may still grow, because its window is not over.
        """

    def end_silent(self) -> int:
        """End every session that is over by this store's rules, also where those of the workers are
        longer; return how many. Looks at every open session.
        """

    def seal(
        self, places: Sequence[str], sealed: Sequence[Sealed], lease: float, owner: str
    ) -> list[str]:
        """Put *sealed* in the place of the claimed sessions *places*, all or nothing.

        Returns:
            The places that are no longer *owner*'s, in which case nothing was changed.
        """

    def claim_sealed(self, limit: int, lease: float, owner: str) -> list[Sealed]:
        """Hand out up to *limit* sealed payloads whose time has come; nobody else gets them for
        *lease* seconds.
        """

    def acknowledge(self, payload_id: str) -> None:
        """Forget a payload: LaunchDarkly has it, or nobody ever will."""

    def postpone(self, payload_id: str, delay: float) -> None:
        """Let a payload be claimed again after *delay* seconds, instead of at the end of its
        lease.
        """

    def replace(self, payload_id: str, halves: Sequence[Sealed]) -> None:
        """Put *halves* in the place of a payload that was too large."""

    def once(self, key: str, ttl: float) -> bool:
        """Take *key* for *ttl* seconds; False when somebody has it already. One round trip."""

    def end_unshared(self, reason: str) -> int:
        """End the open sessions that no other process sees; return how many."""

    def holdings(self) -> Holdings:
        """Return what the store holds now."""

    def check(self) -> None:
        """Log what about the server may cost numbers; one that is away is no error.

        Raises:
            DefinitionError: the server can never serve as a store; says why.
        """

    def refuses(self, error: BaseException) -> bool:
        """Tell whether *error* says that the store is well but cannot take this, ever."""

    def pause(self) -> None:
        """Let go of what must not be in two processes, before a fork."""

    def resume(self) -> None:
        """Go on in the parent after a fork."""

    def forked(self) -> None:
        """Go on in the child after a fork."""

    def close(self) -> None:
        """Let go of connections."""
