"""From values to `track`: which events, to which client, for whom, dated when, counted where.

No function here raises into the host, and none waits: without a client, events are held (bounded)
until one appears. Events of one session come as one batch, so that what is true of all of them is
asked once.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import sdk, settings
from ..diagnostics import guard, log, log_internal_error, one_line, warn_once, withhold
from ..ledger import ledger
from ..metrics.catalogs import EventRouting, catalog
from ..sdk import track_path
from . import magnitudes, postponed, rate_limit
from .accounts import SUMS, Piece
from .clients import AMBIGUOUS, Tracker, client_for, direct, find_taker, recorder
from .contexts import kinds
from .current_event import current_event
from .outcomes import Tallies
from .rollups import Emission, FinishedRuns, Group, expanded, finite

if TYPE_CHECKING:
    from ldclient import Context


HELD_EVENTS = 10_000


held_events: deque[tuple[Emission, Context]] = deque()
"""Events that wait for a client, and whose they are."""


def emit(emission: Emission, context: Context | None, client: Tracker | None) -> None:
    """Hand one event over; see `emit_all`."""
    emit_all([emission], context, client)


def emit_all(
    emissions: Sequence[Emission | FinishedRuns],
    context: Context | None,
    client: Tracker | None,
    seen: weakref.ref[Any] | None = None,
) -> None:
    """Hand the events of one session to its client, or say once why not and count them.

    Which of the two ways they take is decided here: all at once, or one `track` for each.

    Args:
        emissions: in order.
        context: whose they are.
        client: takes them; when None, see `clients.client_for`.
        seen: the client whose exposure the session saw last.
    """
    if context is None:
        _refuse(emissions, "no_context", "has no context: say whose it is, ld.session(context)")
        return
    taker: Tracker
    known = direct.get(id(client))
    if known is not None and known() is client and client is not None:
        taker = client
    else:
        found = client_for(client, seen)
        if found is None:
            _hold(expanded(emissions), context)
            return
        if held_events and client is None:
            # What waits was meant for whichever client is found, not for one that somebody names.
            release_held()
        taker = found
        known = direct.get(id(taker))

    # All at once where that is our event processor behind a plain client, which counts them. Who
    # wraps, subclasses or patches a client, also after this was asked, or has another event
    # processor, gets one `track` per event.
    path, take = (None, None) if known is None else known.taken_by
    try:
        is_plain = path is not None and path == track_path(taker)
    except AttributeError:
        is_plain = False
    try:
        if not is_plain:
            take = find_taker(taker)
        taken = take is not None and take(emissions, context)
    except Exception as error:
        withhold("take_batch", error)
        taken = False
    if not taken and not _tracked(emissions, context, taker):
        return

    asked = settings.DEBUG_KEY in settings.encoded or os.environ is not settings.environ
    if asked and settings.debug():
        _debug(expanded(emissions), context)
    if catalog.names_units:
        _check_units(emissions, context)


def events_of(groups: Iterable[tuple[EventRouting, Group]]) -> list[Emission]:
    """Return the events of folded values; one that summed up to infinity is dropped and counted."""
    found = [event for routing, group in groups for event in group.events(routing)]
    infinite = [event for event in found if not finite(event)]
    if not infinite:
        return found
    _refuse(infinite, "not_a_number", "summed up to infinity; record smaller numbers")
    return [event for event in found if finite(event)]


def session_totals(
    name: str,
    metrics: Iterable[str],
    tallies: Tallies,
    duration_ms: float,
    pieces: Sequence[Piece],
    over: int,
    *,
    id: str,
    data: Mapping[str, Any],
    reason: str,
    previous: str = "",
) -> list[Emission]:
    """Make the `session.*` events of one account.

    Whether they count must not depend on what happened after an exposure, so all are dated to
    when the session was over; only what folds as a sum leaves apart where an exposure divides it.
    An abandoned session has neither duration nor rate, which would be cut short.

    Args:
        name: the prefix of the metrics.
        metrics: which are wanted, by suffix.
        tallies: its interactions.
        duration_ms: from its start to its last activity.
        pieces: interactions before the last exposure.
        over: the date at which it was over.
        id: the session's.
        data: its own data, to which theirs adds.
        reason: why it ended.
        previous: the id of the visitor's session before it, where a store knows it.
    """
    successes, failures, cancelled, given_up = tallies
    interactions, abandoned = successes + failures, reason == "abandoned"
    told = {
        **data,
        "sessionId": id,
        **({"previousId": previous} if previous else {}),
        "interactions": interactions,
        "successes": successes,
        "failures": failures,
        "cancelled": cancelled,
        "abandoned": given_up,
        "endReason": reason,
    }

    values = {
        "duration": None if abandoned else max(0.0, duration_ms),
        "success_rate": None if abandoned or not interactions else 100 * successes / interactions,
        "interactions": interactions,
        "successes": successes,
        "unfinished": int(abandoned),
    }
    if pieces:
        values["interactions"] = interactions - sum([piece.interactions for piece in pieces])
        values["successes"] = successes - sum([piece.successes for piece in pieces])
    events = []
    for suffix in metrics:
        if pieces and suffix in SUMS:
            parts = [(getattr(piece, suffix), piece.at) for piece in pieces]
            events += [Emission(f"{name}.{suffix}", part, told, at) for part, at in parts if part]
        value = values[suffix]
        if value is not None:
            events.append(Emission(f"{name}.{suffix}", value, told, over))
    return events


def _refuse(emissions: Sequence[Emission | FinishedRuns], reason: str, advice: str) -> None:
    ledger.discarded(reason, sum(emission.values for emission in emissions))
    event_key = expanded(emissions[:1])[0].event_key
    # Once per cause: whoever has no context, or an offline client, has it for every key.
    warn_once(
        reason,
        "",
        f"{event_key}: the event {advice}; dropped (further events dropped for this "
        "reason are not logged; see stats())",
    )


# -- held events ---------------------------------------------------------------------------------


def _hold(emissions: Iterable[Emission], context: Context) -> None:
    for emission in emissions:
        while len(held_events) >= HELD_EVENTS:
            ledger.discarded("no_client", held_events.popleft()[0].values)
        held_events.append((emission, context))
    warn_once(
        "no_client",
        "",
        f"no LaunchDarkly client yet: up to {HELD_EVENTS} events are held; make one with "
        "plugins=[ldinstrument.Plugin()], call ldinstrument.attach(client), or give sessions "
        "their client=",
    )


def release_held(client: Tracker | None = None) -> None:
    """Hand over what was recorded before there was a client."""
    if recorder() is not None:
        return
    taker = client if client is not None else client_for(None)
    if taker is None or taker is AMBIGUOUS or sdk.discards_everything(taker):
        return
    while held_events:
        try:
            emission, context = held_events.popleft()
        except IndexError:  # another thread took the last one
            return
        emit_all([emission], context, taker)


def settle() -> None:
    """Run what finalizers left behind, and hand over held events when a client has appeared."""
    if postponed.later:
        postponed.run_postponed()
    if held_events:
        release_held()


def forget() -> None:
    """Drop held events, postponed work and buckets (tests, and a forked child, whose parent keeps
    its own).
    """
    rate_limit.forget()
    magnitudes.forget()
    postponed.forget()
    held_events.clear()


# -- one by one ---------------------------------------------------------------------------------


def _tracked(
    emissions: Sequence[Emission | FinishedRuns], context: Context, client: Tracker
) -> bool:
    """Track the events one by one; tell whether the client sends anything."""
    if client is AMBIGUOUS:
        _refuse(
            emissions,
            "ambiguous_client",
            "could go to several LaunchDarkly clients of different environments: say which, "
            "ld.session(..., client=client)",
        )
        return False
    gone = None
    with guard("client"):
        gone = sdk.discards_everything(client)
    if gone:
        setting = {"offline": "offline=True", "send_events_off": "send_events=False"}.get(
            gone, gone
        )
        advice = "take that out of its Config, or set LDINSTRUMENT_DISABLED=1 if it is meant"
        _refuse(emissions, gone, f"meets a client that sends nothing ({setting}): {advice}")
        return False
    events = expanded(emissions)
    ledger.count(emitted=len(events), emitted_values=sum([emission.values for emission in events]))
    _track_all(events, context, client)
    return True


def _track_all(emissions: Sequence[Emission], context: Context, client: Tracker) -> None:
    # A client may be a wrapper that tracks something of its own first: what was being handed over
    # comes back after it.
    before = current_event.emission, current_event.accepted
    left, unconfirmed = len(emissions), 0
    try:
        for emission in emissions:
            left -= 1
            current_event.emission, current_event.accepted = emission, False
            try:
                client.track(emission.event_key, context, emission.data, emission.value)
            except BaseException as error:
                if not current_event.accepted:
                    ledger.dropped("client_error")
                if not isinstance(error, Exception):
                    raise
                log_internal_error("client.track", error)
            else:
                unconfirmed += not current_event.accepted
    finally:
        current_event.emission, current_event.accepted = before
        if unconfirmed:
            ledger.unconfirmed(unconfirmed)
        if left:  # KeyboardInterrupt, or strict
            ledger.dropped("interrupted", left)


def _check_units(emissions: Iterable[Emission | FinishedRuns], context: Context) -> None:
    """Warn about events that LaunchDarkly would silently ignore for want of the metric's analysis
    unit.
    """
    event_keys: set[str] = set()
    for emission in emissions:
        if isinstance(emission, FinishedRuns):
            for task, *_ in emission.parts:
                event_keys.update(task.metrics.values())
        else:
            event_keys.add(emission.event_key)
    for event_key in event_keys:
        wanted = catalog.routing(event_key).analysis_units
        if wanted and wanted.isdisjoint(known := kinds(context)):
            warn_once(
                "no_analysis_unit",
                event_key,
                f"{event_key}: its metric is analysed by {', '.join(sorted(wanted))}, but the "
                f"event's context has only {', '.join(sorted(known))}: LaunchDarkly will ignore "
                "it; use a context with that kind",
            )


def _debug(emissions: Iterable[Emission], context: Context) -> None:
    if not log.isEnabledFor(logging.INFO):
        log.setLevel(logging.INFO)
    if not log.hasHandlers():
        log.addHandler(logging.StreamHandler())
    for emission in emissions:
        log.info(
            "event %s value=%s context=%s data=%s",
            one_line(emission.event_key),
            emission.value,
            one_line(context.fully_qualified_key),
            emission.data,
        )
