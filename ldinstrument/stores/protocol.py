"""Store: a few verbs, each atomic, each one round trip; and the values that they take and return.

A session lives in three places, one after the other, and in exactly one of them at any moment:

* *open*, under the key of its visitor: `merge` adds to it, `end` moves it on, `claim` moves on what
  has fallen silent;
* *ended*, waiting to be sealed: `claim` hands it out under a lease;
* *sealed*, the bytes and the payload id of one POST: `claim_sealed` hands it out under a lease,
  until `acknowledge`.

Whoever dies holding a lease loses nothing: when it has run out, the next one is handed the same
thing. Time is the store's own, never a worker's: workers only say how long ago something was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

MINUTE = 60.0
HOUR = 3600.0

GroupValues = tuple[float, int, int, int, float | None]
"""`(total, count, first, last, value of the last)`; the dates in milliseconds."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When a session is over. All workers of one store must have the same.

    Args:
        idle: seconds of silence that end a session.
        maximum: seconds after which a session ends however busy it is.
        remember: seconds for which a visitor's last session is remembered, to be the next one's
            `previousId`.
    """

    idle: float = 30 * MINUTE
    maximum: float = 24 * HOUR
    remember: float = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Operation:
    """The name of one merge, so that repeating it after a time-out cannot count twice.

    Args:
        worker: random, made when the process (or the forked child) first merges.
        number: counts the merges of that worker.
    """

    worker: str
    number: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What one request (block, call) adds to a session. Two deltas in either order make the same
    session.

    Args:
        id: the id that a session gets which this delta opens.
        name: the prefix of the session's metrics.
        context: key by context kind; empty when nobody is known yet.
        started_ago: milliseconds from its start to now.
        last_ago: milliseconds from its last activity to now.
        tallies: interactions: successes, failures, cancelled, abandoned.
        data: the session's own data as JSON text; empty when there is none.
        flags: marks of the flags evaluated in it, each `MARK` characters.
        groups: folded values by `group_key`; their dates are milliseconds ago.
        values: how many recorded values the groups stand for.
        joins: only joins a session that is open; opens none.
        ends: the reason with which it ends the session, too; empty when it goes on.
        operation: names this merge.
    """

    id: str
    name: str = "session"
    context: dict[str, str] = field(default_factory=dict)
    started_ago: int = 0
    last_ago: int = 0
    tallies: tuple[int, int, int, int] = (0, 0, 0, 0)
    data: str = ""
    flags: str = ""
    groups: dict[str, GroupValues] = field(default_factory=dict)
    values: int = 0
    joins: bool = False
    ends: str = ""
    operation: Operation | None = None

    def aged(self, milliseconds: int) -> Delta:
        """Return the same delta, looked at *milliseconds* later."""
        if milliseconds <= 0:
            return self
        groups = {
            key: (total, count, first + milliseconds, last + milliseconds, value)
            for key, (total, count, first, last, value) in self.groups.items()
        }
        started, last = self.started_ago + milliseconds, self.last_ago + milliseconds
        return replace(self, started_ago=started, last_ago=last, groups=groups)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class VisitRef:
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


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that is over, handed out under a lease: *text* is its record (see `records`)."""

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
    """

    id: str
    body: bytes
    events: int
    zipped: bool = False
    attempts: int = 0
    age: float = 0.0


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

    def end(self, key: str, reason: str, *, active: bool = False) -> str | None:
        """End the open session of *key* now; *active*: to end it is its last activity.

        Returns:
            Its record; None when none is open.
        """

    def claim(self, limit: int, lease: float, owner: str) -> list[Ended]:
        """Hand out up to *limit* sessions that are over; nobody else is handed them for *lease*
        seconds.
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

    def refuses(self, error: Exception) -> bool:
        """Tell whether *error* says that the store is well but cannot take this, ever."""

    def pause(self) -> None:
        """Let go of what must not be in two processes, before a fork."""

    def resume(self) -> None:
        """Go on in the parent after a fork."""

    def forked(self) -> None:
        """Go on in the child after a fork."""

    def close(self) -> None:
        """Let go of connections."""
