"""From a value to `track`: which client, for whom, dated when, and counted where.

No function here raises into the host, and none waits: without a client, events are held (bounded)
until one appears.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .. import sdk, settings
from ..diagnostics import log, log_internal_error, warn_once
from ..errors import StrictError
from ..ledger import ledger
from ..metrics.catalogs import catalog
from . import rate_limit
from .contexts import kinds
from .rollups import Emission, finite

if TYPE_CHECKING:
    from ldclient import Context


HELD_EVENTS = 10_000


class Tracker(Protocol):
    """Whatever takes an event: `LDClient` and `AsyncLDClient` fit as they are."""

    def track(
        self,
        event_name: str,
        context: Context,
        data: Any | None = None,
        metric_value: Any | None = None,
    ) -> None:
        """Queue one event; must not wait."""


class Handing(threading.local):
    """What `delivery`'s event processor, called by the client inside `track`, may know of the event
    it is handed.

    Args:
        what: the event of ours that is being handed over on this thread; None when there is none.
        accepted: set by the processor when it will report the event's fate to the ledger.
    """

    what: Emission | None = None
    accepted: bool = False

    def takes(self, event: Any) -> int | None:
        """The date, in milliseconds since the epoch, that *event* should carry when it is ours;
        else None.

        The client may be a wrapper that renames our event, or that tracks others of its own
        meanwhile.
        """
        ours = self.what
        if ours is None or self.accepted:
            return None
        if event.key != ours.event_key and (ours.data is None or event.data is not ours.data):
            return None
        self.accepted = True
        return ours.at


handing = Handing()


@dataclass(frozen=True, slots=True)
class _Held:
    """An event that waits for a client."""

    emission: Emission
    context: Context


_held: deque[_Held] = deque()
_recorder: Tracker | None = None
_later: deque[Callable[[], None]] = deque()


def emit(one: Emission, context: Context | None, client: Tracker | None) -> None:
    """Hand one event to *client* (the `ldclient` singleton when None), or say once why not and
    count it.
    """
    if context is None:
        _refuse(
            one, "no_context", "has no context: say whose it is, ld.session(context) or context="
        )
        return
    if not finite(one):
        _refuse(one, "not_a_number", "summed up to infinity; record smaller numbers")
        return
    taker = _taker(client)
    if taker is None:
        _hold(one, context)
        return
    if (
        _held and client is None
    ):  # what waits was meant for the singleton, not for whichever client comes by
        release_held()
    _hand_over(one, context, taker)


def _taker(client: Tracker | None) -> Tracker | None:
    if _recorder is not None:
        return _recorder
    return client if client is not None else sdk.singleton_client()


def check_client(client: object) -> None:
    """Say it once when *client* cannot take events; its events will be dropped one by one."""
    if client is not None and (
        isinstance(client, type) or not callable(getattr(client, "track", None))
    ):
        warn_once(
            "bad_client",
            type(client).__name__,
            f"client: a {type(client).__name__} has no track(); give an LDClient, such as "
            f"ldclient.get() with its "
            "parentheses",
        )


def set_recorder(recorder: Tracker | None) -> Tracker | None:
    """Send everything to *recorder*, whichever client it was meant for (tests); returns the one
    before.
    """
    global _recorder
    before, _recorder = _recorder, recorder
    return before


def _refuse(one: Emission, reason: str, advice: str) -> None:
    ledger.discarded(reason, one.values)
    # Once per cause: whoever has no context, or an offline client, has it for every key.
    warn_once(
        reason,
        "",
        f"{one.event_key}: the event {advice}; dropped, and others of this cause without a word",
    )


def _hold(one: Emission, context: Context) -> None:
    while len(_held) >= HELD_EVENTS:
        ledger.discarded("no_client", _held.popleft().emission.values)
    _held.append(_Held(one, context))
    warn_once(
        "no_client",
        "",
        f"no LaunchDarkly client yet: up to {HELD_EVENTS} events are held; "
        "call ldclient.set_config(...) and ldclient.get() at start-up, or give sessions their "
        "client=",
    )


def held() -> int:
    """How many events wait for a client."""
    return len(_held)


def release_held(client: Tracker | None = None) -> None:
    """Hand over what was recorded before there was a client."""
    if _recorder is not None:
        return
    taker = client if client is not None else sdk.singleton_client()
    if taker is None or sdk.discards_everything(taker):
        return
    while _held:
        try:
            held = _held.popleft()
        except IndexError:  # another thread took the last one
            return
        _hand_over(held.emission, held.context, taker)


def _hand_over(one: Emission, context: Context, client: Tracker) -> None:
    if gone := _sends_nothing(client):
        setting = {"offline": "offline=True", "send_events_off": "send_events=False"}.get(
            gone, gone
        )
        advice = "take that out of its Config, or set LDINSTRUMENT_DISABLED=1 if it is meant"
        _refuse(one, gone, f"meets a client that sends nothing ({setting}): {advice}")
        return
    ledger.emitted_values(one.values)
    ledger.emitted()
    # A client may be a wrapper that tracks something of its own first: what was being handed over
    # comes back after it.
    before = handing.what, handing.accepted
    handing.what, handing.accepted = one, False
    try:
        client.track(one.event_key, context, one.data, one.value)
    except BaseException as error:
        if not handing.accepted:
            ledger.dropped("client_error")
        if not isinstance(error, Exception):
            raise
        log_internal_error("client.track", error)
    else:
        if not handing.accepted:
            ledger.unconfirmed()
    finally:
        handing.what, handing.accepted = before
    _debug(one, context)
    _check_units(one.event_key, context)


def _sends_nothing(client: Tracker) -> str | None:
    try:
        return sdk.discards_everything(client)
    except Exception as error:
        log_internal_error("client", error)
        return None


def _check_units(event_key: str, context: Context) -> None:
    """Warn about an event that LaunchDarkly would silently ignore for want of the metric's analysis
    unit.
    """
    wanted = catalog.routing(event_key).analysis_units
    if wanted and wanted.isdisjoint(kinds(context)):
        warn_once(
            "no_analysis_unit",
            event_key,
            f"{event_key}: its metric is analysed by {', '.join(sorted(wanted))}, but the event's "
            f"context has only "
            f"{', '.join(sorted(kinds(context)))}: LaunchDarkly will ignore it; use a context "
            f"with that kind",
        )


def _debug(one: Emission, context: Context) -> None:
    if not settings.debug():
        return
    if not log.isEnabledFor(logging.INFO):
        log.setLevel(logging.INFO)
    if not log.hasHandlers():
        log.addHandler(logging.StreamHandler())
    log.info(
        "event %s value=%s context=%s data=%s",
        one.event_key,
        one.value,
        context.fully_qualified_key,
        one.data,
    )


# -- what must not happen now --------------------------------------------------------------------


def postpone(work: Callable[[], None]) -> None:
    """Leave *work* for the next safe moment.

    A finaliser runs wherever the garbage collector struck, perhaps inside the SDK's queue with its
    lock held: `track` from there would wait for itself. Appending to a deque is all that such code
    may do. At exit, when modules have been emptied already, there is no later.
    """
    if _later is not None:
        _later.append(work)


def settle() -> None:
    """Do what finalisers left behind, and hand over held events when a client has appeared."""
    while _later:
        try:
            work = _later.popleft()
        except IndexError:
            break
        try:
            work()
        except StrictError:
            raise
        except Exception as error:
            log_internal_error("settle", error)
    if _held:
        release_held()


def forget() -> None:
    """Drop held events, postponed work and buckets (tests, and a forked child, whose parent keeps
    its own).
    """
    rate_limit.forget()
    for table in (_held, _later):
        table.clear()
