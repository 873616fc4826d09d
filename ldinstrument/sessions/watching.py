"""The events of a client, watched on their way to its event processor, or by the SDK's hook."""

from __future__ import annotations

import functools
import weakref
from typing import Any

from .. import sdk
from ..callables.streams import compile_followers
from ..diagnostics import guard
from . import scopes  # noqa: F401 - with a client come sessions: no request waits for their import
from .clients import register
from .current_event import current_event
from .evaluations import see


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
        from .hook import ExposureHook

        client.add_hook(ExposureHook(reference))
    sdk.name_wrapper(client)
    compile_followers()
    register(client, exposures_seen=seen)


def _look(event: Any, client: Any) -> None:
    with guard("event"):
        if not sdk.is_custom(event):
            see(event, client)
        elif (at := current_event.date_of(event)) is not None:
            event.timestamp = at
