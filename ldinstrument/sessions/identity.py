"""Whose a session is, and what happens when it changes hands.

As given, identified or adopted; else as the session around it. What was recorded under one identity
leaves as its own, and its accounts end, before another takes over.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..diagnostics import never_raises
from ..ledger import ledger
from .accounts import Accounts, SessionAccount
from .clock import clock
from .contexts import as_context, keys_of, kinds, knows_more, only_kinds, united, units_of
from .exposures import exposures
from .recording import SampleRecorder
from .rollups import Emission, FinishedRuns

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ldclient import Context

    from .accumulator import Accumulator
    from .parts import Segment

Batch = tuple["Context | None", list["Emission | FinishedRuns"]]
"""Whose events these are, and the events."""

MAX_WAITING = 10_000
"""Events that wait for an identity; beyond, the oldest are dropped."""


class OwnedRecorder(SampleRecorder):
    """A recorder that belongs to somebody.

    Without an identity it takes one from the first exposure that is made in it. From then on an
    identity only widens, unless the program names somebody else.
    """

    __slots__ = (
        "_accounts",
        "_inheriting",
        "_lock",
        "_named",
        "_said",
        "_seen_client",
        "_segments",
        "_silent",
        "_waiting",
        "client",
        "ended",
        "outer",
        "own_context",
        "store",
    )

    # `Session` sets them where it begins.
    own_context: Context | None
    """Whose it is itself; None while it goes by the session around it."""
    _named: Context | None
    """Whose it was said to be when it began."""
    _said: Collection[str]
    """The kinds of its context that the program has named since; others were adopted."""
    _inheriting: tuple[weakref.ref[OwnedRecorder], ...]
    _seen_client: weakref.ref[Any] | None
    _lock: AbstractContextManager[Any]
    _silent: bool
    _accounts: Accounts | None
    _segments: tuple[Segment, ...]
    _waiting: Sequence[Emission | FinishedRuns]
    """What leaves once it is known whose it is."""
    client: Any
    ended: bool
    outer: Any
    """The session around it."""
    store: Any

    def add_inheriting(self, inner: OwnedRecorder) -> None:
        """Tell *inner*, a session inside this one, from now on whose this one is."""
        with self._lock:
            self._inheriting = (
                *[
                    reference
                    for reference in self._inheriting
                    if (known := reference()) is not None and not known.ended
                ],
                weakref.ref(inner),
            )

    @property
    def context(self) -> Context | None:
        """Whose it is: as given, identified or adopted; else that of the session around it."""
        if self.own_context is not None or self.outer is None:
            return self.own_context
        return cast("Context | None", self.outer.context)

    @never_raises
    def identify(self, context: Any) -> None:
        """Say whose session it is, once that is known.

        Another key for a known kind ends what belongs to the old key: its events leave, and its
        `session.*` events with them. What is recorded from now on is the new one's.
        """
        known = as_context(context)
        if known is not None:
            old = self.context
            self.become(known if old is None else united(old, known))
            self._said = {*self._said, *kinds(known)}

    def has_seen(self, context: Context, client: weakref.ref[Any] | None) -> bool:
        """Tell whether an exposure of *context* by *client* would change nothing here."""
        return self.own_context is context and self._seen_client is client and not self.ended

    def see_exposure(self, context: Context, client: weakref.ref[Any] | None = None) -> None:
        """Take notice of an exposure that was made in this session.

        Its client will take the session's events. Where nobody is known, its context is adopted;
        a context that shares a kind with the session's, and contradicts nothing that the program
        said, widens it. Whatever else is evaluated (another user, the items of a list) changes
        nothing.
        """
        if client is not None:
            self._seen_client = client
        known = self.context
        if known is None:
            self.become(context)
        elif context is known:
            return
        elif context.fully_qualified_key == known.fully_qualified_key:
            if self.own_context is not None and context != known and knows_more(context):
                self.own_context = united(known, context)
        elif (context.multiple or known.multiple) and self._is_widened_by(context, known):
            self.become(united(known, context))

    def _is_widened_by(self, context: Context, known: Context) -> bool:
        mine, theirs = keys_of(known), keys_of(context)
        agreeing = mine.items() & theirs.items()
        contradicted = mine.keys() & theirs.keys() - {kind for kind, _ in agreeing}
        return bool(agreeing) and contradicted.isdisjoint(self.said_kinds())

    def said_kinds(self) -> Collection[str]:
        """Return the kinds of its context that the program has named; others were adopted."""
        if self.own_context is not None or self.outer is None:
            return self._said if self._named is None else {*self._said, *kinds(self._named)}
        return cast("Collection[str]", self.outer.said_kinds())

    # -- another identity ------------------------------------------------------------------------
    def become(self, new: Context) -> None:
        """Belong to *new* from now on, and so do the sessions inside that know no better."""
        with self._lock:
            old, self.own_context = self.context, new
            outgoing = self._change_identity(old, new)
        self._pass_on(old, new, outgoing)

    def _inherit(self, old: Context | None, new: Context) -> None:
        """Go on as *new*, whom the session around belongs to now."""
        with self._lock:
            outgoing = self._change_identity(old, new)
        self._pass_on(old, new, outgoing)

    def _pass_on(self, old: Context | None, new: Context, outgoing: list[Batch]) -> None:
        self._send(outgoing)
        for reference in self._inheriting:
            inner = reference()
            if inner is not None and not inner.ended and inner.own_context is None:
                inner._inherit(old, new)

    def _change_identity(self, old: Context | None, new: Context) -> list[Batch]:
        """Fold what is *old*'s, and end the accounts whose key changes. The lock is held."""
        before, after = {} if old is None else keys_of(old), keys_of(new)
        if before == after:
            return []
        if old is not None:  # what comes before is its, also where nothing was held yet
            self._held.belong_to(old)
        if old is None:  # what waited for an identity is the new one's, from the start
            self._held.belong_to(new)
            waiting, self._waiting = self._waiting, ()
            if not self._silent and self.store is None:
                self._accounts_of(after).identify(after, self._held.started)
            return [(new, [*waiting, *self._fold()])]
        events = self._fold() + self._last_events()
        if self.store is not None:
            goes_on = self._keep_account_of(old, after)
        self._held.belong_to(new)
        began = self._held.empty_segment()
        exposures.note_left({*units_of(old), *self._held.units}, began.first)
        outgoing: list[Batch] = [(old, events)]
        # Tells a store when the new keys came; those that stay were not active.
        came = {kind: key for kind, key in after.items() if before.get(kind) != key}
        if came and self.store is not None and (self._segments or not goes_on):
            self._segments += (began.replace(keys=came),)
        if not self._silent and self.store is None:
            ended = self._accounts_of(before).identify(after, clock())
            outgoing += [
                self._totals(account, old, "identified")
                for account in ended
                if account.last is not None or self._was_exposed(account, old)
            ]
        return outgoing

    def _keep_account_of(self, old: Context, after: Mapping[str, str]) -> bool:
        """Tell the store of *old*, a key of whom gives way to one of *after*, even if nothing has
        happened to them: of whom an experiment may miss, else of the kinds that stay.

        Returns:
            Whether all of their keys stay: others only join them.
        """
        keys = self._held.keys
        staying = {kind: key for kind, key in keys.items() if after.get(kind, key) == key}
        if staying == keys:
            return True
        told = keys if exposures.of(units_of(old)) else staying
        if told and not self._segments:
            began = self._held.empty_segment(self._held.started)
            self._segments += (began.replace(keys=told),)
        return False

    def _was_exposed(self, account: SessionAccount, context: Context) -> bool:
        """Whether an experiment may miss the events of an account to which nothing has happened."""
        return bool(exposures.of(units_of(only_kinds(context, account.keys))))

    def _accounts_of(self, keys: Mapping[str, str]) -> Accounts:
        if self._accounts is None:
            self._accounts = Accounts(keys, self._held.started)
        return self._accounts

    def may_learn_who(self) -> OwnedRecorder | None:
        """Who may still learn whose values these are: this session, or after its end one around it,
        for its client.
        """
        session: OwnedRecorder | None = self
        while session is not None and (session.ended or session.client is not self.client):
            session = session.outer
        return session

    def wait(self, events: list[Emission | FinishedRuns]) -> None:
        """Keep *events* until it is known whose they are; too many of them are dropped."""
        with self._lock:
            waiting = [*self._waiting, *events]
            surplus, self._waiting = waiting[:-MAX_WAITING], waiting[-MAX_WAITING:]
        if surplus:
            ledger.discarded("no_context", sum(event.values for event in surplus))

    # -- what a session does ---------------------------------------------------------------------
    @property
    def _held(self) -> Accumulator:
        raise NotImplementedError

    def _fold(self) -> list[Emission | FinishedRuns]:
        raise NotImplementedError

    def _last_events(self) -> list[Emission | FinishedRuns]:
        raise NotImplementedError

    def _totals(self, account: SessionAccount, context: Context | None, reason: str) -> Batch:
        raise NotImplementedError

    def _send(self, outgoing: Iterable[Batch]) -> None:
        raise NotImplementedError
