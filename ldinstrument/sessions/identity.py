"""Whose session it is: as given, identified or adopted; else as the session around it.

A session without an identity takes it from the first exposure that is made in it. From then on an
identity only widens, unless the program names somebody else.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

from ..diagnostics import never_raises
from .contexts import as_context, keys_of, kinds, knows_more, united
from .recording import SampleRecorder

if TYPE_CHECKING:
    from ldclient import Context


class OwnedRecorder(SampleRecorder):
    """A recorder that belongs to somebody.

    Args:
        context: whose it is, when it is known.
        outer: the session around it.
    """

    __slots__ = (
        "_context",
        "_inheriting",
        "_lock",
        "_named",
        "_said",
        "_seen_client",
        "ended",
        "outer",
    )

    def __init__(self, context: Context | None, outer: OwnedRecorder | None) -> None:
        self._lock = threading.RLock()
        self.ended = False
        self.outer: Any = outer
        self._context = self._named = context
        self._said: Collection[str] = ()
        """The kinds of its context that the program has named since; others were adopted."""
        self._inheriting: tuple[weakref.ref[OwnedRecorder], ...] = ()
        self._seen_client: weakref.ref[Any] | None = None
        if outer is not None and context is None:
            outer.add_inheriting(self)

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
    def knows_who(self) -> bool:
        """Whether it has an identity of its own, given or adopted."""
        return self._context is not None

    @property
    def context(self) -> Context | None:
        """Whose it is: as given, identified or adopted; else that of the session around it."""
        if self._context is not None or self.outer is None:
            return self._context
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
        return self._context is context and self._seen_client is client and not self.ended

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
            if self._context is not None and context != known and knows_more(context):
                self._context = united(known, context)
        elif (context.multiple or known.multiple) and self._is_widened_by(context, known):
            self.become(united(known, context))

    def _is_widened_by(self, context: Context, known: Context) -> bool:
        mine, theirs = keys_of(known), keys_of(context)
        agreeing = mine.items() & theirs.items()
        contradicted = mine.keys() & theirs.keys() - {kind for kind, _ in agreeing}
        return bool(agreeing) and contradicted.isdisjoint(self.said_kinds())

    def said_kinds(self) -> Collection[str]:
        """Return the kinds of its context that the program has named; others were adopted."""
        if self._context is not None or self.outer is None:
            return self._said if self._named is None else {*self._said, *kinds(self._named)}
        return cast("Collection[str]", self.outer.said_kinds())

    def become(self, new: Context) -> None:
        """Belong to *new* from now on, and so do the sessions inside that know no better."""
        raise NotImplementedError
