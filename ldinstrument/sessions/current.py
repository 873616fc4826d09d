"""The current session: a `ContextVar`, read by tasks and set by whatever opens a session.

It is set by value, never by token: a token is bound to the `Context` it was made in, and generators
are resumed, closed and collected in others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..metrics.metric import Metric
from ..settings import disabled
from . import emission, registry
from .accumulator import Sample
from .contexts import as_context, same
from .emission import Tracker
from .rollups import Emission
from .session import Session, session_id

if TYPE_CHECKING:
    from ldclient import Context

current_variable: ContextVar[Session | None] = ContextVar("ldinstrument_session", default=None)


def current_session() -> Session | None:
    """The innermost open session of this context, or None; never an ended one."""
    found = current_variable.get()
    while found is not None and found.ended:
        found = found.outer
    return found


def set_current(found: Session | None) -> Session | None:
    """Make *found* the current session and return the one before. By value, never by token: a token
    is bound to the `Context` it was made in, and generators are resumed, closed and collected in
    others.
    """
    before = current_variable.get()
    current_variable.set(found)
    return before


@contextmanager
def entered(found: Session | None) -> Iterator[Session | None]:
    """Run a block with *found* as the current session, None included, so that nobody's session
    leaks in.
    """
    before = set_current(found)
    try:
        yield found
    finally:
        set_current(before)


def open_session(
    context: Any = None,
    *,
    id: str | None = None,
    name: str = "session",
    data: Mapping[str, Any] | None = None,
    client: Tracker | None = None,
    outer: Session | None = None,
    silent: bool = False,
    store: Any = None,
) -> Session:
    """Open a session without making it current; somebody must `end()` it."""
    emission.settle()
    if disabled():
        return _InertSession(None, id=id, name=name)
    opened = Session(
        as_context(context),
        id=id,
        name=name,
        data=data,
        client=client,
        outer=outer,
        silent=silent,
        store=store,
    )
    registry.remember(opened)
    return opened


class _InertSession(Session):
    """A session under `LDINSTRUMENT_DISABLED`: takes everything, sends nothing, counts nothing."""

    __slots__ = ()

    def record(
        self, metric: Metric | str, value: Any = None, *, data: Mapping[str, Any] | None = None
    ) -> None:
        """Take it, and leave it."""

    def append(self, entry: Sample) -> None:
        pass

    append_from_finalizer = append

    def fold_up(self) -> None:
        # Tracked functions append without asking whose list it is.
        self.entries.clear()

    _fold = fold_up

    def _send(self, outgoing: list[Emission], context: Context | None) -> None:
        pass

    def before_evaluation(self, flag_key: str, context: Any) -> None:
        """See it, and leave it."""

    def adopt(self, context: Any) -> None:
        """Stay nobody's."""

    def identify(self, context: Any) -> None:
        """Stay nobody's."""

    def merge_data(self, data: Mapping[str, Any]) -> None:
        """Take it, and leave it."""

    def hand_over(self) -> None:
        """Nothing for a store."""

    def end(self, reason: str = "ended") -> None:
        """End without a word."""
        self.ended = True

    def __del__(self) -> None:
        pass


def concerned() -> list[Session]:
    """The open sessions that an evaluation here concerns: the current one, what is around it, and,
    where a block inside another session joined one further out, that other session, too.
    """
    found: list[Session] = []
    waiting = [current_session()]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting.append(one.outer)
            waiting.extend(one.between())
    return found


def joinable(
    name: str, context: Context | None, id: str | None, client: Tracker | None
) -> Session | None:
    """The open session around that one of this *name* and *context* joins, or None."""
    found = current_session()
    while found is not None:
        if (
            found.name == name
            and not found.ended
            and (id is None or session_id(id) == found.id)
            and (client is None or client is found.client)
            and (context is None or found.context is None or same(found.context, context))
        ):
            return found
        found = found.outer
    return None
