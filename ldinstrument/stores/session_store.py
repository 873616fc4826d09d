"""SessionStore: a `Store` wrapped with time-outs, a circuit breaker, a queue and a sweeper.

Requests, blocks and trackers talk to it. A failing store costs numbers, never a request: time-outs
are short, after a failure nobody asks it again for a while, and meanwhile what requests add waits
in memory, bounded and counted. Repeating a merge that timed out is safe, because the store knows
the names of those it made.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import sdk
from ..diagnostics import guard, log_once, withhold
from ..ledger import ledger
from ..process import (
    on_exit,
    on_exit_of_multiprocessing_child,
    on_fork,
    watch_forking_thread,
)
from ..sessions import clients
from ..sessions.contexts import context_of_keys, units_of
from ..sessions.exposures import exposures
from ..sessions.registry import open_sessions
from ..sessions.session import Session
from ..settings import DISABLED_KEY, disabled, encoded, environ, scans
from ..values import without_surrogates
from .circuit_breaker import CircuitBreaker, PendingMerge
from .deltas import delta_of
from .protocol import Delta, Holdings, Merged, Operation, Rules, Store, VisitRef, today
from .records import Record
from .reporting import LEASE, Outlet, Sweep, SweepOptions, SweepReport, outlet_of
from .sweeper import Sweeper

if TYPE_CHECKING:
    from typing_extensions import Unpack

INTERVAL = 15.0
MAX_WAITING = 10_000
MOST_KNOWN = 10_000
"""Open sessions of which a process remembers whose they are, before it forgets them all."""
MOST_IDENTITIES = 4
"""Identities of one of them that it remembers."""
LONGEST_KEY = 128


def end_request(
    session: Session, store: SessionStore, visitor: str | None = None, *, ends: str = ""
) -> VisitRef:
    """End the session of a request by merging it into the visitor's, in one round trip. Never
    raises, ends once.

    What folds (sums, occurrences, tallies, the dates) goes to the store; values that travel one by
    one leave at once. On an event loop a shared store is talked to on the sweeper's thread, and the
    answer is not waited for: there, `aend_request` is better.

    Args:
        session: of this request.
        store: where the visit is.
        visitor: whose visit it is: the id in the cookie, a conversation's id. None: the session's
            context is, and without one the session stands for itself.
        ends: the visit ends with this request (logout), for this reason; still one round trip.
    """
    return store.end_request(session, visitor, ends=ends)


async def aend_request(
    session: Session, store: SessionStore, visitor: str | None = None, *, ends: str = ""
) -> VisitRef:
    """Do what `end_request` does without blocking the event loop: a thread makes the round trip, if
    there is one.
    """
    if not store.store.shared:
        return store.end_request(session, visitor, ends=ends)
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(
        None, partial(store.end_request, session, visitor, ends=ends)
    )


def end_session(
    store: SessionStore, visitor: str, *, name: str = "session", reason: str = "ended"
) -> VisitRef | None:
    """End a visitor's session now, as at logout; what comes next opens the next one. Never raises.

    Returns:
        The session that ended; None when none was open, or the store does not answer (it ends when
        it does).
    """
    record: Record | None = None
    with guard("end_session"):
        record = store.end(visitor, name=name, reason=reason)
    return None if record is None else VisitRef(visitor, record.id, record.previous, stored=True)


class SessionStore:
    """Sessions that outlive a request or a process, over any `Store`; `open_store` makes one from
    an address.

    Args:
        store: where the sessions are.
        client: whose connections reports leave by; the `ldclient` singleton at that moment when
            None.
        interval: seconds between two sweeps of this worker, times 0.5 to 1.5.
        lease: seconds for which another worker leaves alone what this one is reporting.
        sweep: whether this worker sweeps; without it, `sweep()` must be called from somewhere.
        max_waiting: how many merges may wait in memory for a store that does not answer.
    """

    def __init__(
        self,
        store: Store,
        *,
        client: Any | None = None,
        interval: float = INTERVAL,
        lease: float = LEASE,
        sweep: bool = True,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.store = store
        self.rules: Rules = getattr(store, "rules", Rules())
        """When a session is over."""
        self.interval = interval
        self.client = client
        """Whose connections reports leave by, where one was given."""
        self._preferred: Any | None = None
        self._lease = lease
        self._sweeps = sweep
        self._max_waiting = max_waiting
        self._closed = False
        self._holders = 0
        self._begin()
        _stores.add(self)
        on_exit(close_all)

    def _begin(self) -> None:
        """Make everything that a forked child needs afresh."""
        self._lock = threading.Lock()
        self._sweeping = threading.Lock()
        self._worker = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._breaker = CircuitBreaker(
            self.store, self._max_waiting, self._wake_sweeper, watched=self._sweeps
        )
        self._outlet: tuple[Any, Outlet | None] = (None, None)
        self._sweeper: Sweeper | None = None
        self._whose: dict[str, tuple[Mapping[str, str], ...]] = {}
        """The latest identities of open sessions, by their keys in the store."""

    # -- what requests do: bounded, and never an exception -----------------------------------------
    def end_request(
        self, session: Session, visitor: str | None = None, *, ends: str = ""
    ) -> VisitRef:
        """End *session* by merging it into that of *visitor*; see the function `end_request`."""
        whose, answer = visitor or session.visitor_key, None
        try:
            part = session.hand_over()
            if part is not None:
                if self._preferred is None:
                    self._preferred = session.client
                operation = Operation(self._worker, next(self._numbers))
                delta = delta_of(part, ends=ends, operation=operation)

                # A session that ends on an event loop without `aend_request` must not stop it
                # (`on_event_loop`, in line).
                asyncio = sys.modules.get("asyncio") if self.store.shared else None
                later = asyncio is not None and asyncio._get_running_loop() is not None
                answer = self.merge(whose, delta, later=later)
                known = (part.id, {}) if answer is None else (answer.id, answer.context)
                session.merged_into(part, *known)
        except Exception as error:
            withhold("the end of a stored session", error)
        if answer is None:
            return VisitRef(whose, session.id)
        return VisitRef(whose, answer.id, answer.previous_id, answer.opened, stored=True)

    def prefer(self, client: Any | None) -> None:
        """Report by the connections of *client*, unless one was given or preferred before."""
        if self._preferred is None:
            self._preferred = client

    def merge(self, visitor: str, delta: Delta, *, later: bool = False) -> Merged | None:
        """Add *delta* to the session of *visitor*: one round trip, at most one time-out.

        Args:
            visitor: whose.
            delta: what is added.
            later: on the sweeper's thread instead of this one, where there is one.

        Returns:
            The session that it went into; None when the store does not answer, and the delta waits,
            or when there was nothing to join.
        """
        if (scans or DISABLED_KEY in encoded or os.environ is not environ) and disabled():
            return None
        if self._sweeper is None and self._sweeps:
            self._start_sweeper()
        if delta.operation is None:
            operation = Operation(self._worker, next(self._numbers))
            delta = replace(delta, id=without_surrogates(delta.id), operation=operation)
        key, asked, breaker = f"{delta.name}:{visitor}", time.monotonic(), self._breaker
        if len(key) > LONGEST_KEY or not key.isascii():
            key = key_of(delta.name, visitor)
        if later and self._sweeper is not None:
            breaker.keep(PendingMerge(key, asked, delta))
            self._sweeper.wake()
            return None

        found: Merged | None = None
        if breaker.backoff.failures or breaker.pending:  # it fails, or did a moment ago
            found = breaker.attempt(PendingMerge(key, asked, delta))
        else:
            try:
                found = self.store.merge(key, delta)
            except BaseException as error:
                breaker.missed(PendingMerge(key, asked, delta), error)
            else:
                if delta.values:
                    ledger.count(emitted_values=delta.values)

        if found is not None:
            if len(self._whose) >= MOST_KNOWN:
                self._whose.clear()
            before = self._whose.get(key, ())
            if before[-1:] != (found.context,):
                others = [keys for keys in before if keys != found.context]
                self._whose[key] = (*others[1 - MOST_IDENTITIES :], found.context)
                if before:  # theirs may have ended here
                    self._note_left(before[-1], delta.now)
        if delta.ends and self._sweeper is not None:
            self._sweeper.sweep_soon()
        return found

    def end(
        self, visitor: str, *, name: str = "session", reason: str = "ended", active: bool = False
    ) -> Record | None:
        """End the open session of *visitor* now (logout); it is reported soon.

        Args:
            visitor: whose.
            name: the prefix of the session's metrics.
            reason: `endReason` in the data of its events.
            active: whether to end it is its last activity.

        Returns:
            The session as it was; None when there was none, or the store does not answer (it ends
            when it does).
        """
        if disabled():
            return None
        if self._sweeper is None and self._sweeps:
            self._start_sweeper()
        key = key_of(name, visitor)
        over = self._present(key)
        pending = PendingMerge(key, time.monotonic(), reason=reason, over=over, active=active)
        ended: Record | None = self._breaker.attempt(pending)
        if ended is not None:
            self._note_left(ended.keys, ended.over)
        if ended is not None and self._sweeper is not None:
            self._sweeper.sweep_soon()
        return ended

    @staticmethod
    def _note_left(keys: Mapping[str, str], date: int) -> None:
        """Note that events of *keys* are dated *date*: an exposure that follows comes after it."""
        if (whose := context_of_keys(keys)) is not None:
            exposures.note_left(units_of(whose), date)

    def _present(self, key: str) -> int:
        """Return the date of this moment for the session of *key*: not before an exposure of whom
        it is known to belong to, for the wall clock may have been set back since.
        """
        over = today()
        for keys in self._whose.pop(key, ()):
            if (whose := context_of_keys(keys)) is not None:
                known = exposures.of(units_of(whose), lost=True)
                over = max([over, *(exposure.date for exposure in known)])
        return over

    # -- a store that fails ------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """Return how many merges wait for the store to answer."""
        return len(self._breaker)

    def catch_up(self) -> None:
        """Bring to the store what waited for it; end at the first failure."""
        self._breaker.catch_up()

    def next_attempt(self) -> float:
        """Return the seconds until it makes sense to `catch_up`; infinity when nothing waits."""
        return self._breaker.next_attempt()

    def _wake_sweeper(self) -> None:
        """Let the sweeper watch for the return of a store that has just failed."""
        if self._sweeper is not None:
            self._sweeper.wake()

    # -- sweeping ----------------------------------------------------------------------------------
    def sweep(
        self,
        limit: int | None = None,
        *,
        client: Any = None,
        outlet: Outlet | None = None,
        **options: Unpack[SweepOptions],
    ) -> SweepReport:
        """Report what has ended, on this thread. Never raises.

        Args:
            limit: stop after the batch (of up to 500) with the *limit*-th session; None sweeps
                everything that is due.
            client: whose connections to use.
            outlet: where to send instead.
            options: of `Sweep`: `own_rules`, `early` and `pause`.
        """
        outlet = outlet or self.outlet(client)
        if outlet is None:
            log_once(
                "no_client",
                "store",
                "no LaunchDarkly client that sends: ended sessions wait in the store; make one "
                "in this process, or run ldinstrument sweep",
            )
            return SweepReport(error="no client")
        with self._sweeping:
            owner = secrets.token_hex(8)
            sweep = Sweep(self.store, outlet, self.rules, owner, lease=self._lease, **options)
            return sweep.run(limit)

    def sweep_in_background(self) -> SweepReport:
        """Report what has ended but for the current window, with pauses between the batches."""
        return self.sweep(pause=self._rest, early=False)

    def _rest(self, seconds: float) -> bool:
        """Rest as long as the batch took, which leaves the worker at least half of its time; tell
        whether to go on.
        """
        time.sleep(min(1.0, max(0.005, seconds)))
        return not self._closed

    def outlet(self, client: Any = None) -> Outlet | None:
        """Return where the reports of *client* leave; None when there is no client that sends.

        It is kept, because its connections are worth keeping.
        """
        candidates = client, self.client, self._preferred
        given = next((found for found in candidates if found is not None), None)
        wanted = given if given is not None else sdk.singleton_client()
        known, outlet = self._outlet
        if outlet is not None and known is wanted and id(wanted) in clients.direct:
            return outlet

        if clients.recorder() is not None:  # a test's, and not to be kept
            return outlet_of(None)
        if wanted is None or known is not wanted or outlet is None:
            outlet = outlet_of(wanted)
            self._outlet = (wanted, outlet)
        return outlet

    # -- life --------------------------------------------------------------------------------------
    def _start_sweeper(self) -> None:
        """Start this worker's sweeper, in a forked child too."""
        if self._closed:
            return
        with self._lock:
            if self._sweeper is None:
                sweeper = Sweeper(self)
                self._sweeper = sweeper if sweeper.runs else None
        on_exit_of_multiprocessing_child(close_all, priority=20)
        watch_forking_thread()

    def once(self, key: str, ttl: float) -> bool:
        """Take *key* for *ttl* seconds; False when somebody has it already.

        Raises what the store does.
        """
        return self.store.once(key, ttl)

    def holdings(self) -> Holdings:
        """Return what the store holds now. Raises what the store does."""
        return self.store.holdings()

    def close(self, timeout: float = 2.0) -> None:
        """Bring in what waits, report what only this process knows, end the sweeper; within
        *timeout* seconds, harmless twice.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _stores.discard(self)
        if self._sweeper is None:
            self.finish()
        else:
            # On its thread: a store or a server that does not answer must not hold up the process.
            self._sweeper.stop(timeout)

    def hold(self) -> None:
        """Note that a server has started which uses this store; go on if it was closed, as an
        application does that starts once more in its process.
        """
        with self._lock:
            self._holders += 1
            if self._closed:
                self._closed, self._sweeper = False, None
        _stores.add(self)

    def release(self) -> None:
        """Note that such a server has stopped; with the last one, `close`."""
        with self._lock:
            self._holders = max(0, self._holders - 1)
        self.close_unheld()

    def close_unheld(self) -> None:
        """Close, unless a server that uses this store goes on."""
        if not self._holders:
            self.close()

    def finish(self) -> None:
        """End this process's part: its open sessions, merges that wait, what only it knows."""
        with guard("closing a session store"):
            for session in open_sessions():
                if session.store is self:
                    session.end("abandoned")
            self.catch_up()
            if not self.store.shared:
                self.store.end_unshared("abandoned")
                if outlet := self.outlet():
                    self.sweep(outlet=outlet)
            self.store.close()

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SessionStore {type(self.store).__name__}{' closed' if self._closed else ''}>"


def key_of(name: str, visitor: str) -> str:
    """Return the key of a visitor's sessions called *name*; very long ids become their digest."""
    text = str(visitor)
    if len(text) > LONGEST_KEY:
        text = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    key = f"{name}:{text}"
    return key if key.isascii() else without_surrogates(key)


# -- forks and the end -----------------------------------------------------------------------------

_stores: weakref.WeakSet[SessionStore] = weakref.WeakSet()
_paused: list[SessionStore] = []


def _before_fork() -> None:
    for keeper in list(_stores):
        keeper.store.pause()
        _paused.append(keeper)


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().store.resume()


def _after_fork_in_child() -> None:
    """Begin afresh: what waited in the parent is the parent's to bring in."""
    while _paused:
        keeper = _paused.pop()
        keeper.store.forked()
        keeper._begin()


def close_all() -> None:
    """Close every store of this process, briefly."""
    for keeper in list(_stores):
        keeper.close()


def open_stores() -> list[SessionStore]:
    """Return the stores of this process that are not closed."""
    return list(_stores)


on_fork(before=_before_fork, in_parent=_after_fork_in_parent, in_child=_after_fork_in_child)
