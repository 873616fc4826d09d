"""What every request boundary shares: when a session begins, for whom, when it ends, and what is
said of the request.

`wsgi` and `asgi` bring requests here; `flask` and `django` add how to find the user.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from fnmatch import translate
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

from ..diagnostics import raise_if_interrupted, warn_user_code, withhold
from ..errors import StrictError
from ..metrics.metric import check_key
from ..sessions.accounts import DEFAULT_METRICS, checked_metrics, declare_session_metrics
from ..sessions.baggage import adopt
from ..sessions.clock import clock
from ..sessions.contexts import as_context
from ..sessions.current import current_session, set_current
from ..sessions.outcomes import Outcome, outcome_of
from ..sessions.registry import open_sessions
from ..sessions.scopes import open_session
from ..sessions.session import Session
from ..sessions.task_definition import INTERACTION
from ..settings import DISABLED_KEY, encoded, environ, scans
from .options import check_options, ignored_paths, store_of, visitors_of
from .request_metrics import RequestUnit, declare_request_metrics

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import RequestOptions
    from .visitors import Visitor

REQUEST = "ldinstrument.request"
"""Where the WSGI environ and the ASGI scope carry the `RequestSession`."""

WEBSOCKET = "WEBSOCKET"
"""The method of a websocket's handshake, in the data of its session."""

HEALTH_CHECKS = (
    "/health",
    "/health/*",
    "/healthz",
    "/healthz/*",
    "/healthcheck",
    "/health-check",
    "/livez",
    "/livez/*",
    "/readyz",
    "/readyz/*",
    "/ping",
)
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
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", WEBSOCKET}
)


class ContextSource:
    """What `context=` says of a request.

    Args:
        given: a Context, a key of kind `user`, or a callable, async or not, that is given what the
            framework calls a request. One that answers None is asked again at the end of the
            request, when a login may have happened.
    """

    def __init__(self, given: Any) -> None:
        self.given = given
        self.may_answer_later = callable(given)

    def ask(self, request: Any, *, last: bool = True) -> Any:
        """Return whose *request* it is; perhaps an awaitable. Errors never reach the host.

        Args:
            request: what the framework calls a request.
            last: whether nobody asks again; an error is logged only then.
        """
        if not self.may_answer_later:
            return self.given
        try:
            return self.given(request)
        except Exception as error:
            _context_failed(error, last)
            return None

    async def ask_async(self, request: Any, *, last: bool = True) -> Any:
        """Return the same, awaited where it is an awaitable."""
        found = self.ask(request, last=last)
        return await self.answer(found, last=last) if inspect.isawaitable(found) else found

    async def answer(self, found: Awaitable[Any], *, last: bool = True) -> Any:
        """Return what *found*, as `ask` returned it, comes to."""
        try:
            return await found
        except Exception as error:
            _context_failed(error, last)
            return None

    def is_asked_again(self, request: RequestSession) -> bool:
        """Tell whether to ask once more: a callable has not said yet whose *request* this is."""
        return self.may_answer_later and request.session is not None and not request.identified


def _context_failed(error: Exception, last: bool) -> None:
    if isinstance(error, StrictError):
        raise error
    raise_if_interrupted(error)
    if last:
        warn_user_code(
            "context= of a request", error, "its session has no identity from this function"
        )


