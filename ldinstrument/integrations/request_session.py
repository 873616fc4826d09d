"""What every request boundary shares: when a session begins, for whom, when it ends, and what is
said of the request.

`wsgi` and `asgi` bring requests here; `flask` and `django` add how to find the user.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ..clock import clock
from ..diagnostics import warn_user_code
from ..errors import StrictError
from ..metrics.metric import check_key
from ..sessions.contexts import as_context
from ..sessions.current import current_session, open_session, set_current
from ..sessions.emission import Tracker
from ..sessions.outcomes import Outcome, outcome_of
from ..sessions.session import Session, declare_session_metrics

REQUEST = "ldinstrument.request"
"""Where the WSGI environ and the ASGI scope carry the `RequestSession`."""

HEALTH_CHECKS = (
    "/health", "/health/*", "/healthz", "/healthz/*", "/healthcheck", "/health-check", "/livez", "/livez/*",
    "/readyz", "/readyz/*", "/ping",
)  # fmt: skip
"""Paths that never make a session, whatever `ignore` adds."""

PROBES = (
    "kube-probe/",
    "ELB-HealthChecker/",
    "GoogleHC/",
    "Amazon-Route53-Health-Check-Service",
    "Consul Health Check",
)
"""How the user agents of health checkers begin."""

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET"}
)


class Boundary:
    """Where requests become sessions.

    Args:
        context: whose session it is: a Context, a key of kind `user`, or a callable that is given
            the request. One that answers None is asked again at the end of the request, when a
            login may have happened.
        name: the prefix of the session's metrics; None is `request`, or `session` with a store.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        ignore: path patterns (as in `fnmatch`: `/static/*`) that make no session; health checks
            never make one.
        store: a `SessionStore`, or its address: sessions then are visits of many requests, and end
            in the store.
    """

    def __init__(
        self,
        context: Any = None,
        *,
        name: str | None = None,
        client: Tracker | None = None,
        ignore: Iterable[str] = (),
        store: Any = None,
    ) -> None:
        self.name = check_key("session name", name or ("request" if store is None else "session"))
        self.context = context
        self.client = client
        self.store = _opened(store)
        patterns = [*HEALTH_CHECKS, *([ignore] if isinstance(ignore, str) else ignore)]
        self._is_ignored = re.compile("|".join(map(translate, patterns))).match
        declare_session_metrics(self.name)

    def begin(
        self, *, path: str, method: str, agent: str = "", preflight: bool = False
    ) -> RequestSession:
        """The session of a request that begins; none for what is ignored, health checks and CORS
        preflights.

        Args:
            path: decides whether it is ignored; it is not kept.
            method: the HTTP method.
            agent: the user agent; health checkers make no session.
            preflight: whether it is a CORS preflight.
        """
        if preflight or self._is_ignored(path) or agent.startswith(PROBES):
            return RequestSession(None)
        return self.open(method if method in METHODS else "OTHER")

    def open(self, method: str = "") -> RequestSession:
        """A session; none when opening one fails, which is logged."""
        try:
            # No outer session: whatever was current on this thread or in this task belongs to
            # somebody else.
            opened = open_session(name=self.name, client=self.client, store=self.store)
        except Exception as error:
            _failed(error, True, "request")
            return RequestSession(None)
        return RequestSession(opened, method=method, store=self.store)

    def who(self, request: Any, *, last: bool = True) -> Any:
        """What `context=` says of *request*; perhaps an awaitable. Its errors never reach the host.

        Args:
            request: what the framework calls a request.
            last: whether nobody asks again; an error is logged only then.
        """
        if not callable(self.context):
            return self.context
        try:
            return self.context(request)
        except Exception as error:
            _failed(error, last)
            return None

    async def who_async(self, request: Any, *, last: bool = True) -> Any:
        """`who`, awaited where it is an awaitable."""
        found = self.who(request, last=last)
        if not inspect.isawaitable(found):
            return found
        try:
            return await found
        except Exception as error:
            _failed(error, last)
            return None

    def asks_again(self, request: RequestSession) -> bool:
        """Whether `context=` shall be asked once more: it is a callable that has not said yet who
        this is.
        """
        return callable(self.context) and request.session is not None and not request.identified


def _opened(store: Any) -> Any:
    """A store as given, or the one at an address."""
    if not isinstance(store, (str, Path)):
        return store
    from ..stores import open_store

    return open_store(store)


def _failed(error: Exception, last: bool, where: str = "context= of a request") -> None:
    if isinstance(error, StrictError):
        raise error
    if last:
        warn_user_code(where, error, "its session has no identity from it")


class RequestSession:
    """One request and its session, None for a request that is ignored: swapped in around the
    application's code.

    Args:
        session: as opened by the boundary.
        method: goes into the data of the session's events, with `route` and the status.
        store: where the visit is that this request is part of.

    `ask`, when it is set, is the last question for whom the session is, put at the end to who has
    not said it yet.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_mine",
        "_outside",
        "_reason",
        "ask",
        "complete_at",
        "identified",
        "is_new",
        "leaving",
        "method",
        "route",
        "session",
        "status",
        "store",
        "visitor",
    )

    delegates = False

    def __init__(self, session: Session | None, *, method: str = "", store: Any = None) -> None:
        self.session = session
        self.store = store
        self.visitor: str | None = None
        self.is_new = False
        self.leaving = False
        self.ask: Callable[[], Any] | None = None
        if session is not None and store is not None:
            _visits[session] = self
        self.method = method
        self.route: str | None = None
        self.status = 0
        self.identified = False
        self.complete_at: float | None = None
        self._mine = session
        self._outside: Session | None = None
        self._reason = "ended"
        self._ended = False

    # -- in and out of the application's code: the `Watcher` of a streamed body, too ---------------
    def resume(self) -> None:
        """In: remember what was current, put mine in its place, by value; None, too."""
        self._outside = set_current(self._mine)

    def pause(self) -> None:
        """Out: remember mine (the application may be inside a session of its own), restore what was
        there.
        """
        self._mine = set_current(self._outside)

    def first(self) -> None:
        """Nothing to note."""

    def unstarted(self) -> None:
        """Nobody asked for the body."""
        self.disconnected()

    # -- what is learnt on the way ---------------------------------------------------------------
    def identify(self, who: Any) -> None:
        """Say whose session it is, unless *who* is None."""
        context = None if who is None else as_context(who)
        if context is not None and self.session is not None:
            self.identified = True
            self.session.identify(context)

    @property
    def ended(self) -> bool:
        """Whether its session has ended, or has been brought in."""
        return self._ended

    @property
    def bodiless(self) -> bool:
        """Whether the response has no body: it is complete before anybody reads from it."""
        return self.method == "HEAD" or self.status in (204, 304)

    # -- how it ends: the first to say so is right -----------------------------------------------
    def returned(self, result: Any = None) -> None:
        """The last byte of the response is out."""
        self.judge(Outcome.FAILURE if self.status >= 500 else Outcome.SUCCESS, "ended")

    def raised(self, error: BaseException) -> None:
        """The application raised: a failure, unless it was cancelled or its consumer had enough."""
        outcome = outcome_of(error)
        left = outcome in (Outcome.CANCELLED, Outcome.ABANDONED)
        self.judge(outcome, "abandoned" if left else "error")

    def broke_off(self) -> None:
        """The application stopped before the end of its response: a failure."""
        self.judge(Outcome.FAILURE, "error")

    def disconnected(self) -> None:
        """The client left before the end: abandoned, neither success nor failure, and without a
        duration.
        """
        self.judge(Outcome.ABANDONED, "abandoned")

    def judge(self, outcome: Outcome, reason: str) -> None:
        """Count the interaction, and stop the clock; *reason* becomes the session's `endReason`."""
        if self.complete_at is not None:
            return
        self.complete_at = now = clock()
        self._reason = reason
        if self.session is not None:
            self.session.interaction(outcome, at=now)

    def end(self) -> None:
        """End the session, or bring what this request adds to the visit that it is part of;
        harmless twice.
        """
        session = self._last_look()
        if session is None:
            return
        if self.store is None:
            session.end(self._reason)
        else:
            from ..stores import end_request

            end_request(session, self.store, self.visitor, ends="ended" if self.leaving else "")

    async def aend(self) -> None:
        """`end` for an event loop, which does not wait for a store."""
        if self.store is None:
            self.end()
            return
        session = self._last_look()
        if session is not None:
            from ..stores import aend_request

            await aend_request(
                session, self.store, self.visitor, ends="ended" if self.leaving else ""
            )

    def _last_look(self) -> Session | None:
        """The session, the first time; its clock stopped, and told what the request was."""
        if self._ended or self.session is None:
            return None
        self._ended = True
        if self.ask is not None and not self.identified:
            self.identify(self.ask())
        try:
            if self.store is None:  # one request's route would say nothing of a visit
                self.session.add_data(**self._facts())
            if (
                self.complete_at is not None
            ):  # what the user waited for ends there, not with the background's work
                self.session.stop_clock(self.complete_at)
        except Exception as error:
            _failed(error, True, "request")
        return self.session

    def _facts(self) -> dict[str, Any]:
        facts = {"route": self.route, "method": self.method, "status": self.status}
        return {name: fact for name, fact in facts.items() if fact}


_visits: WeakKeyDictionary[Session, RequestSession] = WeakKeyDictionary()


def visit_of(session: Session | None) -> RequestSession | None:
    """The request, around *session*, that is part of a visit; None where there is none."""
    while session is not None:
        found = _visits.get(session)
        if found is not None:
            return found
        session = session.outer
    return None


def end_session() -> bool:
    """End the visit that the current request belongs to, as at logout; what comes next opens the
    next one.

    It ends when the request does, with everything that the request still records, and just before
    the last byte of its
    response: what the client asks for afterwards is the next visit's. Without a store there is no
    visit, and nothing happens.

    Returns:
        Whether there is a visit to end.
    """
    visit = visit_of(current_session())
    if visit is not None:
        visit.leaving = True
    return visit is not None
