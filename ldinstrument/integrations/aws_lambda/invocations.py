"""One invocation: a session around the handler that ends in time, and the delivery of its events
before a freeze.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...delivery import FlushReport, flush
from ...diagnostics import guard, log_internal_error, warn_once, warn_user_code
from ...errors import DefinitionError, StrictError
from ...sessions.accounts import DEFAULT_METRICS
from ...sessions.baggage import HEADER, arrived_id
from ...sessions.clients import Tracker
from ...sessions.clock import clock
from ...sessions.contexts import as_context
from ...sessions.current import current_session
from ...sessions.outcomes import Outcome, outcome_of
from ...sessions.scopes import open_session
from ...sessions.session import Session
from ...settings import disabled
from .extension import Extension
from .http_events import header_of
from .watchdog import Watchdog

if TYPE_CHECKING:
    from ..request_metrics import RequestUnit

NAME = "invocation"
SHORTEST = 0.1
"""Seconds that a flush is given at least, also while LaunchDarkly has not answered for a while."""
WATCHDOG = 0.5
"""Seconds for the watchdog's own flush, at most a fifth of what the invocation had."""

LONGEST = 3600.0
"""Seconds; no invocation is given more than a quarter of this."""

watchdog = Watchdog()


# Two plain classes: what a Lambda imports is paid for at each cold start, and two dataclasses cost
# 2 ms of it.


class FlushBudget:
    """How long a flush may take, and the flush.

    Args:
        client: whose events; every client's when None.
        timeout: seconds at most.
        reserve: seconds before the function's time-out that are left to the runtime, at most a
            tenth of what there was.
    """

    def __init__(self, client: Tracker | None, timeout: float, reserve: float):
        self.client = client
        self.timeout = self._next_timeout = timeout
        self.reserve = reserve

    def flush(self, left: float) -> None:
        """Flush within *left* seconds; what is not confirmed stays pending for the next time."""
        allowed = min(self._next_timeout, left)
        # A tracker need not be a client: one without flush() has nothing to wait for.
        if allowed <= 0 or (self.client is not None and not hasattr(self.client, "flush")):
            return
        report = flush(allowed, self.client)
        # While LaunchDarkly does not answer, an outage costs each invocation half of what it cost
        # the one before.
        self._next_timeout = (
            max(SHORTEST, self._next_timeout / 2) if report.timed_out else self.timeout
        )
        if report.timed_out and report.pending + report.failed:
            warn_once("lambda_pending", NAME, _pending_message(report, allowed))


def _pending_message(report: FlushReport, allowed: float) -> str:
    return (
        f"LaunchDarkly did not confirm {report.pending + report.failed} events within "
        f"{allowed:.2f} s; they stay pending and leave with the next invocation. If the network is "
        "slow, raise lambda_handler(timeout=...)"
    )


