"""A report per flush, a receipt per POST."""

from __future__ import annotations

from ..values import Frozen


class FlushReport(Frozen):
    """What became of the events of one flush.

    Each custom (`track`) event is in exactly one of the first five counts.

    Args:
        delivered: LaunchDarkly answered 2xx for them during this flush.
        failed: tried, and refused or not answered; they are kept and will be tried again with the
            same payload id.
        dropped: given up by an announced bound, since the previous flush; `stats().events.dropped`
            has the reasons.
        pending: not answered when the flush ended, or held because there is no client yet.
        unconfirmed: handed, since the previous flush, to a client that cannot tell whether
            LaunchDarkly took them.
        others: events of other kinds (exposures, contexts, summaries of evaluations) that this
            flush did not see delivered.
        timed_out: the deadline ended the wait. False when there was nothing left that could be
            waited for.
        confirmed: every count rests on LaunchDarkly's own answers. False as soon as a client is
            involved that was built without `EventProcessor`.
    """

    __slots__ = (
        "delivered",
        "failed",
        "dropped",
        "pending",
        "unconfirmed",
        "others",
        "timed_out",
        "confirmed",
    )
    delivered: int
    failed: int
    dropped: int
    pending: int
    unconfirmed: int
    others: int
    timed_out: bool
    confirmed: bool

    def __init__(
        self,
        delivered: int = 0,
        failed: int = 0,
        dropped: int = 0,
        pending: int = 0,
        unconfirmed: int = 0,
        others: int = 0,
        timed_out: bool = False,
        confirmed: bool = True,
    ) -> None:
        self._fill(delivered, failed, dropped, pending, unconfirmed, others, timed_out, confirmed)

    @property
    def ok(self) -> bool:
        """Whether all of it, exposures included, is at LaunchDarkly."""
        lost = self.failed or self.dropped or self.pending or self.unconfirmed or self.others
        return self.confirmed and not self.timed_out and not lost


class Receipt(Frozen):
    """What the transport knows about one payload after one attempt.

    Args:
        payload_id: LaunchDarkly counts a payload once, however often its id arrives.
        events: how many events are inside, of every kind.
        custom: how many of them came from `track`.
        size: bytes on the wire, without headers.
        status: the HTTP status, 0 when there was no answer.
        attempts: how often it was tried so far, this time included.
        seconds: how long this attempt took.
        error: what went wrong when there was no answer, such as `TimeoutError`; never a key or an
            address.
    """

    __slots__ = ("payload_id", "events", "custom", "size", "status", "attempts", "seconds", "error")
    payload_id: str
    events: int
    custom: int
    size: int
    status: int
    attempts: int
    seconds: float
    error: str

    def __init__(
        self,
        payload_id: str,
        events: int,
        custom: int,
        size: int,
        status: int,
        attempts: int,
        seconds: float,
        error: str = "",
    ) -> None:
        self._fill(payload_id, events, custom, size, status, attempts, seconds, error)

    @property
    def delivered(self) -> bool:
        """Whether LaunchDarkly took the payload."""
        return 200 <= self.status < 300
