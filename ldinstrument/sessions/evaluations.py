"""How evaluations become known, from events that our processor sees or from the SDK's hook.

LaunchDarkly counts an event only for a context that was exposed before it. So each exposure
(`inExperiment`) is noted in the table of the process, and a session takes its identity from the
exposures that are made in it.
"""

from __future__ import annotations

from random import Random
from typing import Any

from ..diagnostics import guard
from .clients import flag_prefixes
from .contexts import evaluated_context
from .current import current_session, current_variable
from .exposures import exposures

_NEVER = float("inf")
_random = Random()


def see(event: Any, client: Any = None) -> None:
    """Note an event of the SDK, on the thread that evaluates, if it is an exposure.

    It is dated anew where the wall clock was set back: not before an earlier exposure of its unit.
    Whether it leaves, where its flag has a `samplingRatio`, is decided here instead of later by the
    SDK: what does not only tells who it is.

    Args:
        event: as the SDK hands it to an event processor; also of a prerequisite.
        client: a weak reference to the client that evaluated.
    """
    reason = getattr(event, "reason", None)
    if type(reason) is dict and reason.get("inExperiment") is True:
        version, context = getattr(event.flag, "version", 0), event.context
        # Nearly all are repetitions: noted already, and nothing new to the session.
        unit = getattr(context, "fully_qualified_key", "")
        flag = _flag_of(event.key, client) if flag_prefixes else event.key
        noted = exposures.noted.get((flag, version, unit), _NEVER)
        session = current_variable.get()
        ratio = getattr(event, "sampling_ratio", None)
        leaves = ratio is None or ratio == 1 or _leaves(event, ratio)
        if noted <= event.timestamp and (session is None or session.has_seen(context, client)):
            return
        date = event.timestamp
        event.timestamp = exposed(flag, version, context, date, client, counts=leaves)


def _flag_of(key: str, client: Any) -> str:
    """Return the key under which exposures to a flag of *client* are noted."""
    return flag_prefixes.get(id(client() if client is not None else None), "") + key


def _leaves(event: Any, ratio: Any) -> bool:
    """Draw whether *event* leaves, of which one in *ratio* does, and tell the SDK."""
    leaves = type(ratio) is int and ratio > 0 and _random.random() * ratio < 1
    event.sampling_ratio = int(leaves)
    return leaves


def lost(event: Any) -> None:
    """Note that an event of the SDK was dropped before it could be delivered."""
    reason = getattr(event, "reason", None)
    if type(reason) is dict and reason.get("inExperiment") is True:
        with guard("exposure"):
            for prefix in {"", *flag_prefixes.values()}:  # whose client made it is not told
                exposures.lost(prefix + event.key, getattr(event.flag, "version", 0), event.context)


def exposed(
    flag_key: str,
    version: int,
    context: Any,
    date: int,
    client: Any = None,
    *,
    counts: bool = True,
) -> int:
    """Note that *context* was exposed to a flag here and now.

    Args:
        flag_key: of the flag.
        version: of the flag; 0 when unknown.
        context: whom it was evaluated for.
        date: of the exposure's event, in milliseconds since the epoch.
        client: a weak reference to the client that evaluated.
        counts: whether an experiment hears of it.

    Returns:
        The date that the event should carry.
    """
    with guard("exposure"):
        seen = evaluated_context(context)
        if seen is None:
            return date
        session = current_session()
        if counts:
            # What waits in it for an identity is dated already.
            waits = session is not None and session.context is None
            present = session.date_now() if session is not None and waits else 0
            date = exposures.note(flag_key, version, seen, date, client, present)
        while session is not None:
            knew = session.own_context is not None
            session.see_exposure(seen, client)
            # A request around a chat that did not know who it is learns it, too; what knows shields
            # what is around it.
            session = None if knew else session.outer
    return date
