"""AWS Lambda: a session per invocation, and events that are delivered before the sandbox freezes.

Between invocations Lambda stops the whole process in the middle of whatever it does, and in the end
it is killed without a word. LaunchDarkly's `flush()` only starts to send, so it loses events there.
Here, each invocation's events are confirmed before the freeze: before the response leaves, or
(`deliver="after_response"`) right after it.
"""

from __future__ import annotations

import _thread
import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, overload

from ...diagnostics import log
from ...sessions.accounts import DEFAULT_METRICS, checked_metrics, declare_session_metrics
from ...sessions.clients import Tracker
from ...sessions.current import entered
from ...settings import disabled
from ...values import above_zero, from_zero, one_of
from .extension import Extension, ExtensionRefused
from .invocations import NAME, FlushBudget, Handler, Invocation, check

if TYPE_CHECKING:
    from ldclient import Context


__all__ = ["lambda_handler"]

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
Deliver = Literal["before_response", "after_response"]


if TYPE_CHECKING:  # the docstring is the implementation's

    @overload
    def lambda_handler(handler: HandlerT, /) -> HandlerT: ...

    @overload
    def lambda_handler(
        *,
        context: Context | str | Mapping[str, Any] | Callable[[Any, Any], Any] | None = None,
        data: Mapping[str, Any] | Callable[[Any, Any], Mapping[str, Any]] | None = None,
        success: Callable[[Any], object] | None = None,
        client: Tracker | None = None,
        deliver: Deliver = "before_response",
        timeout: float = 2.0,
        reserve: float = 0.2,
        metrics: Iterable[str] = DEFAULT_METRICS,
        request_metrics: bool = False,
    ) -> Callable[[HandlerT], HandlerT]: ...


def lambda_handler(
    handler: Any = None,
    /,
    *,
    context: Any = None,
    data: Any = None,
    success: Callable[[Any], object] | None = None,
    client: Tracker | None = None,
    deliver: Deliver = "before_response",
    timeout: float = 2.0,
    reserve: float = 0.2,
    metrics: Iterable[str] = DEFAULT_METRICS,
    request_metrics: bool = False,
) -> Any:
    """Make each invocation of a (synchronous) Lambda handler a session, and deliver its events
    before the freeze.

    The session is called `invocation`, so its metrics are `invocation.duration`,
    `invocation.success_rate` and `invocation.interactions`; its id is AWS's request id, its data
    `coldStart`, `functionName`, `functionVersion`. The invocation is an interaction of it, failed
    when the handler raises; the handler's result and exception stay what they are. Shortly before
    the function's time-out a watchdog ends the session (`endReason` is `timeout`) and flushes.

    Make the LaunchDarkly client at module level, outside the handler, and never close it.

    Args:
        handler: the function, when the decorator is used bare.
        context: whose invocation: a `Context`, a key, or a callable of (event, lambda_context).
            When it fails, the session is without an identity until a flag is evaluated.
        data: goes with the `invocation.*` events; a mapping or a callable of (event,
            lambda_context).
        success: says of the handler's result whether it is one, such as `lambda result:
            result["statusCode"] < 500`.
        client: takes the events; the `ldclient` singleton when None.
        deliver: `"before_response"` flushes, then returns. `"after_response"` returns at once and
            holds the sandbox, not the caller, until the events are confirmed. It needs Lambda's
            Extensions API, and to decorate at module level; where that is not to be had it says so
            and delivers before the response.
        timeout: seconds that one flush may take at most. While LaunchDarkly does not answer, each
            flush is given half of the one before; what is not confirmed stays pending for the next
            invocation.
        reserve: seconds before the function's time-out in which nothing of ours is done.
        metrics: which metrics of the session are wanted, by suffix; on request also `successes` and
            `unfinished`.
        request_metrics: whether an invocation by HTTP is a unit of its own, too:
            `http.request.duration_ms`, `http.response.4xx` and `http.response.5xx`, by the
            `statusCode` of the result, for the context that `request_context()` of
            `integrations.request_metrics` gives.

    Raises:
        DefinitionError: the handler is a coroutine function, a generator function or a class,
            `deliver` is unknown, or a time is no time.
    """
    _check_options(deliver, timeout, reserve)
    wanted = checked_metrics(metrics)

    def decorate(target: HandlerT) -> HandlerT:
        check(target)
        budget = FlushBudget(client, timeout, reserve)
        described = Handler(target, context, data, success, budget, wanted, request_metrics)
        _declare(described)
        extension = _shared_extension() if deliver == "after_response" else None
        return cast("HandlerT", _wrapped(described, extension))

    return decorate if handler is None else decorate(handler)


