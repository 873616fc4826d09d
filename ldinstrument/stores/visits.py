"""The seams of a request: its end goes to the store, which says what session it was part of; and logout."""

from __future__ import annotations

from functools import partial

from ..errors import StrictError
from ..ledger import ledger
from ..sessions import Session
from .keeping import SessionStore
from .protocol import VisitRef


def end_request(session: Session, store: SessionStore, visitor: str | None = None, *, ends: str = "") -> VisitRef:
    """End the session of a request by merging it into the visitor's, in one round trip. Never raises, ends once.

    What folds (sums, occurrences, tallies, the dates) goes to the store; values that travel one by one leave at once.
    On an event loop a shared store is talked to on the sweeper's thread, and the answer is not waited for: there,
    `aend_request` is better.

    Args:
        session: of this request.
        store: where the visit is.
        visitor: whose visit it is: the id in the cookie, a conversation's id. None: the session's context is, and
            without one the session stands for itself.
        ends: the visit ends with this request (logout), for this reason; still one round trip.
    """
    return store.receive(session, visitor, ends=ends)


async def aend_request(
    session: Session, store: SessionStore, visitor: str | None = None, *, ends: str = ""
) -> VisitRef:
    """`end_request` for an event loop, which it never blocks: the round trip happens on a thread."""
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(
        None, partial(end_request, session, store, visitor, ends=ends)
    )


def end_session(store: SessionStore, visitor: str, *, name: str = "session", reason: str = "ended") -> VisitRef | None:
    """End a visitor's session now, as at logout; what comes next opens the next one. Never raises.

    Returns:
        The session that ended; None when none was open, or the store does not answer (it ends when it does).
    """
    try:
        record = store.end(visitor, name=name, reason=reason)
    except StrictError:
        raise
    except Exception as error:
        ledger.failure("end_session", error)
        return None
    return None if record is None else VisitRef(visitor, record.id, record.previous, stored=True)
