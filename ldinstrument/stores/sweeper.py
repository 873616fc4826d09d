"""Sweep: seal what has ended in a store, send it, acknowledge it. Sweeper: the thread that does so.

There is one thread per worker and store, with jitter, so that a fleet does not come in step.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

from ..backoff import Disposition, disposition, retry_delay
from ..delivery.transport import PostResult
from ..diagnostics import guard, log_once
from ..ledger import ledger
from .circuit_breaker import describe_failure
from .protocol import Rules, Sealed, Store
from .reporting import Outlet, Report, halves

BATCH = 500
"""Sessions in a payload, at most."""
LEASE = 60.0
MAX_AGE = 24 * 3600.0
"""Seconds after which LaunchDarkly may have forgotten a payload id, so that sending it again could
count twice.
"""
SOON = 0.1
"""Seconds after the end of a window in which a session ended on request."""
LONGEST_WAIT = 60.0


@dataclass(slots=True)
class SweepReport:
    """What one sweep did.

    Args:
        sessions: sealed, that is: reported now or, whatever happens, later under the same payload
            id.
        delivered: events that LaunchDarkly has taken.
        dropped: events that it never will.
        posts: POSTs made, repeated ones included.
        complete: nothing was left that could be swept; False after a failure, or at *limit*.
        open: sessions that are not over yet; None when nobody asked, or the store failed.
        error: why it stopped, when it failed: a status or the kind of an exception, never an
            address or a key.
    """

    sessions: int = 0
    delivered: int = 0
    dropped: int = 0
    posts: int = 0
    complete: bool = False
    error: str = ""
    open: int | None = None


class SweepOptions(TypedDict, total=False):
    """Options of a `Sweep`."""

    pause: Callable[[float], bool] | None
    early: bool
    own_rules: bool


@dataclass(slots=True)
class Sweep:
    """One sweep over one store.

    Args:
        store: what to sweep.
        outlet: where payloads leave.
        rules: name the reason of an end that nobody gave one.
        owner: a random name; the leases are its.
        lease: seconds for which nobody else is handed what this sweep works on; longer than a POST
            may take.
        pause: called after each batch with the seconds that it took, so that a busy worker can
            rest; returns whether to go on.
        early: also report what ended in the current window (see `Rules`), as a batch of its own.
        own_rules: look at every open session whether it is over by *store*'s rules, because those
            of the workers may be longer.
    """

    store: Store
    outlet: Outlet
    rules: Rules
    owner: str
    lease: float = LEASE
    pause: Callable[[float], bool] | None = None
    early: bool = True
    own_rules: bool = False
    report: SweepReport = field(default_factory=SweepReport)

    def run(self, limit: int | None = None) -> SweepReport:
        """Sweep up to *limit* sessions. A failing store or server ends the sweep, it does not
        raise.
        """
        try:
            if self.own_rules:
                self.store.end_silent()
            self._send_all(limit)
            if self.early:
                self.report.open = self.store.holdings().open
        except Exception as error:
            self.report.error = type(error).__name__
            log_once(
                "sweep",
                type(error).__name__,
                f"a sweep of the session store failed ({describe_failure(error)}): it is repeated "
                "later",
            )
        return self.report

    def _send_all(self, limit: int | None) -> None:
        while self._send_leftovers():
            left = BATCH if limit is None else min(BATCH, limit - self.report.sessions)
            if left <= 0:
                return
            started = time.monotonic()
            if not self._batch(left):
                self.report.complete = not self.report.error
                return
            if self.pause is not None and not self.pause(time.monotonic() - started):
                return

    def _send_leftovers(self) -> bool:
        """Send what was sealed earlier; tell whether everything that was due has left."""
        while found := self.store.claim_sealed(4, self.lease, self.owner):
            for sealed in found:
                if not self._deliver(sealed):
                    return False
        return True

    def _batch(self, size: int) -> int:
        """Claim, seal, send; return how many sessions, 0 when there were none or sending failed."""
        while ended := self.store.claim(size, self.lease, self.owner, early=self.early):
            while ended:
                report = Report(ended, self.rules, self.outlet.zipped)
                places = [session.place for session in ended]
                lost = self.store.seal(places, report.payloads, self.lease, self.owner)
                if not lost:
                    report.count()
                    self.report.sessions += len(ended)
                    return len(ended) if all(map(self._deliver, report.payloads)) else 0
                # A late request has joined some, or this worker slept beyond its lease: those are
                # handed out anew.
                ended = [session for session in ended if session.place not in set(lost)]
        return 0

    def _deliver(self, sealed: Sealed) -> bool:
        """Send a payload that is stored; tell whether sending may go on."""
        if sealed.age > MAX_AGE:
            self._drop("too_old", sealed)
            return True
        answer = self.outlet.post(sealed)
        self.report.posts += 1
        meaning = disposition(answer.status, sealed.attempts)
        if meaning is Disposition.DELIVERED:
            self.store.acknowledge(sealed.id)
            self.report.delivered += sealed.events
            ledger.emitted(sealed.events)
            ledger.delivered(sealed.events)
        elif meaning is Disposition.SPLIT:
            self._split(sealed)
        elif meaning is Disposition.DROP:
            self._drop("http_400", sealed)
        else:
            self._try_later(sealed, answer)
            return False
        return True

    def _try_later(self, sealed: Sealed, answer: PostResult) -> None:
        self.store.postpone(sealed.id, retry_delay(sealed.attempts, answer.headers))
        self.report.error = str(answer.status or answer.error or "no answer")
        if answer.status in (401, 403):
            log_once(
                "refused",
                f"store {answer.status}",
                f"LaunchDarkly refuses the SDK key (HTTP {answer.status}): ended sessions wait in "
                "the store; check LAUNCHDARKLY_SDK_KEY",
            )

    def _split(self, sealed: Sealed) -> None:
        parts = halves(sealed)
        if parts:
            self.store.replace(sealed.id, parts)
        else:
            self._drop("too_large", sealed)

    def _drop(self, reason: str, sealed: Sealed) -> None:
        self.store.acknowledge(sealed.id)
        self.report.dropped += sealed.events
        ledger.emitted(sealed.events)
        ledger.dropped(reason, sealed.events)
        log_once(
            reason,
            "store",
            f"LaunchDarkly will not take a payload of ended sessions ({reason}): dropped and "
            "counted",
        )


class Swept(Protocol):
    """What a sweeper works on: a `SessionStore`."""

    interval: float
    """Seconds between two sweeps."""

    rules: Rules
    """When a session is over."""

    def next_attempt(self) -> float:
        """Return the seconds until it makes sense to `catch_up`."""

    def catch_up(self) -> None:
        """Bring to the store what waited for it."""

    def sweep_in_background(self) -> SweepReport:
        """Report what has ended."""

    def finish(self) -> None:
        """End this process's part."""


