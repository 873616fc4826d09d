"""One run of a task: clock, outcome, extractors, and handing it to the session it began in.

Nothing here raises into the host, and what a garbage-collected generator calls takes no lock and
emits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..callables.streams import settled, settled_awaited
from ..diagnostics import log_internal_error, warn_user_code
from ..errors import StrictError
from ..metrics.catalogs import catalog
from ..metrics.metric import Metric
from ..sessions.accumulator import clock
from ..sessions.contexts import as_context, is_function
from ..sessions.current import current_session, open_session
from ..sessions.emission import postpone
from ..sessions.outcomes import (
    Outcome,
    TaskDefinition,
    current_task,
    is_cancelling,
    is_closing,
    outcome_of,
)
from ..sessions.session import Session
from ..sessions.unattached import count_unattached, pending_from_finalizers
from ..sessions.validation import copied
from ..settings import disabled

Extractor = Callable[[Any], Any]

_MISSING = object()


@dataclass(frozen=True, slots=True, eq=False)
class TaskOptions:
    """What was asked of one task beside its key; extractors are isolated: a failing one costs its
    own value.
    """

    success: Extractor | None = None
    expected: tuple[type[BaseException], ...] = ()
    data: Extractor | None = None
    record: Mapping[Any, Extractor] | None = None
    context: Any = None

    @property
    def plain(self) -> bool:
        """Whether nothing but clock and outcome is wanted."""
        return not (
            self.success or self.expected or self.data or self.record or self.context is not None
        )


class Run:
    """One run of a task, watched from its start to its end. `with track_task("key") as run` gives
    it to you.
    """

    __slots__ = ("_args", "_consumer", "_data", "_failure", "_first", "_kwargs", "_options", "_over", "_session",
                 "_started", "_task")  # fmt: skip

    delegates = True  # a task only reads the session, so between its first item and its end there is nothing to do

    def __init__(
        self,
        task: TaskDefinition,
        options: TaskOptions,
        session: Session | None,
        started: float,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._task = task
        self._options = options
        self._session = session
        self._args = args
        self._kwargs = kwargs or {}
        self._failure: str | None = None
        self._data: dict[str, Any] | None = None
        self._first: float | None = None
        self._consumer: Any = None
        self._over = False
        self._started = started

    # -- what a `with` block may say ---------------------------------------------------------------
    def fail(self, reason: str = "") -> None:
        """Say that the task failed although nothing is raised; *reason* goes into the data."""
        self._failure = str(reason)

    def add_data(self, **data: Any) -> None:
        """Add to the data of this run's events."""
        self._data = {**(self._data or {}), **data}

    # -- the watcher -------------------------------------------------------------------------------
    def resume(self) -> None:
        """A task only reads the session: nothing to swap."""

    def pause(self) -> None:
        """A task only reads the session: nothing to swap."""

    def first(self) -> None:
        """The first item of a stream is there; who asked for it is its consumer, who may be
        cancelled later.
        """
        self._first = clock()
        self._consumer = current_task()
        if self._session is not None:
            _isolated(self._record_first, self._session)

    def unstarted(self) -> None:
        """It never began to run: nothing is recorded."""
        self._over = True

    def returned(self, result: Any) -> None:
        """The run is over, and returned *result*."""
        if not self._over:
            ended, self._over = clock(), True
            _isolated(self._deliver, self._outcome(result), ended, result)

    def raised(self, error: BaseException) -> None:
        """The run is over: *error* came out."""
        if self._over:
            return
        ended, self._over = clock(), True
        try:
            outcome = outcome_of(error, self._options.expected)
            if outcome is Outcome.ABANDONED and is_cancelling(self._consumer):
                outcome = Outcome.CANCELLED
            self._consumer = None
            if is_closing(error):
                self._deliver_quietly(outcome, ended)
            else:
                self._deliver(outcome, ended, _MISSING)
        except (
            Exception
        ) as failure:  # StrictError, too: the host's exception is the one that must come out
            _failed("task", failure)

    # -- how it ended ------------------------------------------------------------------------------
    def _outcome(self, result: Any) -> Outcome:
        if self._failure is not None:
            return Outcome.FAILURE
        if self._options.success is None:
            return Outcome.SUCCESS
        told = self._extracted("success", self._told, result)
        return Outcome.SUCCESS if told is _MISSING else told

    def _told(self, result: Any) -> Outcome:
        assert self._options.success is not None
        told = self._options.success(result)
        if isinstance(told, Outcome):
            return told
        if hasattr(told, "__await__"):
            raise TypeError(
                "success= returned an awaitable; it must be a plain function of the result"
            )
        return Outcome.SUCCESS if told else Outcome.FAILURE

    # -- handing it to the session -----------------------------------------------------------------
    def _deliver(self, outcome: Outcome, ended: float, result: Any) -> None:
        if self._session is not None:
            self._hand_over(self._session, outcome, ended, result)
        elif self._options.context is not None:
            self._deliver_alone(outcome, ended, result)
        else:
            count_unattached(self._task, outcome)

    def _hand_over(self, session: Session, outcome: Outcome, ended: float, result: Any) -> None:
        session.append((self._task, outcome, self._started, ended, self._run_data(result)))
        if self._options.record and result is not _MISSING:
            for key, extractor in self._options.record.items():
                self._record(session, key, extractor, result)

    def _deliver_alone(self, outcome: Outcome, ended: float, result: Any) -> None:
        """Without a session, `context=` makes one of this one task; it has no `session.*`
        metrics.
        """
        if disabled():
            return
        own = open_session(self._who(), name="task", silent=True)
        if self._first is not None:
            self._record_first(own)
        self._hand_over(own, outcome, ended, result)
        own.end()

    def _deliver_quietly(self, outcome: Outcome, ended: float) -> None:
        """The consumer had enough, or the garbage collector struck: append, and nothing more."""
        if self._session is not None:
            self._session.append_from_finalizer((self._task, outcome, self._started, ended, None))
        elif self._options.context is None:
            pending_from_finalizers.append(
                self._task if outcome.finished else self._task.unfinished
            )
        elif self._first is not None or outcome.finished:
            postpone(lambda: self._deliver_alone(outcome, ended, _MISSING))

    def _who(self) -> Any:
        who = self._options.context
        if is_function(who):
            try:
                who = who(*self._args, **self._kwargs)
            except Exception as error:
                warn_user_code(
                    f"context= of task {self._task.key}", error, "its runs have no identity"
                )
                return None
        return as_context(who)

    def _run_data(self, result: Any) -> dict[str, Any] | None:
        data = dict(self._data) if self._data else {}
        if self._failure:
            data["reason"] = self._failure
        if self._options.data is not None and result is not _MISSING:
            extracted = self._extracted("data", self._options.data, result)
            if isinstance(extracted, Mapping):
                data.update(extracted)
            elif extracted is not None and extracted is not _MISSING:
                copied(extracted, self._task.key)  # says what is wrong with it
        return copied(data, self._task.key) if data else None

    def _record(self, session: Session, key: Any, extractor: Extractor, result: Any) -> None:
        value = self._extracted(f"record[{_name(key)!r}]", extractor, result)
        if value is _MISSING or value is None:
            return
        if isinstance(value, bool) and _takes_no_value(key):
            if value:
                session.record(key)
        else:
            session.record(key, value)

    def _record_first(self, session: Session) -> None:
        if self._first is not None and "time_to_first_item" in self._task.metrics:
            session.record(
                f"{self._task.key}.time_to_first_item", (self._first - self._started) * 1000
            )

    def _extracted(self, what: str, extractor: Extractor, result: Any) -> Any:
        try:
            return extractor(result)
        except KeyboardInterrupt:  # the user's, not the extractor's
            raise
        except BaseException as error:
            warn_user_code(f"{what}= of task {self._task.key}", error, "that value is left out")
            return _MISSING

    def __repr__(self) -> str:
        return f"<Run of {self._task.key or 'an interaction'}{', over' if self._over else ''}>"