class RequestSessionFactory:
    """Makes the sessions of one boundary's requests.

    Args:
        context: as of `ContextSource`.
        options: as of `RequestOptions`.
    """

    def __init__(self, context: Any = None, **options: Unpack[RequestOptions]) -> None:
        check_options("SessionMiddleware", options)
        self.source = ContextSource(context)
        self.store = store_of(options)
        # Whom the store reports to, its requests' own values go to.
        given = options.get("client")
        self.client = given if given is not None else getattr(self.store, "client", None)
        self.visitors = visitors_of(options)
        default = "request" if self.store is None else "session"
        self.name = check_key("session name", options.get("name") or default)
        self.websocket_name = self._checked_websocket(options.get("websocket", "websocket"))
        self._is_ignored = _path_matcher([*HEALTH_CHECKS, *ignored_paths(options)])
        self._open: WeakSet[RequestSession] | None = None
        self._metrics = checked_metrics(options.get("metrics", DEFAULT_METRICS))
        self._adopts = bool(options.get("baggage", True))
        self.measures_requests = bool(options.get("request_metrics"))
        declare_session_metrics(self.name, self._metrics)
        if self.measures_requests:
            declare_request_metrics()

    def _checked_websocket(self, name: str | None) -> str | None:
        if name is None or self.store is not None:
            return None if name is None else self.name
        return check_key("session name", name)

    def declare_websocket(self) -> None:
        """Declare the metrics of websockets' sessions; else the first websocket does."""
        if self.websocket_name is not None:
            declare_session_metrics(self.websocket_name, self._metrics)

    def takes(self, *, path: str, method: str, agent: str = "", preflight: bool = False) -> bool:
        """Tell whether a request gets a session: not what is ignored, health checks and preflights.

        Args:
            path: decides whether it is ignored; it is not kept.
            method: the HTTP method, or `WEBSOCKET`.
            agent: the user agent; health checkers make no session.
            preflight: whether it is a CORS preflight.
        """
        if preflight or (method == WEBSOCKET and self.websocket_name is None):
            return False
        return not (self._is_ignored(path) or agent.startswith(PROBES))

    def open(
        self,
        method: str = "",
        *,
        who: Any = None,
        baggage: Any = None,
        cookies: str = "",
        header: str | None = None,
        attributes: Callable[[], Mapping[str, Any]] | None = None,
    ) -> RequestSession:
        """Open the session of a request; when that fails, which is logged, return one without.

        Args:
            method: the HTTP method, or `WEBSOCKET`; empty for what is no request.
            who: whose session it is; None when that is not known yet.
            baggage: the `baggage` header of the request, where there is one.
            cookies: its `Cookie` header, for the visitor's id.
            header: the header that `visitors` names, likewise.
            attributes: makes those of the request's own context, where requests are measured.
        """
        try:
            name = self.name
            if method == WEBSOCKET and self.websocket_name is not None:
                name = self.websocket_name
                self.declare_websocket()
            # No outer session: whatever was current on this thread or in this task belongs to
            # somebody else.
            asked = scans or DISABLED_KEY in encoded or os.environ is not environ
            session = (open_session if asked else Session)(
                who,
                name=name,
                client=self.client,
                store=self.store,
                metrics=self._metrics,
            )
            if baggage and self._adopts:
                adopt(session, baggage)

            known = method if method in METHODS else "OTHER" if method else ""
            request = RequestSession(session, method=known, store=self.store)
            request.identified = session.own_context is not None
            if self.visitors is not None:
                visitor = request.read_visitor = self.visitors.read(cookies, header)
                request.visitor, request.visitor_is_new = visitor.id, visitor.is_new

            if self._open is not None:
                self._open.add(request)
            if self.measures_requests and attributes is not None and method != WEBSOCKET:
                request.measure(RequestUnit(attributes, self.client))
            return request
        except Exception as error:
            withhold("opening the session of a request", error)
            return RequestSession(None)

    def remember_open(self) -> None:
        """Remember from now on which sessions are open, for `end_open`."""
        self._open = WeakSet()

    def end_open(self) -> None:
        """End as abandoned what this boundary opened, and sessions inside it; nobody else's."""
        end_requests(self._open or ())


def _path_matcher(patterns: Iterable[str]) -> Callable[[str], Any]:
    return re.compile("|".join(map(translate, patterns))).match


def end_requests(requests: Iterable[RequestSession]) -> None:
    """End *requests* as abandoned, the sessions inside theirs first."""
    ending = {request.session for request in requests if not request.ended}
    for session in reversed(open_sessions()):
        around: Session | None = session
        while around is not None and around not in ending:
            around = around.outer
        if around is not None:
            session.end("abandoned")


