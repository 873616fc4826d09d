"""A store with manners: what a request, a block and a tracker talk to.

A failing store costs numbers, never a request: time-outs are short, after a failure nobody asks it again for a while,
and meanwhile what requests add waits in memory, bounded and counted. Repeating a merge that timed out is safe, because
the store knows the names of those it made.
"""

from __future__ import annotations

import atexit
import hashlib
import itertools
import os
import secrets
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from .. import emission, sdk
from ..delivery.complaints import on_event_loop, say
from ..delivery.gates import Gate
from ..errors import StrictError
from ..ledger import ledger
from ..rollups import Emission
from ..sessions import Session, open_sessions
from .deltas import delta_of
from .protocol import Delta, Holdings, Merged, Operation, Rules, Store, VisitRef
from .records import Record, parsed
from .sealing import context_of
from .sending import Outlet, outlet_of
from .sweeper import Sweeper
from .sweeping import LEASE, Sweep, SweepReport

INTERVAL = 15.0
MAX_WAITING = 10_000
MAX_WAIT = 900.0
LONGEST_KEY = 128


@dataclass(frozen=True, slots=True)
class _Late:
    """A delta (or, without one, an end) that the store has not taken yet, and since when it waits."""

    key: str
    since: float
    delta: Delta | None = None
    reason: str = ""
    active: bool = False


