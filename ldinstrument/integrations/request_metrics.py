"""Requests as units of their own, for guarded rollouts: `request_metrics=True` on a boundary.

Each request gets a context of kind `request` with a random key. Flags that are evaluated with it,
alone or beside the user, are exposed for it, and these events leave for it, under the names that
LaunchDarkly's own middleware for Go has:

* `http.request.duration_ms`: to the last byte of a complete response.
* `http.response.4xx` and `http.response.5xx`: it was such a response; an exception counts as 500.

What identifies a person, the address and the query string, is not among its attributes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from ..diagnostics import guard
from ..metrics.catalogs import catalog
from ..metrics.standard import REQUEST_METRICS
from ..sessions.clients import Tracker
from ..sessions.current import current_session
from ..sessions.scopes import open_session

if TYPE_CHECKING:
    from ldclient import Context

    from ..sessions.session import Session

KIND = "request"
DURATION, CLIENT_ERROR, SERVER_ERROR = REQUEST_METRICS


def declare_request_metrics() -> None:
    """Declare the three metrics, but for those that the program has defined itself."""
    catalog.declare_implied(
        "http", [metric.key for metric in REQUEST_METRICS], lambda: REQUEST_METRICS
    )


class RequestUnit:
    """One request as an analysis unit.

    Args:
        attributes: makes the attributes of its context; asked when the context is first needed.
        client: takes the events; by default the client that `ldinstrument` finds.
    """

    def __init__(
        self, attributes: Callable[[], Mapping[str, Any]], client: Tracker | None = None
    ) -> None:
        self._attributes = attributes
        self._client = client

    @cached_property
    def context(self) -> Context:
        """The context of kind `request`, anonymous, with a random key."""
        from ldclient import Context

        built = Context.builder(uuid.uuid4().hex).kind(KIND).anonymous(True)
        for name, value in self._attributes().items():
            if value:
                built.set(name, value)
        return built.build()

    def attach(self, session: Session) -> None:
        """Let `request_context` find it in *session* and in what is opened inside."""
        _units[session] = ref(self)

    def emit(self, status: int, seconds: float | None, data: Mapping[str, Any]) -> None:
        """Emit what the request was.

        Args:
            status: of the response; 0 when there was none.
            seconds: how long it took; None when it was not completed.
            data: goes with the events.
        """
        with guard("request metrics"):
            session = open_session(self.context, name=KIND, client=self._client, silent=True)
            if seconds is not None:
                session.record(DURATION, seconds * 1000, data=data)
            if status >= 400:
                session.record(CLIENT_ERROR if status < 500 else SERVER_ERROR, data=data)
            session.end()


_units: WeakKeyDictionary[Session, ref[RequestUnit]] = WeakKeyDictionary()
"""The unit of each session that has one; its request keeps it alive."""


def request_context() -> Context | None:
    """Return the context of kind `request` of the current request; None without one.

    Evaluate flags with it, alone or in a multi-context beside the user, to roll them out by request
    under `request_metrics=True`.
    """
    session = current_session()
    while session is not None:
        if (found := _units.get(session)) is not None and (unit := found()) is not None:
            return unit.context
        session = session.outer
    return None