_END_REASONS = {
    Outcome.SUCCESS: "ended",
    Outcome.FAILURE: "error",
    Outcome.CANCELLED: "abandoned",
    Outcome.ABANDONED: "abandoned",
    Outcome.SUSPENDED: "abandoned",
}


class RequestSession:
    """One request and its session, swapped in around the application's code.

    Args:
        session: as opened by the factory; None for a request that is ignored.
        method: goes into the data of the session's events, with `route` and the status.
        store: where the visit is that this request is part of.

    Attributes:
        ask_context: when set, called at the end of the request if the context is still unknown.
        inside: what is current in the application's code: its session, or one that it has entered.
        ends_visit: whether the visit ends with this request (logout).
        read_visitor: who the visitor is by the request's cookie or header, where ids are sent.
        visitor: the visitor's id, where one is known.
        visitor_is_new: whether this request has made the visitor's id.
        waits_for_store: whether its end waits for an answer; a store in memory answers at once.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_ended",
        "_outcome",
        "_outside",
        "_reason",
        "ask_context",
        "complete_at",
        "ends_visit",
        "identified",
        "inside",
        "method",
        "read_visitor",
        "route",
        "session",
        "status",
        "store",
        "unit",
        "visitor",
        "visitor_is_new",
        "waits_for_store",
    )

    delegates = False

    def __init__(self, session: Session | None, *, method: str = "", store: Any = None) -> None:
        self.session = session
        self.store = store
        self.read_visitor: Visitor | None = None
        self.visitor: str | None = None
        self.visitor_is_new = False
        self.ends_visit = False
        self.ask_context: Callable[[], Any] | None = None
        if session is not None and store is not None:
            _requests_of_visits[session] = ref(self)
        self.unit: RequestUnit | None = None
        self.method = method
        self.route: str | None = None
        self.status = 0
        self.identified = False
        self.complete_at: float | None = None
        self.waits_for_store: bool = store is not None and store.store.shared
        self.inside = session
        self._outside: Session | None = None
        self._began = clock()
        self._outcome: Outcome | None = None
        self._reason = "ended"
        self._ended = False

    def measure(self, unit: RequestUnit) -> None:
        """Measure this request as a unit of its own, too."""
        self.unit = unit
        if self.session is not None:
            unit.attach(self.session)

    # -- in and out of the application's code: the `Watcher` of a streamed body, too ---------------
    def resume(self) -> None:
        """Make this request's session the current one (None, too), and remember what was."""
        self._outside = set_current(self.inside)

    def pause(self) -> None:
        """Restore what was current outside, and remember what is inside: the application may have
        entered a session of its own.
        """
        self.inside = set_current(self._outside)

    def first(self) -> None:
        """Do nothing at the first chunk of a body."""

    def unstarted(self) -> None:
        """End: nobody asked for the body."""
        self.disconnected()

    # -- what is learnt on the way -----------------------------------------------------------------
    def identify(self, who: Any) -> None:
        """Say whose session it is, unless *who* is None."""
        context = None if who is None else as_context(who)
        if context is not None and self.session is not None:
            self.identified = True
            self.session.identify(context)

    def note_trace(self) -> None:
        """Let who observes the session know that its work goes on in the current trace."""
        if self.session is not None and self.session.observer is not None:
            self.session.observer.here(self.session)

    @property
    def tells_route(self) -> bool:
        """Tell whether its route is said anywhere; one request's would say nothing of a visit."""
        return self.store is None or self.unit is not None

    @property
    def ended(self) -> bool:
        """Tell whether its session has ended, or has been merged into the visit."""
        return self._ended

    @property
    def bodiless(self) -> bool:
        """Tell whether the response has no body: it is complete before anybody reads from it."""
        return self.method == "HEAD" or self.status in (204, 304)

    # -- how it ends: the first to say so is right -------------------------------------------------
    def returned(self, result: Any = None) -> None:
        """Note that the last byte of the response is out."""
        self.set_outcome()

    def raised(self, error: BaseException) -> None:
        """Note that the application raised *error*: what that means says the table of outcomes.

        An HTTP exception below 500 is an answer, as a response with that status would be.
        """
        outcome = outcome_of(error)
        self.set_outcome(outcome, _END_REASONS[outcome])

    def aborted(self) -> None:
        """Note that the application stopped before the end of its response: a failure."""
        self.set_outcome(Outcome.FAILURE, "error")

    def disconnected(self) -> None:
        """Note that the client left before the end: abandoned, neither success nor failure."""
        self.set_outcome(Outcome.ABANDONED, "abandoned")

    def set_outcome(self, outcome: Outcome | None = None, reason: str = "ended") -> None:
        """Count the interaction, and stop the clock; *reason* becomes the session's `endReason`.

        Without an *outcome* it is that of a complete response: a failure from 500.
        """
        if self.complete_at is not None:
            return
        if outcome is None:
            outcome = Outcome.FAILURE if self.status >= 500 else Outcome.SUCCESS
        self.complete_at = now = clock()
        self._outcome, self._reason = outcome, reason
        if self.session is not None:
            self.session.append((INTERACTION, outcome, now, now, None))

    def end(self) -> None:
        """End the session, or merge what this request adds into its visit; harmless twice."""
        session, store = self._finish(), self.store
        if session is None:
            return
        if store is not None:
            store.end_request(session, self.visitor, ends="ended" if self.ends_visit else "")
            return
        session.merge_data(self._facts())
        session.end(self._reason)

    async def aend(self) -> None:
        """Do the same on an event loop, which does not wait for a store."""
        if not self.waits_for_store:
            self.end()
            return
        session, store = self._finish(), self.store
        if session is not None and store is not None:
            from ..stores import aend_request

            ends = "ended" if self.ends_visit else ""
            await aend_request(session, store, self.visitor, ends=ends)

    def _finish(self) -> Session | None:
        """Return the session, the first time: whose it is, and when it was over, is settled then.

        From here on the request has ended, also while its visit waits for a store.
        """
        session = self.session
        if self._ended or session is None:
            return None
        self._ended = True
        # What these know of the request holds this object: nobody should have to look for that.
        ask, self.ask_context = self.ask_context, None
        unit, self.unit = self.unit, None
        if ask is not None and not self.identified:
            self.identify(ask())

        # What the user waited for ends there, not with work in the background.
        if self.complete_at is not None:
            session.stopped_at = self.complete_at
        if unit is not None:
            self._emit_unit(unit)
        return session

    def _emit_unit(self, unit: RequestUnit) -> None:
        complete = self._outcome is not None and self._outcome.finished
        seconds = self.complete_at - self._began if complete and self.complete_at else None
        status = self.status or (500 if self._outcome is Outcome.FAILURE else 0)
        unit.emit(status, seconds, {**self._facts(), "status": status})

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if self.route:
            facts["route"] = self.route
        if self.method:
            facts["method"] = self.method
        if self.status:
            facts["status"] = self.status
        return facts


_requests_of_visits: WeakKeyDictionary[Session, ref[RequestSession]] = WeakKeyDictionary()
"""The request of each session that is part of a visit; what serves the request keeps it alive."""


def request_of_visit(session: Session | None) -> RequestSession | None:
    """Return the request, around *session*, that is part of a visit; None where there is none."""
    while session is not None:
        found = _requests_of_visits.get(session)
        if found is not None:
            return found()
        session = session.outer
    return None


def end_session() -> bool:
    """End the visit that the current request belongs to, as at logout; what comes next opens the
    next one.

    It ends when the request does, with everything that the request still records, and just before
    the last byte of its response: what the client asks for afterwards is the next visit's. Without
    a store there is no visit, and nothing happens.

    Returns:
        Whether there is a visit to end.
    """
    request = request_of_visit(current_session())
    if request is not None:
        request.ends_visit = True
    return request is not None