class SessionStore:
    """Sessions that outlive a request or a process, over any `Store`; `open_store` makes one from an address.

    Args:
        store: where the sessions are.
        client: whose connections reports leave by; the `ldclient` singleton at that moment when None.
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
        self.interval = interval
        self._client = client
        self._lease = lease
        self._sweeps = sweep
        self._max_waiting = max_waiting
        self._closed = False
        self._begin()
        _watch(self)

    def _begin(self) -> None:
        """Everything that a forked child needs afresh."""
        self._lock = threading.Lock()
        self._sweeping = threading.Lock()
        self._worker = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._gate = Gate(first_pause=0.5, longest_pause=30.0)
        self._probing = False
        self._late: deque[_Late] = deque()
        self._outlet: tuple[Any, Outlet | None] = (None, None)
        self._sweeper: Sweeper | None = None

    @property
    def rules(self) -> Rules:
        """When a session is over."""
        return getattr(self.store, "rules", Rules())

    # -- what requests do: bounded, and never an exception -----------------------------------------
    def receive(self, session: Session, visitor: str | None = None, *, ends: str = "") -> VisitRef:
        """End *session* by merging it into that of *visitor*; see `visits.end_request`. Never raises, ends once."""
        own = VisitRef(visitor or _visitor_of(session), session.id)
        try:
            parts = session.hand_over()
            if parts is None:
                return own
            self.prefer(session.client)
            # Who ends a session on an event loop, without `aend_request`, must not stop everybody else there.
            later = self.store.shared and on_event_loop()
            answer = self.merge(own.visitor, replace(delta_of(session, parts[0]), ends=ends), later=later)
            _send(session, parts[1], answer)
            if session._entries:
                session._fold_up()
            emission.settle()
        except StrictError:
            raise
        except Exception as error:
            ledger.failure("the end of a stored session", error)
            return own
        if answer is None:
            return own
        session.id = answer.id
        return VisitRef(own.visitor, answer.id, answer.previous_id, answer.opened, stored=True)

    def prefer(self, client: Any | None) -> None:
        """Report by the connections of *client*, unless a client was given when this was made."""
        if client is not None and self._client is None:
            self._client = client

    def merge(self, visitor: str, delta: Delta, *, later: bool = False) -> Merged | None:
        """Add *delta* to the session of *visitor*: one round trip, at most one time-out.

        Args:
            visitor: whose.
            delta: what is added.
            later: on the sweeper's thread instead of this one, where there is one.

        Returns:
            The session that it went into; None when the store does not answer, and the delta waits, or when there was
            nothing to join.
        """
        if emission.disabled():
            return None
        self._awake()
        late = self._named(visitor, delta)
        if later and self._sweeper is not None:
            self._keep(late)
            self._sweeper.ring()
            return None
        found: Merged | None = self._attempt(late)
        if delta.ends and self._sweeper is not None:
            self._sweeper.hurry()
        return found

    def _named(self, visitor: str, delta: Delta) -> _Late:
        """A delta with a name for its merge, from now on."""
        operation = Operation(self._worker, next(self._numbers))
        context = {kind: _utf8(whose) for kind, whose in delta.context.items()}
        named = replace(delta, id=_utf8(delta.id), context=context, operation=operation)
        return _Late(key_of(delta.name, visitor), time.monotonic(), named)

    def end(self, visitor: str, *, name: str = "session", reason: str = "ended", active: bool = False) -> Record | None:
        """End the open session of *visitor* now (logout); it is reported soon.

        Args:
            visitor: whose.
            name: the prefix of the session's metrics.
            reason: `endReason` in the data of its events.
            active: whether to end it is its last activity.

        Returns:
            The session as it was; None when there was none, or the store does not answer (it ends when it does).
        """
        if emission.disabled():
            return None
        self._awake()
        late = _Late(key_of(name, visitor), time.monotonic(), reason=reason, active=active)
        ended: Record | None = self._attempt(late)
        if ended is not None and self._sweeper is not None:
            self._sweeper.hurry()
        return ended

    def _attempt(self, late: _Late) -> Any:
        if not self._may_try():
            self._keep(late)
            return None
        try:
            answer = self._do(late)
        except Exception as error:
            if not self._refused(late, error):
                self._failed(error)
                self._keep(late)
            return None
        self._succeeded()
        if self._late and not self._sweeps:  # no thread that would: a few at a time
            self.catch_up(10)
        return answer

    def _refused(self, late: _Late, error: Exception) -> bool:
        """Whether the store is well and only this one delta is lost."""
        if not self.store.refuses(error):
            return False
        ledger.failure("session store", error)
        if late.delta is not None:
            ledger.discarded("store_refused", late.delta.values)
        self._succeeded()
        return True

    def _do(self, late: _Late) -> Any:
        if late.delta is None:
            text = self.store.end(late.key, late.reason, active=late.active)
            return None if text is None else parsed(text)
        waited = int((time.monotonic() - late.since) * 1000)
        answer = self.store.merge(late.key, late.delta.aged(waited))
        ledger.emitted_values(late.delta.values)
        return answer

    # -- a store that fails ------------------------------------------------------------------------
    def _may_try(self) -> bool:
        """Whether to ask the store: always while it is well; after a failure one caller at a time, now and then."""
        with self._lock:
            if not self._gate.failures:
                return True
            if self._probing or self._gate.opens_at("") > time.monotonic():
                return False
            self._probing = True
            return True

    def _succeeded(self) -> None:
        if self._gate.failures:
            with self._lock:
                self._gate.succeeded()
                self._probing = False

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._gate.failed()
            self._probing = False
        say(
            "store_down",
            type(self.store).__name__,
            f"the session store does not answer ({type(error).__name__}): up to {self._max_waiting} requests' numbers "
            "wait in memory, and requests go on without it",
        )
        if self._sweeper is not None:
            self._sweeper.hurry()

    def _keep(self, late: _Late) -> None:
        with self._lock:
            self._late.append(late)
            surplus = [self._late.popleft() for _ in range(len(self._late) - self._max_waiting)]
        self._give_up(surplus)

    def _give_up(self, lost: list[_Late]) -> None:
        for one in lost:
            ledger.discarded("store_down", 0 if one.delta is None else one.delta.values)
        if lost:
            ledger.warn(
                "store_lost", "", "the session store was away for too long: the oldest waiting numbers are lost"
            )

    @property
    def waiting(self) -> int:
        """How many merges wait for the store to answer."""
        return len(self._late)

    def catch_up(self, most: int | None = None) -> None:
        """Bring to the store what waited for it (at most *most*); ends at the first failure."""
        done = itertools.count()
        while (most is None or next(done) < most) and (late := self._oldest()) is not None:
            if time.monotonic() - late.since > MAX_WAIT:
                self._give_up([late])
                continue
            try:
                if not self._may_try():
                    self._put_back(late)
                    return
                self._do(late)
            except Exception as error:
                if not self._refused(late, error):
                    self._put_back(late)
                    self._failed(error)
                    return
            else:
                self._succeeded()

    def _oldest(self) -> _Late | None:
        with self._lock:
            return self._late.popleft() if self._late else None

    def _put_back(self, late: _Late) -> None:
        with self._lock:
            self._late.appendleft(late)

    def next_attempt(self) -> float:
        """Seconds until it makes sense to `catch_up`; infinite when nothing waits."""
        if not self._late:
            return float("inf")
        with self._lock:
            return max(0.05, self._gate.opens_at("") - time.monotonic())

    # -- sweeping ------------------------------------------------------------------------------------
    def sweep(self, limit: int | None = None, *, client: Any = None, outlet: Outlet | None = None) -> SweepReport:
        """Report what has ended, on this thread. Never raises.

        Args:
            limit: at most so many sessions; None sweeps everything that is due.
            client: whose connections to use.
            outlet: where to send instead.
        """
        return self._sweep(limit, outlet or self._way_out(client), breathe=False)

    def sweep_in_background(self) -> SweepReport:
        """The same as the worker's own thread does it: in batches, with pauses, so that nothing stalls."""
        return self._sweep(None, self._way_out(None), breathe=True)

    def _sweep(self, limit: int | None, outlet: Outlet | None, *, breathe: bool) -> SweepReport:
        if outlet is None:
            say("no_client", "store", "no LaunchDarkly client that sends: ended sessions wait in the store")
            return SweepReport(error="no client")
        with self._sweeping:
            owner = secrets.token_hex(8)
            pause = self._breathe if breathe else None
            return Sweep(self.store, outlet, self.rules, owner, lease=self._lease, pause=pause).run(limit)

    def _breathe(self, seconds: float) -> bool:
        """Rest as long as the batch took: a sweep of any size leaves the worker at least half of its time."""
        time.sleep(min(1.0, max(0.005, seconds)))
        return not self._closed

    def _way_out(self, client: Any) -> Outlet | None:
        """The outlet of *client*, kept, for its connections are worth keeping."""
        given = client if client is not None else self._client
        wanted = given if given is not None else sdk.singleton_client()
        known, outlet = self._outlet
        if wanted is None or known is not wanted or outlet is None:
            outlet = outlet_of(wanted)
            self._outlet = (wanted, outlet)
        return outlet

    # -- life ----------------------------------------------------------------------------------------
    def _awake(self) -> None:
        """Start this worker's sweeper, in a forked child too."""
        if self._sweeper is not None or not self._sweeps or self._closed:
            return
        with self._lock:
            if self._sweeper is None:
                try:
                    self._sweeper = Sweeper(self)
                except RuntimeError:  # the interpreter is going: no new threads
                    self._sweeps = False

    def holdings(self) -> Holdings:
        """What the store holds now; may raise, it is for people."""
        return self.store.holdings()

    def close(self, timeout: float = 2.0) -> None:
        """Bring in what waits, report what only this process knows, end the sweeper; bounded, harmless twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _known.discard(self)
        if self._sweeper is None:
            self.last_words()
        else:  # on its thread: a store or a server that does not answer must not hold up the process
            self._sweeper.stop(timeout)

    def last_words(self) -> None:
        """The end of this process's part: sessions still open here, merges that wait, what only this process knows."""
        try:
            for one in open_sessions():
                if one._store is self:
                    one.end("abandoned")
            self.catch_up()
            if not self.store.shared:
                getattr(self.store, "end_all", _nothing)("abandoned")
                if outlet := self._way_out(None):
                    self._sweep(None, outlet, breathe=False)
            self.store.close()
        except Exception as error:
            ledger.failure("closing a session store", error)

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SessionStore {type(self.store).__name__}{' closed' if self._closed else ''}>"


