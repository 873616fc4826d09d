"""The event that is being handed to a client on this thread, and the date that it must carry.

`LDClient.track` takes no date, but an event of ours is dated to when it happened. So the date
travels beside the call: `emission` sets it here, and `delivery`'s event processor, which the client
calls inside `track`, takes it from here.
"""

from __future__ import annotations

import threading
from typing import Any

from .rollups import Emission


class CurrentEvent(threading.local):
    """What `delivery`'s event processor may know of the event it is handed.

    Args:
        emission: the event of ours that is being handed over on this thread; None when there is
            none.
        accepted: set by the processor when it will report the event's fate to the ledger.
    """

    emission: Emission | None = None
    accepted: bool = False

    def take(self, event: Any) -> int | None:
        """Return the date that *event* should carry when it is ours, and answer for its fate from
        now on.
        """
        at = self.date_of(event)
        self.accepted = self.accepted or at is not None
        return at

    def date_of(self, event: Any) -> int | None:
        """Return the date, in milliseconds since the epoch, that *event* should carry when it is
        ours; else None.

        The client may be a wrapper that renames our event, or that tracks others of its own
        meanwhile.
        """
        ours = self.emission
        if ours is None or self.accepted:
            return None
        if event.key != ours.event_key and (ours.data is None or event.data is not ours.data):
            return None
        return ours.at


current_event = CurrentEvent()