class Handler:
    """A decorated handler: what was asked for, in one place.

    Args:
        call: the user's handler.
        context: whose invocation, or a callable of (event, lambda_context) that says so.
        data: goes with the `invocation.*` events, or a callable of (event, lambda_context) that
            makes it.
        success: says of a result whether it is a success; every result is one when None.
        budget: how long a flush may take.
        metrics: which metrics of the session are wanted.
        measures_requests: whether an invocation by HTTP is a unit of its own, too.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        context: Any,
        data: Any,
        success: Callable[[Any], object] | None,
        budget: FlushBudget,
        metrics: tuple[str, ...] = DEFAULT_METRICS,
        measures_requests: bool = False,
    ):
        self.call = call
        self.context = context
        self.data = data
        self.success = success
        self.budget = budget
        self.metrics = metrics
        self.measures_requests = measures_requests
        self._first, self._names = _places(call)

    def event_and_context(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Return the event and the context among the arguments of a call, wherever they stand.

        None for what is not there.
        """
        if not self._names:
            event, lambda_context = (None, None, *args, *kwargs.values())[-2:]
            return event, lambda_context
        given = args[self._first :]
        event, lambda_context = (
            given[place] if place < len(given) else kwargs.get(name)
            for place, name in enumerate(self._names)
        )
        return event, lambda_context

    def opened(
        self, event: Any, lambda_context: Any, extension: Extension | None
    ) -> Invocation | None:
        """Open an invocation; None when nothing is to be measured, or it is measured already (a
        handler in a handler).
        """
        request_id = _text(lambda_context, "aws_request_id")
        around, arrived = current_session(), arrived_id(header_of(event, HEADER))
        if disabled() or (
            around is not None and around.name == NAME and around.id in (request_id, arrived)
        ):
            return None
        if extension is not None and request_id:
            extension.begin(request_id)  # before the extractors: they may take their time
        try:
            session = self._session(arrived or request_id, event, lambda_context)
            invocation = Invocation(self, session, request_id, remaining(lambda_context))
            if self.measures_requests:
                invocation.measure(event)
            return invocation
        except BaseException as error:
            if extension is not None and request_id:
                extension.finish(request_id, _nothing)
            if isinstance(error, StrictError) or not isinstance(error, Exception):
                raise
            log_internal_error("lambda_handler", error)
            return None

    def _session(self, id: str | None, event: Any, lambda_context: Any) -> Session:
        who = _value_of("context", self.context, event, lambda_context)
        more = _value_of("data", self.data, event, lambda_context)
        data = {**_about(lambda_context), **(more if isinstance(more, Mapping) else {})}
        return open_session(
            as_context(who),
            id=id,
            name=NAME,
            data=data,
            client=self.budget.client,
            metrics=self.metrics,
        )

    def is_success(self, result: Any) -> bool:
        """Tell whether *result* is a success; it is one when `success=` raises."""
        if self.success is None:
            return True
        try:
            return bool(self.success(result))
        except Exception as error:
            warn_user_code("success= of lambda_handler", error, "the result counts as a success")
            return True


class Invocation:
    """One run of a handler, from its session's start to the hand-over of its events.

    Args:
        handler: the handler that runs.
        session: the session around it.
        request_id: AWS's id of the request; None where the context has none (a test's, or
            somebody's own).
        seconds: until the function's time-out; None where nobody knows.
    """

    def __init__(
        self, handler: Handler, session: Session, request_id: str | None, seconds: float | None
    ):
        self.session = session
        self.request_id = request_id
        self._handler = handler
        self.is_last = False
        self._began = clock()
        self._unit: RequestUnit | None = None
        self._status = 0
        self._ending = threading.Lock()
        self._ended = False
        self._until = float("inf")
        if seconds is not None:
            budget = handler.budget
            self._until = time.monotonic() + seconds - min(budget.reserve, seconds / 10)
            watchdog.arm(
                self._until - min(WATCHDOG, budget.timeout, seconds / 5), self._running_out
            )

    def measure(self, event: Any) -> None:
        """Measure the HTTP request that *event* is as a unit of its own, too."""
        from ..request_metrics import RequestUnit
        from .http_events import attributes_of

        if attributes := attributes_of(event):
            self._unit = RequestUnit(lambda: attributes, self._handler.budget.client)
            self._unit.attach(self.session)

    def returned(self, result: Any) -> None:
        """End: the handler returned *result*."""
        status = result.get("statusCode") if isinstance(result, dict) else None
        self._status = status if isinstance(status, int) else 200
        self._end(Outcome.SUCCESS if self._handler.is_success(result) else Outcome.FAILURE, "ended")

    def raised(self, error: BaseException) -> None:
        """End: the handler raised *error*.

        `SystemExit` and its like end the process, so that there will be no "after".
        """
        self.is_last = not isinstance(error, Exception)
        self._status = 500
        outcome = outcome_of(error)
        self._end(outcome, "ended" if outcome is Outcome.SUCCESS else "error")

    def deliver(self) -> None:
        """Flush, within the time that is left."""
        with guard("flush of lambda_handler"):
            self._handler.budget.flush(self._until - time.monotonic())

    def _running_out(self) -> None:
        """End and flush shortly before the function's time-out, after which nothing of ours
        runs.
        """
        self._end(Outcome.FAILURE, "timeout")
        self.deliver()

    def _end(self, outcome: Outcome, reason: str) -> None:
        # The watchdog or the handler's end: the first one counts, and the second waits until all of
        # it is emitted.
        with self._ending:
            if self._ended:
                return
            self._ended = True
            watchdog.disarm(self._running_out)
            self.session.interaction(outcome)
            if self._unit is not None:
                self._emit_unit(self._unit, outcome)
            self.session.end(reason)

    def _emit_unit(self, unit: RequestUnit, outcome: Outcome) -> None:
        status = self._status or 500  # it is about to time out
        seconds = clock() - self._began if outcome.finished else None
        unit.emit(status, seconds, {"status": status})


