"""The thread that sweeps, one per worker and store: with jitter, so that a fleet does not come in
step.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from typing import TYPE_CHECKING

from ..diagnostics import log_internal_error
from ..ledger import ledger

if TYPE_CHECKING:
    from .session_store import SessionStore


from collections.abc import Callable
from dataclasses import dataclass

from ..backoff import Disposition, disposition, retry_delay
from ..delivery.transport import Answer
from ..diagnostics import log_once
from .circuit_breaker import told
from .protocol import Rules, Sealed, Store
from .reporting import Outlet, Sealing, as_payload, as_sealed

BATCH = 100
LEASE = 60.0
MAX_AGE = 24 * 3600.0


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
        error: why it stopped, when it failed: a status or the kind of an exception, never an
            address or a key.
    """

    sessions: int = 0
    delivered: int = 0
    dropped: int = 0
    posts: int = 0
    complete: bool = False
    error: str = ""


class Sweep:
    """One sweep over one store.

    Args:
        store: what to sweep.
        outlet: where payloads leave.
        rules: name the reason of an end that nobody gave one.
        owner: a random name; a lease is its.
        lease: seconds for which nobody else is handed what this sweep works on; longer than a POST
            may take.
        pause: called after each batch with the seconds that it took, so that a busy worker can
            breathe; whether to go on.
    """

    def __init__(
        self,
        store: Store,
        outlet: Outlet,
        rules: Rules,
        owner: str,
        *,
        lease: float = LEASE,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self._store = store
        self._outlet = outlet
        self._rules = rules
        self._owner = owner
        self._lease = lease
        self._pause = pause
        self.report = SweepReport()

    def run(self, limit: int | None = None) -> SweepReport:
        """Sweep up to *limit* sessions. A failing store or server ends the sweep, it does not
        raise.
        """
        try:
            while self._leftovers() and not self._reached(limit):
                started = time.monotonic()
                if not self._batch(
                    BATCH if limit is None else min(BATCH, limit - self.report.sessions)
                ):
                    self.report.complete = not self.report.error
                    break
                if self._pause is not None and not self._pause(time.monotonic() - started):
                    break
        except Exception as error:
            self.report.error = type(error).__name__
            log_once(
                "sweep",
                type(error).__name__,
                f"a sweep of the session store failed ({told(error)}): later again",
            )
        return self.report

    def _reached(self, limit: int | None) -> bool:
        return limit is not None and self.report.sessions >= limit

    def _leftovers(self) -> bool:
        """Send what was sealed earlier; whether everything that was due has left."""
        while found := self._store.claim_sealed(4, self._lease, self._owner):
            for sealed in found:
                if not self._deliver(sealed):
                    return False
        return True

    def _batch(self, size: int) -> int:
        """Claim, seal, send; how many sessions it were, 0 when there were none or they could not be
        sent.
        """
        while ended := self._store.claim(size, self._lease, self._owner):
            while ended:
                sealing = Sealing(ended, self._rules, self._outlet.zipped)
                sealed, places = sealing.sealed, [one.place for one in ended]
                lost = self._store.seal(
                    places, [sealed] if sealed else [], self._lease, self._owner
                )
                if not lost:
                    sealing.count()
                    self.report.sessions += len(ended)
                    return len(ended) if sealed is None or self._deliver(sealed) else 0
                # A late request has joined some, or this worker slept beyond its lease: those are
                # handed out anew.
                ended = [one for one in ended if one.place not in set(lost)]
        return 0

    def _deliver(self, sealed: Sealed) -> bool:
        """Send a payload that is stored; whether sending may go on."""
        if sealed.age > MAX_AGE:
            self._drop("too_old", sealed)
            return True
        answer = self._outlet.post(sealed)
        self.report.posts += 1
        meaning = disposition(answer.status, sealed.attempts)
        if meaning is Disposition.DELIVERED:
            self._delivered(sealed)
        elif meaning is Disposition.SPLIT:
            self._split(sealed)
        elif meaning is Disposition.DROP:
            self._drop("http_400", sealed)
        else:
            self._try_later(sealed, answer)
            return False
        return True

    def _delivered(self, sealed: Sealed) -> None:
        self._store.acknowledge(sealed.id)
        self.report.delivered += sealed.events
        ledger.emitted(sealed.events)
        ledger.delivered(sealed.events)

    def _try_later(self, sealed: Sealed, answer: Answer) -> None:
        self._store.postpone(sealed.id, retry_delay(sealed.attempts, answer.headers))
        self.report.error = str(answer.status or answer.error or "no answer")
        if answer.status in (401, 403):
            log_once(
                "refused",
                f"store {answer.status}",
                f"LaunchDarkly refuses the SDK key (HTTP {answer.status}): ended sessions wait in "
                f"the store; "
                "check LAUNCHDARKLY_SDK_KEY",
            )

    def _split(self, sealed: Sealed) -> None:
        halves = as_payload(sealed).halves()
        if halves:
            self._store.replace(sealed.id, [as_sealed(half) for half in halves])
        else:
            self._drop("too_large", sealed)

    def _drop(self, reason: str, sealed: Sealed) -> None:
        self._store.acknowledge(sealed.id)
        self.report.dropped += sealed.events
        ledger.emitted(sealed.events)
        ledger.dropped(reason, sealed.events)
        log_once(
            reason,
            "store",
            f"LaunchDarkly will not take a payload of ended sessions ({reason}): dropped and "
            f"counted",
        )


SOON = 0.1
LOOK = 60.0


class Sweeper:
    """Brings in what waits for the store, and sweeps, until `stop`.

    Args:
        keeper: held weakly; a store that is forgotten takes its sweeper with it.
    """

    def __init__(self, keeper: SessionStore) -> None:
        self._keeper = weakref.ref(keeper)
        self._bell = threading.Event()
        self._ended = threading.Event()
        self._stopped = False
        self._due = time.monotonic() + _jittered(keeper.interval)
        self._thread = threading.Thread(
            target=self._run, name="ldinstrument.stores.sweeper", daemon=True
        )
        self._thread.start()

    def shorten(self) -> None:
        """Something has ended, or failed: look soon."""
        self._due = min(self._due, time.monotonic() + SOON)
        self._bell.set()

    def ring(self) -> None:
        """Something waits to be brought in: now, please."""
        self._bell.set()

    def stop(self, timeout: float) -> bool:
        """End the thread after its keeper's last words; whether that was within *timeout*
        seconds.
        """
        self._stopped = True
        self._bell.set()
        return self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            self._watch()
            keeper = self._keeper()
            if keeper is not None:
                keeper.last_words()
        finally:
            self._ended.set()

    def _watch(self) -> None:
        while not self._stopped:
            keeper = self._keeper()
            if keeper is None:
                return
            wait = min(self._due - time.monotonic(), keeper.next_attempt(), LOOK)
            del keeper
            if wait > 0:
                self._bell.wait(wait)
                self._bell.clear()
            if not self._stopped:
                self._guarded()

    def _guarded(self) -> None:
        keeper = self._keeper()
        if keeper is None:
            return
        try:
            keeper.catch_up()
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + _jittered(keeper.interval)
                keeper.sweep_in_background()
        except Exception as error:
            log_internal_error("sweeper", error)


def _jittered(interval: float) -> float:
    return interval * random.uniform(0.5, 1.5)
