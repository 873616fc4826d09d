"""Tell the local LaunchDarkly what this process has warned about, and which runs of tasks were
suspended, so that its doctor knows, too.

Only a server on this machine is told, and only one that asks for it in its answer to events;
LaunchDarkly never does. A program without warnings tells nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..diagnostics import diagnostics
from ..ledger import ledger
from ..sessions.ids import random_id
from ..settings import is_loopback

ASKED_BY = "X-Ldinstrument-Program"
"""The header of an answer that names where to post."""
MOST_WARNINGS = 200
SECONDS = 1.0


class ProgramWarnings:
    """What one transport tells.

    Args:
        pool: makes the connections.
        events_uri: where events go.
    """

    def __init__(self, pool: Any, events_uri: str) -> None:
        self._pool = pool
        self._events_uri = events_uri
        self._local = is_loopback(urlsplit(events_uri).hostname or "")
        self._id: tuple[int, str] = (0, "")
        self._told: object = None

    def tell(self, answer: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """Post the warnings, if *answer* asks for them and there are new ones or many more.

        Args:
            answer: headers of the answer to a POST of events.
            headers: those of that POST, with the SDK key.
        """
        place = answer.get(ASKED_BY) if self._local else None
        if place is None:
            return
        suspended = {("suspended", key): runs for key, runs in ledger.suspended_runs().items()}
        warnings = {**diagnostics.counts(), **suspended}
        state = os.getpid(), {entry: count.bit_length() for entry, count in warnings.items()}
        if not warnings or state == self._told:
            return
        self._told = state
        self._pool.request(
            "POST",
            urljoin(self._events_uri, urlsplit(place).path),
            body=json.dumps(self._document(warnings)),
            headers={"Authorization": headers.get("Authorization", "")},
            timeout=SECONDS,
            retries=False,
            redirect=False,
        )

    def _document(self, warnings: Mapping[tuple[str, str], int]) -> dict[str, Any]:
        pid = os.getpid()
        if self._id[0] != pid:
            self._id = pid, random_id()
        listed = [[*entry, count] for entry, count in warnings.items()]
        return {"id": self._id[1], "pid": pid, "warnings": listed[:MOST_WARNINGS]}