def _declare(handler: Handler) -> None:
    """Declare the metrics that the invocations of *handler* feed."""
    declare_session_metrics(NAME, handler.metrics)
    if handler.measures_requests:
        from ..request_metrics import declare_request_metrics

        declare_request_metrics()


def _check_options(deliver: str, timeout: float, reserve: float) -> None:
    one_of("lambda_handler: deliver=", deliver, get_args(Deliver))
    above_zero("lambda_handler: timeout=", timeout)
    from_zero("lambda_handler: reserve=", reserve)


def _wrapped(handler: Handler, extension: Extension | None) -> Any:
    call = handler.call

    # The attributes of a callable object are its own business; a function's belong to whoever
    # decorates it.
    @functools.wraps(call, updated=("__dict__",) if inspect.isroutine(call) else ())
    def run(*args: Any, **kwargs: Any) -> Any:
        invocation = handler.opened(*handler.event_and_context(args, kwargs), extension)
        if invocation is None:
            return call(*args, **kwargs)
        try:
            try:
                with entered(invocation.session):
                    result = call(*args, **kwargs)
            except BaseException as error:
                invocation.raised(error)
                raise
            invocation.returned(result)
        finally:
            _hand_over(invocation, extension)
        return result

    return run


def _hand_over(invocation: Invocation, extension: Extension | None) -> None:
    # Without AWS's own id nobody can tell which freeze would come next.
    request_id = invocation.request_id
    handed = (
        extension is not None
        and request_id is not None
        and extension.finish(request_id, invocation.deliver)
    )
    if invocation.is_last or not handed:
        invocation.deliver()


# -- the extension of this process -----------------------------------------------------------------

_lock = threading.Lock()
_tried = False
_extension: Extension | None = None


def _shared_extension() -> Extension | None:
    """Return the extension of this process, registered at the first call.

    None where it cannot be, and the log says why.
    """
    global _tried, _extension
    with _lock:
        if not _tried and not disabled():
            _tried = True
            _extension = _registered_extension()
        return _extension


def _registered_extension() -> Extension | None:
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if not address:
        log.info(
            "deliver='after_response': this is not AWS Lambda; events are flushed before each "
            "response"
        )
        return None
    if _is_managed():
        _log_fallback("Lambda Managed Instances do not freeze, and admit no internal extension")
        return None
    if not inspect.isbuiltin(_thread.start_new_thread):
        # AWS's runtime waits for events in C code, which never lets a green thread ask for its own.
        _log_fallback("threads are patched here (gevent, eventlet)")
        return None
    extension = Extension(address)
    try:
        extension.register()
    except ExtensionRefused as refused:
        _log_fallback(f"Lambda refused the extension ({refused}). {_ADVICE}")
    except (OSError, RuntimeError) as error:
        _log_fallback(f"the extension could not be registered ({type(error).__name__})")
    else:
        return extension
    return None


def _is_managed() -> bool:
    kind = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE")
    return kind == "lambda-managed-instances" or bool(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY"))


_ADVICE = "Decorate the handler at module level, so that it happens while the function initialises"


def _log_fallback(why: str) -> None:
    log.warning(
        "deliver='after_response' is not possible here: %s; events are flushed before each "
        "response instead",
        why,
    )
