"""How evaluations become known: from events that our processor sees, or from the SDK's hook.

LaunchDarkly counts an event only for a context that was exposed before it. So each exposure
(`inExperiment`) is noted in the table of the process, and a session takes its identity from the
exposures that are made in it.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Generator
from typing import Any

from .. import sdk
from ..diagnostics import guard
from .clients import register
from .contexts import evaluated_context
from .current import current_session, current_variable
from .current_event import current_event
from .exposures import exposures

_NEVER = float("inf")


def see(event: Any, client: Any = None) -> None:
    """Note an event of the SDK, on the thread that evaluates, if it is an exposure.

    It is dated anew where the wall clock was set back: not before an earlier exposure of its unit.

    Args:
        event: as the SDK hands it to an event processor; also of a prerequisite.
        client: a weak reference to the client that evaluated.
    """
    reason = getattr(event, "reason", None)
    if type(reason) is dict and reason.get("inExperiment") is True:
        version, context = getattr(event.flag, "version", 0), event.context
        # Nearly all are repetitions: noted already, and nothing new to the session.
        unit = getattr(context, "fully_qualified_key", "")
        noted = exposures.noted.get((event.key, version, unit), _NEVER)
        session = current_variable.get()
        if noted <= event.timestamp and (session is None or session.has_seen(context, client)):
            return
        event.timestamp = exposed(event.key, version, context, event.timestamp, client)


def lost(event: Any) -> None:
    """Note that an event of the SDK was dropped before it could be delivered."""
    reason = getattr(event, "reason", None)
    if type(reason) is dict and reason.get("inExperiment") is True:
        with guard("exposure"):
            exposures.lost(event.key, getattr(event.flag, "version", 0), event.context)


def exposed(flag_key: str, version: int, context: Any, date: int, client: Any = None) -> int:
    """Note that *context* was exposed to a flag here and now.

    Args:
        flag_key: of the flag.
        version: of the flag; 0 when unknown.
        context: whom it was evaluated for.
        date: of the exposure's event, in milliseconds since the epoch.
        client: a weak reference to the client that evaluated.

    Returns:
        The date that the event should carry.
    """
    with guard("exposure"):
        seen = evaluated_context(context)
        if seen is None:
            return date
        session = current_session()
        present = 0 if session is None else session.date_now()
        date = exposures.note(flag_key, version, seen, date, client, present)
        while session is not None:
            knew = session.knows_who
            session.see_exposure(seen, client)
            # A request around a chat that did not know who it is learns it, too; what knows shields
            # what is around it.
            session = None if knew else session.outer
    return date


class _Passed(dict[str, Any]):
    """The data of an evaluation series, passed on; `AsyncLDClient` of SDK 9.17 and 9.18 awaits
    it.
    """

    def __await__(self) -> Generator[None, None, dict[str, Any]]:
        return self
        yield


def make_hook(client: Any = None) -> Any:
    """Make a hook for a client whose event processor is not ours.

    It sees neither prerequisites nor the version of a flag, so a restarted experiment is not seen.

    Args:
        client: a weak reference to the client.
    """
    from ldclient import hook as theirs
    from ldclient.hook import Hook, Metadata

    class ExposureHook(Hook):
        """Notes the exposures of one client, sync or async."""

        def __init__(self, client: Any) -> None:
            self.client = client
            self.active = True
            """Off where our event processor sees the same exposures, and more."""

        @property
        def metadata(self) -> Metadata:
            """Who is hooked in."""
            return Metadata(name="ldinstrument")

        def before_evaluation(self, series_context: Any, data: Any) -> Any:
            """Date the evaluation before its event."""
            return (
                _Passed(data, ldinstrument=int(time.time() * 1000))
                if self.active
                else _Passed(data)
            )

        def after_evaluation(self, series_context: Any, data: Any, detail: Any) -> Any:
            """Note an exposure."""
            reason = getattr(detail, "reason", None)
            if self.active and isinstance(reason, dict) and reason.get("inExperiment") is True:
                date = data.get("ldinstrument") or int(time.time() * 1000)
                exposed(series_context.key, 0, series_context.context, date, self.client)
            return _Passed(data)

    if hasattr(theirs, "AsyncHook"):  # these SDKs let an async client have no other
        theirs.AsyncHook.register(ExposureHook)
    return ExposureHook(client)


# -- which of the two a client has ---------------------------------------------------------------


def watch(client: Any, hook: Any = None) -> None:
    """Let the exposures of *client* be seen, and its events be dated to when they happened.

    Our event processor does both. For a client with another one its events are looked at on their
    way there; where the SDK no longer allows that, a hook sees exposures, and nothing folds.

    Args:
        client: an `LDClient` or an `AsyncLDClient`.
        hook: one of ours that the client has.
    """
    reference = weakref.ref(client)
    processor: Any = sdk.event_processor_of(client)
    if getattr(processor, "sees_exposures", False) is True:
        processor.client = reference
        seen = True
    else:
        seen = sdk.watch_events(client, functools.partial(_look, client=reference))
    if hook is not None:
        hook.client, hook.active = reference, not seen
    elif not seen:
        client.add_hook(make_hook(reference))
    sdk.name_wrapper(client)
    register(client, exposures_seen=seen)


def _look(event: Any, client: Any) -> None:
    with guard("event"):
        if not sdk.is_custom(event):
            see(event, client)
        elif (at := current_event.date_of(event)) is not None:
            event.timestamp = at