def _nothing() -> None:
    """Deliver nothing."""


def remaining(lambda_context: Any) -> float | None:
    """Return the seconds until the function's time-out; None where nobody knows (tests)."""
    ask = _attribute(lambda_context, "get_remaining_time_in_millis")
    try:
        milliseconds = ask() if callable(ask) else None
    except Exception as error:
        log_internal_error("get_remaining_time_in_millis", error)
        return None
    if not isinstance(milliseconds, (int, float)) or not milliseconds > 0:
        return None  # a mock's answer is no number, and a stub's 0 is no time-out
    return min(milliseconds / 1000, LONGEST)


def check(handler: Any) -> None:
    """Refuse at decoration what AWS's Python runtime cannot call.

    Raises:
        DefinitionError: it says what to write instead.
    """
    if inspect.isclass(handler) or not callable(handler):
        raise DefinitionError(
            f"lambda_handler decorates a function of (event, context), not {type(handler).__name__}"
        )
    while isinstance(handler, functools.partial):
        handler = handler.func
    body = handler if inspect.isroutine(handler) else type(handler).__call__
    if inspect.iscoroutinefunction(body):
        raise DefinitionError(
            "lambda_handler: AWS's Python runtime does not await a handler; write "
            "'def handler(event, context): return asyncio.run(main(event, context))' and decorate "
            "that"
        )
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise DefinitionError(
            "lambda_handler: AWS's Python runtime does not iterate a handler; return the whole "
            "result"
        )


def _places(call: Callable[..., Any]) -> tuple[int, tuple[str, ...]]:
    """Return where *call* takes event and context: the index of the first, and both names.

    No names where that is unknown.
    """
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return 0, ()
    named = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    # A function in a class body is not bound yet, so its object stands first.
    first = 1 if named[:1] in (["self"], ["cls"]) else 0
    names = tuple(named[first : first + 2])
    return (first, names) if len(names) == 2 else (0, ())


def _value_of(name: str, given: Any, event: Any, lambda_context: Any) -> Any:
    """Return what was given as *name*, or what that function returns; None when it raises."""
    if not callable(given):
        return given
    try:
        return given(event, lambda_context)
    except Exception as error:
        warn_user_code(f"{name}= of lambda_handler", error, f"this invocation is without {name}")
        return None


_cold = True


def _about(lambda_context: Any) -> dict[str, Any]:
    """Return data for the events of an invocation: whether it was a cold start, and of what."""
    global _cold
    cold, _cold = _cold, False
    return {
        # With provisioned concurrency the initialisation was over before anybody asked.
        "coldStart": cold
        and os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") != "provisioned-concurrency",
        "functionName": _text(lambda_context, "function_name"),
        "functionVersion": _text(lambda_context, "function_version"),
    }


def _text(lambda_context: Any, name: str) -> str | None:
    value = _attribute(lambda_context, name)
    return value if isinstance(value, str) and value else None


def _attribute(lambda_context: Any, name: str) -> Any:
    """Return an attribute of a context that may be anybody's, and may raise anything."""
    try:
        return getattr(lambda_context, name, None)
    except Exception as error:
        log_internal_error(f"{name} of the Lambda context", error)
        return None