def _name(key: Any) -> str:
    return key.key if isinstance(key, Metric) else str(key)


def _takes_no_value(key: Any) -> bool:
    """Whether True means that it happened: for an occurrence, and for what nobody declared."""
    metric = key if isinstance(key, Metric) else catalog.get(key)
    return metric is None or metric.measure == "occurrence"


def _isolated(work: Callable[..., None], *args: Any) -> None:
    try:
        work(*args)
    except StrictError:
        raise
    except Exception as error:
        _failed("task", error)


def _failed(where: str, error: BaseException) -> None:
    try:
        log_internal_error(where, error)
    except Exception:  # noqa: S110 - a recursion at its limit, or a broken log handler: the host comes first
        pass


# -- what the templates of plain tasks call off their fast path ------------------------------------


def plain_returned(task: TaskDefinition, session: Session | None, started: float) -> None:
    """A run of a task without options is over, and returned."""
    ended = clock()
    if session is None:
        count_unattached(task)
    else:
        session.append((task, Outcome.SUCCESS, started, ended, None))


def plain_raised(
    task: TaskDefinition, session: Session | None, started: float, error: BaseException
) -> None:
    """A run of a task without options is over: *error* came out. Never raises."""
    try:
        Run(task, PLAIN, session, started).raised(error)
    except Exception as failure:
        _failed("task", failure)


def plain_followed(
    task: TaskDefinition, session: Session | None, started: float, result: Any
) -> Any:
    """*result* is still running, or its type was never seen before."""
    run = Run(task, PLAIN, session, started if session is not None else clock())
    return settled(result, run)


def plain_followed_awaited(
    task: TaskDefinition, session: Session | None, started: float, result: Any
) -> Any:
    """What a coroutine function returned is a stream, or its type was never seen before."""
    return settled_awaited(result, Run(task, PLAIN, session, started))


def beginning(task: TaskDefinition, options: TaskOptions) -> Callable[..., Run]:
    """A function that begins a run of *task*, given the call's arguments when `context=` is a
    callable.
    """

    def begin(args: Any = (), kwargs: Any = None) -> Run:
        return Run(task, options, current_session(), clock(), args, kwargs)

    return begin


PLAIN = TaskOptions()
