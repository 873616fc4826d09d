"""A store with manners: what a request, a block and a tracker talk to.

A failing store costs numbers, never a request: time-outs are short, after a failure nobody asks it
again for a while, and meanwhile what requests add waits in memory, bounded and counted. Repeating a
merge that timed out is safe, because the store knows the names of those it made.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import threading
import time
import weakref
from dataclasses import replace
from functools import partial
from typing import Any

from .. import sdk, settings
from ..diagnostics import log_internal_error, log_once, on_event_loop
from ..errors import StrictError
from ..metrics.catalogs import EventRouting
from ..process import on_exit, on_fork
from ..sessions import emission
from ..sessions.accumulator import clock
from ..sessions.contexts import kinds
from ..sessions.outcomes import OUTCOMES
from ..sessions.registry import open_sessions
from ..sessions.rollups import Emission, Group
from ..sessions.session import Session
from ..sessions.validation import frozen
from .circuit_breaker import Late, Patience
from .protocol import Delta, GroupValues, Holdings, Merged, Operation, Rules, Store, VisitRef
from .records import Record, group_key, mark_of
from .reporting import Outlet, context_of, outlet_of
from .sweeper import LEASE, Sweep, Sweeper, SweepReport


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
    return store.receive(session, visitor, ends=ends)


async def aend_request(
    session: Session, store: SessionStore, visitor: str | None = None, *, ends: str = ""
) -> VisitRef:
    """`end_request` for an event loop, which it never blocks: the round trip happens on a
    thread.
    """
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(
        None, partial(end_request, session, store, visitor, ends=ends)
    )


def end_session(
    store: SessionStore, visitor: str, *, name: str = "session", reason: str = "ended"
) -> VisitRef | None:
    """End a visitor's session now, as at logout; what comes next opens the next one. Never raises.

    Returns:
        The session that ended; None when none was open, or the store does not answer (it ends when
        it does).
    """
    try:
        record = store.end(visitor, name=name, reason=reason)
    except StrictError:
        raise
    except Exception as error:
        log_internal_error("end_session", error)
        return None
    return None if record is None else VisitRef(visitor, record.id, record.previous, stored=True)


def delta_of(session: Session, folded: list[tuple[EventRouting, Group]]) -> Delta:
    """What a session that has handed over adds to a stored one; dates become ages, by the worker's
    steady clock.
    """
    at = clock()
    today = at * 1000 + session._offset_ms
    groups = dict(_group(routing, group, today) for routing, group in folded if group.count)
    known = session.context
    tallies = session._tallies
    return Delta(
        id=session.id,
        name=session.name,
        context={} if known is None else {kind: part.key for kind, part in kinds(known).items()},
        started_ago=max(0, int((at - session._started) * 1000)),
        last_ago=max(0, int((at - session._last) * 1000)),
        tallies=(
            tallies[OUTCOMES[0]],
            tallies[OUTCOMES[1]],
            tallies[OUTCOMES[2]],
            tallies[OUTCOMES[3]],
        ),
        data=json.dumps(session._data, separators=(",", ":")) if session._data else "",
        flags="".join(sorted({mark_of(flag) for flag in session._exposed_flags})),
        groups=groups,
        values=sum(group.count for _, group in folded),
    )


def _group(routing: EventRouting, group: Group, today: float) -> tuple[str, GroupValues]:
    key = group_key(routing.event_key, routing.rollup, routing.numeric, frozen(group.data))
    # Only `last` (and a numeric `once`) reports a single value; the others would store it in vain.
    value = group.last if routing.rollup in ("last", "once") and routing.numeric else None
    return key, (
        group.total,
        group.count,
        int(today - group.first_at),
        int(today - group.last_at),
        value,
    )


INTERVAL = 15.0
MAX_WAITING = 10_000
LONGEST_KEY = 128


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
        self._patience = Patience(
            self.store, self._max_waiting, self._failing, watched=self._sweeps
        )
        self._outlet: tuple[Any, Outlet | None] = (None, None)
        self._sweeper: Sweeper | None = None

    @property
    def rules(self) -> Rules:
        """When a session is over."""
        return getattr(self.store, "rules", Rules())

    # -- what requests do: bounded, and never an exception -----------------------------------------
    def receive(self, session: Session, visitor: str | None = None, *, ends: str = "") -> VisitRef:
        """End *session* by merging it into that of *visitor*; see `visits.end_request`. Never
        raises, ends once.
        """
        own = VisitRef(visitor or _visitor_of(session), session.id)
        try:
            parts = session.hand_over()
            if parts is None:
                return own
            self.prefer(session.client)
            # Who ends a session on an event loop, without `aend_request`, must not stop everybody
            # else there.
            later = self.store.shared and on_event_loop()
            answer = self.merge(
                own.visitor, replace(delta_of(session, parts[0]), ends=ends), later=later
            )
            _send(session, parts[1], answer)
            if session.entries:
                session.fold_up()
            emission.settle()
        except StrictError:
            raise
        except Exception as error:
            log_internal_error("the end of a stored session", error)
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
            The session that it went into; None when the store does not answer, and the delta waits,
            or when there was nothing to join.
        """
        if settings.disabled():
            return None
        self._awake()
        late = self._named(visitor, delta)
        if later and self._sweeper is not None:
            self._patience.keep(late)
            self._sweeper.ring()
            return None
        found: Merged | None = self._patience.attempt(late)
        if delta.ends and self._sweeper is not None:
            self._sweeper.shorten()
        return found

    def _named(self, visitor: str, delta: Delta) -> Late:
        """A delta with a name for its merge, from now on."""
        operation = Operation(self._worker, next(self._numbers))
        context = {kind: _utf8(whose) for kind, whose in delta.context.items()}
        named = replace(delta, id=_utf8(delta.id), context=context, operation=operation)
        return Late(key_of(delta.name, visitor), time.monotonic(), named)

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
        if settings.disabled():
            return None
        self._awake()
        late = Late(key_of(name, visitor), time.monotonic(), reason=reason, active=active)
        ended: Record | None = self._patience.attempt(late)
        if ended is not None and self._sweeper is not None:
            self._sweeper.shorten()
        return ended

    # -- a store that fails ------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """How many merges wait for the store to answer."""
        return len(self._patience)

    def catch_up(self) -> None:
        """Bring to the store what waited for it; ends at the first failure."""
        self._patience.catch_up()

    def next_attempt(self) -> float:
        """Seconds until it makes sense to `catch_up`; infinite when nothing waits."""
        return self._patience.next_attempt()

    def _failing(self) -> None:
        """The store has just failed: the sweeper watches for its return."""
        if self._sweeper is not None:
            self._sweeper.ring()

    # -- sweeping ----------------------------------------------------------------------------------
    def sweep(
        self, limit: int | None = None, *, client: Any = None, outlet: Outlet | None = None
    ) -> SweepReport:
        """Report what has ended, on this thread. Never raises.

        Args:
            limit: at most so many sessions; None sweeps everything that is due.
            client: whose connections to use.
            outlet: where to send instead.
        """
        return self._sweep(limit, outlet or self._way_out(client), breathe=False)

    def sweep_in_background(self) -> SweepReport:
        """The same as the worker's own thread does it: in batches, with pauses, so that nothing
        stalls.
        """
        return self._sweep(None, self._way_out(None), breathe=True)

    def _sweep(self, limit: int | None, outlet: Outlet | None, *, breathe: bool) -> SweepReport:
        if outlet is None:
            log_once(
                "no_client",
                "store",
                "no LaunchDarkly client that sends: ended sessions wait in the store",
            )
            return SweepReport(error="no client")
        with self._sweeping:
            owner = secrets.token_hex(8)
            pause = self._breathe if breathe else None
            return Sweep(self.store, outlet, self.rules, owner, lease=self._lease, pause=pause).run(
                limit
            )

    def _breathe(self, seconds: float) -> bool:
        """Rest as long as the batch took: a sweep of any size leaves the worker at least half of
        its time.
        """
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

    # -- life --------------------------------------------------------------------------------------
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

    def once(self, key: str, ttl: float) -> bool:
        """Take *key* for *ttl* seconds; False when somebody has it already. Raises what the store
        does.
        """
        return self.store.once(key, ttl)

    def holdings(self) -> Holdings:
        """What the store holds now; may raise, it is for people."""
        return self.store.holdings()

    def close(self, timeout: float = 2.0) -> None:
        """Bring in what waits, report what only this process knows, end the sweeper; bounded,
        harmless twice.
        """
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
        """The end of this process's part: sessions still open here, merges that wait, what only
        this process knows.
        """
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
            log_internal_error("closing a session store", error)

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
    """Emit what does not fold, for the session's context; when that is unknown, for the one that
    the store knows.
    """
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
        on_exit(close_all)


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


on_fork(before=_before_fork, in_parent=_after_fork_in_parent, in_child=_after_fork_in_child)
