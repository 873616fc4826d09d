"""How evaluations become known: from events that our processor sees, or from the SDK's hook.

LaunchDarkly counts an event only for a context that was exposed before it. So each exposure
(`inExperiment`) is noted in the table of the process, and a session takes its identity from the
exposures that are made in it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Generator
from typing import Any

from .. import sdk
from ..diagnostics import guard
from .clients import add_hook, register
from .contexts import evaluated_context
from .current import current_session
from .exposures import exposures


def see(event: Any, client: Any = None) -> None:
    """Note an event of the SDK, on the thread that evaluates, if it is an exposure.

    Args:
        event: as the SDK hands it to an event processor; also of a prerequisite.
        client: a weak reference to the client that evaluated.
    """
    reason = getattr(event, "reason", None)
    if type(reason) is dict and reason.get("inExperiment") is True:
        exposed(
            event.key, getattr(event.flag, "version", 0), event.context, event.timestamp, client
        )


def exposed(flag_key: str, version: int, context: Any, date: int, client: Any = None) -> None:
    """Note that *context* was exposed to a flag here and now.

    Args:
        flag_key: of the flag.
        version: of the flag; 0 when unknown.
        context: whom it was evaluated for.
        date: of the exposure's event, in milliseconds since the epoch.
        client: a weak reference to the client that evaluated.
    """
    with guard("exposure"):
        seen = evaluated_context(context)
        if seen is None:
            return
        exposures.note(flag_key, version, seen, date, client)
        session = current_session()
        while session is not None:
            knew = session.knows_who
            session.see_exposure(seen, client)
            # A request around a chat that did not know who it is learns it, too; what knows shields
            # what is around it.
            session = None if knew else session.outer


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
    """Let the exposures of *client* be seen, by our event processor where it has it.

    Args:
        client: an `LDClient` or an `AsyncLDClient`.
        hook: one of ours that the client has; without one it gets one when it needs it.
    """
    register(client)
    reference = weakref.ref(client)
    processor = sdk.event_processor_of(client)
    if getattr(processor, "sees_exposures", False) is True:
        processor.client = reference  # type: ignore[union-attr]
        if hook is not None:
            hook.active = False
    elif hook is not None:
        hook.client = reference
    else:
        add_hook(client, make_hook(reference))