def _nothing(reason: str) -> int:
    return 0


def _visitor_of(session: Session) -> str:
    """Whose visit it is when nobody says: an explicit id's, else the context's, else its own."""
    if session._given_id:
        return session._given_id
    known = session.context
    return session.id if known is None else str(known.fully_qualified_key)


def _send(session: Session, loose: list[Emission], answer: Merged | None) -> None:
    """Emit what does not fold, for the session's context; when that is unknown, for the one that the store knows."""
    if not loose:
        return
    context: Any = session.context
    if context is None and answer is not None and (keys := context_of(answer.context)) is not None:
        from ldclient import Context

        context = Context.from_dict(keys)
    for one in loose:
        emission.emit(one, context, session.client)


def key_of(name: str, visitor: str) -> str:
    """Under which a visitor's sessions called *name* are stored; very long ids by their digest."""
    text = str(visitor)
    if len(text) > LONGEST_KEY:
        text = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return _utf8(f"{name}:{text}")


def _utf8(text: str) -> str:
    """The text without lone surrogates, which no store can carry."""
    return text.encode("utf-8", "replace").decode()


# -- forks and the end -----------------------------------------------------------------------------

_known: weakref.WeakSet[SessionStore] = weakref.WeakSet()
_paused: list[SessionStore] = []
_watching = False


def _watch(made: SessionStore) -> None:
    """Let forks and the interpreter's exit reach *made*."""
    global _watching
    _known.add(made)
    if not _watching:
        _watching = True
        atexit.register(close_all)


def _before_fork() -> None:
    for one in list(_known):
        one.store.pause()
        _paused.append(one)


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().store.resume()


def _after_fork_in_child() -> None:
    """What waited in the parent is the parent's to bring in."""
    while _paused:
        one = _paused.pop()
        one.store.forked()
        one._begin()


def close_all() -> None:
    """At exit: every store gets its last word in, briefly."""
    for one in list(_known):
        one.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