class Sweeper:
    """A thread that brings in what waits for the store, and sweeps, until `stop`.

    Args:
        swept: held weakly; a store that is forgotten takes its sweeper with it.
    """

    def __init__(self, swept: Swept) -> None:
        self._swept = weakref.ref(swept)
        self._wakeup = threading.Event()
        self._ended = threading.Event()
        self._stopped = False
        self._due = time.monotonic() + _jittered(swept.interval)
        self._window = swept.rules.window
        self._thread = threading.Thread(
            target=self._run, name="ldinstrument.stores.sweeper", daemon=True
        )
        self._thread.start()

    def sweep_soon(self) -> None:
        """Sweep when the window is over in which a session has just ended."""
        self._due = min(self._due, time.monotonic() + self._window + SOON)
        self._wakeup.set()

    def wake(self) -> None:
        """Look now at what waits to be brought in."""
        self._wakeup.set()

    def stop(self, timeout: float) -> bool:
        """End the thread after the store's final flush; tell whether that was within *timeout*
        seconds.
        """
        self._stopped = True
        self._wakeup.set()
        return self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            self._watch()
            swept = self._swept()
            if swept is not None:
                swept.finish()
        finally:
            self._ended.set()

    def _watch(self) -> None:
        while not self._stopped:
            swept = self._swept()
            if swept is None:
                return
            wait = min(self._due - time.monotonic(), swept.next_attempt(), LONGEST_WAIT)
            del swept
            if wait > 0:
                self._wakeup.wait(wait)
                self._wakeup.clear()
            if not self._stopped:
                self._work()

    def _work(self) -> None:
        swept = self._swept()
        if swept is None:
            return
        with guard("the sweeper of a session store"):
            swept.catch_up()
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + _jittered(swept.interval)
                swept.sweep_in_background()


def _jittered(interval: float) -> float:
    return interval * random.uniform(0.5, 1.5)
