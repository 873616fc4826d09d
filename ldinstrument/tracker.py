"""`SessionMetricsTracker`: sessions by an id of yours, where no block can hold them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .diagnostics import guard, warn_once
from .errors import DefinitionError
from .ledger import ledger
from .sessions.accounts import DEFAULT_METRICS, declared_metrics
from .sessions.clients import Tracker
from .sessions.contexts import as_context, context_of_keys, kinds, same, units_of
from .sessions.exposures import exposures
from .sessions.scopes import open_session
from .sessions.session import Session
from .stores.deltas import OLDEST_EXPOSURE, mark_of
from .stores.protocol import Delta, today
from .stores.replay import summary_of
from .values import whole_above_zero

if TYPE_CHECKING:
    from ldclient import Context

    from .stores import SessionStore

MAX_SESSIONS = 10_000


class SessionMetricsTracker:
    """Track sessions by explicit ids: a conversation, a game, a checkout that many calls belong to.

    At the end of each, `session.duration` (milliseconds), `session.success_rate` (percent, when
    there were interactions) and `session.interactions` leave for its user, with `sessionId` in
    their data. Safe for several threads, and with a shared store for several workers; a failure of
    ours never reaches the caller.

    Args:
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        store: keeps the sessions (`ldinstrument.open_store`, or an address for it), so that any
            worker may go on with them, and reports those that fall silent; in this process, until
            they are ended, when None.
        max_sessions: without a store: how many may be open; the one silent for longest then ends as
            abandoned, said once and counted.
        metrics: which of `duration`, `success_rate`, `interactions`, `successes` and `unfinished`
            to send for each session.
    """

    def __init__(
        self,
        client: Tracker | None = None,
        store: SessionStore | str | Path | None = None,
        *,
        max_sessions: int = MAX_SESSIONS,
        metrics: Iterable[str] = DEFAULT_METRICS,
    ) -> None:
        whole_above_zero("SessionMetricsTracker: max_sessions=", max_sessions)
        wanted = declared_metrics("session", metrics)
        self._sessions = (
            _SessionsHere(client, max_sessions, wanted)
            if store is None
            else _SessionsInStore(client, _store_of(store), wanted)
        )

    def start_session(self, user_id: Any, session_id: str) -> None:
        """Open the session *session_id*; an open one of the same user goes on, another user's ends
        first.

        Args:
            user_id: a key of kind `user`, or an `ldclient.Context`.
            session_id: yours; unique among the open ones.
        """
        if (known := _checked(session_id)) is not None:
            with guard("start_session"):
                self._sessions.start(as_context(user_id), known)

    def track_interaction(self, session_id: str, success: bool = True) -> None:
        """Count one interaction of an open session; an unknown id, or one silent for too long, is
        no error.
        """
        if (known := _checked(session_id)) is not None:
            with guard("track_interaction"):
                self._sessions.track(known, bool(success))

    def end_session(self, session_id: str) -> dict[str, Any] | None:
        """End a session and emit its metrics; the call itself is its last activity.

        Returns:
            `user_id`, `start_time` (seconds since the epoch), `interactions`, `successful_tasks`,
            `duration` (seconds); None when no session of this id is open.
        """
        if (known := _checked(session_id)) is not None:
            with guard("end_session"):
                return self._sessions.end(known)
        return None


class _SessionsHere:
    """Sessions in this process, by their ids; at most *most* of them."""

    def __init__(self, client: Tracker | None, most: int, metrics: tuple[str, ...]) -> None:
        self._client = client
        self._most = most
        self._metrics = metrics
        self._lock = threading.RLock()
        self._open: OrderedDict[str, Session] = OrderedDict()

    def start(self, context: Context | None, session_id: str) -> None:
        if self._goes_on(context, session_id):
            return
        # Opening may emit what is left behind elsewhere, and nothing leaves while a lock is held.
        opened = open_session(context, id=session_id, client=self._client, metrics=self._metrics)
        with self._lock:
            ending = self._superseded(context, session_id)
            if ending is None:  # another thread was faster; ours has seen nothing
                opened.hand_over()
                return
            self._open[session_id] = opened
            surplus = range(len(self._open) - self._most)
            evicted = [self._open.popitem(last=False)[1] for _ in surplus]
        for session in ending:
            session.end("replaced")
        for session in evicted:
            self._evict(session)

    def _goes_on(self, context: Context | None, session_id: str) -> bool:
        """Tell whether an open session of this id and user is there; it is active now."""
        with self._lock:
            found = self._open.get(session_id)
            if found is None or found.ended or not self._is_of(found, context):
                return False
            return self._superseded(context, session_id) is None

    @staticmethod
    def _is_of(found: Session, context: Context | None) -> bool:
        return context is not None and found.context is not None and same(found.context, context)

    def _superseded(self, context: Context | None, session_id: str) -> list[Session] | None:
        """Return the session that a new one of this id replaces; None when the open one goes on."""
        found = self._open.get(session_id)
        if found is None or found.ended:
            return []
        if not self._is_of(found, context):
            return [self._open.pop(session_id)]
        found.touch()
        self._open.move_to_end(session_id)
        return None

    def _evict(self, silent_longest: Session) -> None:
        ledger.evicted()
        warn_once(
            "evicted",
            "SessionMetricsTracker",
            f"more than {self._most} tracked sessions: end yours, or use a store",
        )
        silent_longest.end("abandoned")

    def track(self, session_id: str, success: bool) -> None:
        with self._lock:
            found = self._open.get(session_id)
            if found is None or found.ended:
                return
            self._open.move_to_end(session_id)
            found.interaction(success)

    def end(self, session_id: str) -> dict[str, Any] | None:
        with self._lock:
            found = self._open.pop(session_id, None)
        if found is None or found.ended:
            return None
        found.touch()
        seen, started = found.summary(), found.started_at
        found.end()
        user_id = user_id_of(found.context)
        return _summary(user_id, started, seen.interactions, seen.successes, seen.duration_ms)


class _SessionsInStore:
    """Sessions in a store: each call is one round trip, but for the end of an exposed one."""

    def __init__(
        self, client: Tracker | None, store: SessionStore, metrics: tuple[str, ...]
    ) -> None:
        self._store = store
        self._metrics = () if metrics == DEFAULT_METRICS else metrics
        self._keys: OrderedDict[str, Mapping[str, str]] = OrderedDict()
        """Whose the sessions are that this process has seen, by their ids: bounded."""
        store.prefer(client)

    def start(self, context: Context | None, session_id: str) -> None:
        known = {} if context is None else {kind: part.key for kind, part in kinds(context).items()}
        before = self._keys.pop(session_id, {})  # perhaps another user's, whose session ends here
        self._merge(self._delta(session_id, known, before, context=known, metrics=self._metrics))

    def track(self, session_id: str, success: bool) -> None:
        tallies = (int(success), int(not success), 0, 0)
        whose = self._keys.get(session_id, {})
        self._merge(self._delta(session_id, whose, tallies=tallies, joins=True))

    def _delta(self, session_id: str, *whose: Mapping[str, str], **fields: Any) -> Delta:
        """Return what happens now in a session of *whose* keys, with the exposures of theirs that
        this process has seen: another one may report the session.

        It is dated not before one of them, for the wall clock may have been set back since.
        """
        contexts = [context for keys in whose if (context := context_of_keys(keys)) is not None]
        units = [unit for context in contexts for unit in units_of(context)]
        known = exposures.of(units, lost=True)
        now = max([today(), *(seen.date for seen in known)])
        told = {
            mark_of(seen.name): seen.date
            for seen in known
            if seen.date > now - OLDEST_EXPOSURE and not seen.lost
        }
        return Delta(session_id, now=now, exposures=told, **fields)

    def _merge(self, delta: Delta) -> None:
        merged = self._store.merge(delta.id, delta)
        if merged is None or (whose := context_of_keys(merged.context)) is None:
            return
        exposures.note_left(units_of(whose), delta.now)
        self._keys[delta.id] = merged.context
        if len(self._keys) > MAX_SESSIONS:
            self._keys.popitem(last=False)

    def end(self, session_id: str) -> dict[str, Any] | None:
        last = self._delta(session_id, self._keys.pop(session_id, {}), joins=True)
        if last.exposures:  # the end itself tells none
            self._store.merge(session_id, last)
        ended = self._store.end(session_id, active=True)
        if ended is None:
            return None
        found = summary_of(ended)
        whole = ",".join(f"{kind}:{key}" for kind, key in sorted(found.keys.items())) or None
        return _summary(
            found.keys.get("user", whole),
            found.started / 1000,
            sum(found.tallies[:2]),
            found.tallies[0],
            float(found.duration),
        )


def _summary(
    user_id: str | None, started: float, interactions: int, successes: int, duration: float
) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "start_time": started,
        "interactions": interactions,
        "successful_tasks": successes,
        "duration": duration / 1000,
    }


def _store_of(store: SessionStore | str | Path) -> SessionStore:
    if isinstance(store, (str, Path)):
        from .stores import open_store

        return open_store(store)
    if not callable(getattr(store, "merge", None)):
        raise DefinitionError(
            f"SessionMetricsTracker: store: give a store or its address, such as "
            f"'sqlite:///sessions.db', "
            f"not a {type(store).__name__}"
        )
    return store


def _checked(session_id: object) -> str | None:
    """Return *session_id* as a text, as it travels to other processes.

    None, which is logged once, for what cannot be one.
    """
    if isinstance(session_id, (str, int, UUID)) and not isinstance(session_id, bool):
        return str(session_id)
    warn_once(
        "bad_session_id",
        type(session_id).__name__,
        f"SessionMetricsTracker: session_id: give a text, not a {type(session_id).__name__}; the "
        f"call is left out",
    )
    return None


def user_id_of(context: Context | None) -> str | None:
    """Return the key of kind `user`; of a context without one, its whole key."""
    if context is None:
        return None
    user = kinds(context).get("user")
    return context.fully_qualified_key if user is None else user.key
