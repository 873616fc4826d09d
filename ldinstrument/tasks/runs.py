"""One run of a task: clock, outcome, extractors, and handing it to the session it began in.

Nothing here raises into the host, and what a garbage-collected generator calls takes no lock and
emits nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..callables.streams import plain_awaited_types, plain_types, settled, settled_awaited
from ..diagnostics import guard, warn_user_code
from ..errors import StrictError
from ..metrics.catalogs import catalog
from ..metrics.metric import Metric
from ..sessions.clock import clock
from ..sessions.contexts import as_context, is_function
from ..sessions.current import current_session
from ..sessions.outcomes import Outcome, current_task, is_cancelling, is_closing, outcome_of
from ..sessions.postponed import postpone
from ..sessions.task_definition import TaskDefinition
from ..sessions.unattached import count_unattached, pending_from_finalizers, unattached_runs_of
from ..sessions.validation import copied
from ..settings import disabled
from .deadlines import Deadline, deadline_of
from .options import PLAIN, Extractor, TaskOptions

if TYPE_CHECKING:
    from ..sessions.session import Session

_MISSING = object()


class Run:
    """One run of a task, watched from its start to its end; what `with track_task("key") as run`
    gives.
    """

    __slots__ = (
        "_args",
        "_consumer",
        "_data",
        "_deadline",
        "_failure",
        "_first",
        "_kwargs",
        "_options",
        "_over",
        "_session",
        "_started",
        "_task",
        "outcome",
        "plain_data",
    )

    # A task only reads the session: between a stream's first item and its end there is nothing to
    # do, so a `yield from` may take over.
    delegates = True

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
        # How it ended, once it has; and data that a finalizer may send as they are.
        self.outcome: Outcome | None = None
        self.plain_data: dict[str, Any] | None = None
        self._deadline: Deadline | None = None
        if options.within is not None and (session is not None or options.context is not None):
            self._deadline = deadline_of(options.within, started, self._missed)

    # -- what a `with` block may say ---------------------------------------------------------------
    def fail(self, reason: str = "") -> None:
        """Say that the task failed although nothing is raised; *reason* goes into the data."""
        self._failure = ""
        with guard("task"):
            self._failure = str(reason)

    def add_data(self, **data: Any) -> None:
        """Add to the data of this run's events."""
        self._data = {**(self._data or {}), **data}

    def describe(self, values: Mapping[str, Any]) -> None:
        """Tell whoever observes the run what a model call used; nobody does."""

    # -- the watcher -------------------------------------------------------------------------------
    def resume(self) -> None:
        """Do nothing: a task only reads the session."""

    def pause(self) -> None:
        """Do nothing: a task only reads the session."""

    def consumed_by(self, task: Any) -> None:
        """Note the asyncio task that consumes the stream, which may be cancelled later."""
        self._consumer = task

    def first(self) -> None:
        """Note the first item of a stream; who asked for it is its consumer."""
        self._first = clock()
        self.consumed_by(current_task())
        if self._session is not None:
            with guard("task"):
                self._record_first(self._session)

    def unstarted(self) -> None:
        """End without a record: it never began to run."""
        self._over = True
        self._decide()

    def returned(self, result: Any) -> None:
        """End the run, which returned *result*."""
        if self._over:
            return
        ended, self._over = clock(), True
        with guard("task"):
            self.outcome = self._outcome(result)
            self._deliver(self.outcome, ended, result)

    def raised(self, error: BaseException) -> None:
        """End the run, out of which *error* came: whatever fails here, it is *error* that the host
        must see.
        """
        if self._over:
            return
        ended, self._over = clock(), True
        with guard("task", strict=False):
            outcome = outcome_of(error, self._options.expected)
            if outcome is Outcome.ABANDONED and is_cancelling(self._consumer):
                outcome = Outcome.CANCELLED
            self._consumer, self.outcome = None, outcome
            if is_closing(error):
                self._deliver_quietly(outcome, ended)
            else:
                self._deliver(outcome, ended, _MISSING)

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
        data = self._run_data(result)
        session.append((self._task, outcome, self._started, ended, data))
        self._record_within(session, outcome, ended, data)
        if self._options.record and result is not _MISSING:
            for key, extractor in self._options.record.items():
                self._record(session, key, extractor, result)

    def _deliver_alone(self, outcome: Outcome, ended: float, result: Any) -> None:
        """Hand it to a session of this one task, of `context=`; it has no `session.*` metrics."""
        if disabled():
            return
        own = self._own_session()
        if self._first is not None:
            self._record_first(own)
        self._hand_over(own, outcome, ended, result)
        own.end()

    def _deliver_quietly(self, outcome: Outcome, ended: float) -> None:
        """Append, and nothing more: the consumer had enough, or the garbage collector struck."""
        if self._session is not None:
            session = self._session
            session.append_from_finalizer(
                (self._task, outcome, self._started, ended, self.plain_data)
            )
            if self._deadline is not None:
                postpone(lambda: self._record_within(session, outcome, ended, None))
        elif self._options.context is None:
            pending_from_finalizers.append((self._task, outcome))
        else:
            postpone(lambda: self._deliver_alone(outcome, ended, _MISSING))

    def _own_session(self) -> Session:
        from ..sessions.scopes import open_session  # late: a decorated function needs no session

        return open_session(self._who(), name="task", silent=True)

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
            extracted = self._extracted("data", self._told_data, result)
            if extracted is not _MISSING:
                data.update(extracted)
        return copied(data, self._task.key) if data else None

    def _told_data(self, result: Any) -> Mapping[str, Any]:
        assert self._options.data is not None
        told = self._options.data(result)
        if told is not None and not isinstance(told, Mapping):
            copied(told, self._task.key)  # says what is wrong with it
            return {}
        return {} if told is None else dict(told)

    def _record(self, session: Session, key: Any, extractor: Extractor, result: Any) -> None:
        value = self._extracted(f"record[{_name(key)!r}]", extractor, result)
        if value is _MISSING or value is None:
            return
        if type(value) is bool and _takes_no_value(key):
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
        except (KeyboardInterrupt, StrictError):  # the user's, not the extractor's
            raise
        except BaseException as error:
            warn_user_code(f"{what}= of task {self._task.key}", error, "that value is left out")
            return _MISSING

    # -- within= -----------------------------------------------------------------------------------
    def _decide(self) -> bool:
        """Take the decision of `within=`; False when there is none, or the time took it."""
        return self._deadline is not None and self._deadline.decide()

    def _record_within(
        self, session: Session, outcome: Outcome, ended: float, data: dict[str, Any] | None
    ) -> None:
        """Record 1 for a run that succeeded in time, else 0, unless its time had passed before."""
        if self._decide() and outcome is not Outcome.SUSPENDED:
            within = self._options.within
            assert within is not None
            good = outcome is Outcome.SUCCESS and ended - self._started <= within
            session.record(f"{self._task.key}.within", 1.0 if good else 0.0, data=data)

    def _missed(self) -> None:
        """Record 0 at once, on the thread of the deadlines: the time has passed, the run is
        open.
        """
        with guard("within", strict=False):
            session = self._session
            if session is not None:
                session.record(f"{self._task.key}.within", 0.0)
                session.fold_up()  # a run that hangs would keep it for ever
            elif self._options.context is not None and not disabled():
                own = self._own_session()
                own.record(f"{self._task.key}.within", 0.0)
                own.end()

    def __repr__(self) -> str:
        return f"<Run of {self._task.key or 'an interaction'}{', over' if self._over else ''}>"


class ObservedRun(Run):
    """A run that somebody observes: it is told of each resume, so that its span can be current."""

    __slots__ = ("_described", "_observer")

    delegates = False

    def __init__(
        self,
        task: TaskDefinition,
        options: TaskOptions,
        session: Session | None,
        started: float,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(task, options, session, started, args, kwargs)
        assert session is not None
        assert session.observer is not None
        self._described: Mapping[str, Any] = {}
        self._observer = session.observer.begin_run(session, task.key)
        self.add_data(**self._observer.data)

    def describe(self, values: Mapping[str, Any]) -> None:
        """Note what a model call used."""
        self._described = values

    def resume(self) -> None:
        """Note that the user's code is about to run."""
        self._observer.resume()

    def pause(self) -> None:
        """Note that the user's code has stopped."""
        self._observer.pause()

    def unstarted(self) -> None:
        """End without a record."""
        super().unstarted()
        self._observer.ended(None, None, {}, later=True)

    def returned(self, result: Any) -> None:
        """End the run, which returned *result*."""
        if not self._over:
            super().returned(result)
            self._observer.ended(self.outcome, None, self._described, later=False)

    def raised(self, error: BaseException) -> None:
        """End the run, out of which *error* came."""
        if not self._over:
            super().raised(error)
            later = is_closing(error)
            self._observer.ended(self.outcome, error, self._described, later=later)


def _name(key: Any) -> str:
    return key.key if isinstance(key, Metric) else str(key)


def _takes_no_value(key: Any) -> bool:
    """Tell whether True means that it happened: for an occurrence, and for an undeclared key."""
    metric = key if isinstance(key, Metric) else catalog.get(key)
    return metric is None or metric.measure == "occurrence"


# -- what the compiled wrappers of plain tasks ask for where a call is not the common one ----------


def plain_returned(task: TaskDefinition, session: Session | None, started: float) -> None:
    """End a run of a task without options, which returned."""
    ended = clock()
    if session is None:
        count_unattached(task)
    else:
        session.append((task, Outcome.SUCCESS, started, ended, None))


def plain_raised(
    task: TaskDefinition, session: Session | None, started: float, error: BaseException
) -> None:
    """End a run of a task without options, out of which *error* came. Never raises."""
    with guard("task", strict=False):
        Run(task, PLAIN, session, started).raised(error)


def plain_run(task: TaskDefinition, session: Session | None, started: float) -> Run:
    """Return the run of a task without options: its result is still running, or its type new."""
    return begin_run(task, PLAIN, session, started if session is not None else clock())


class RareCases:
    """What a compiled wrapper of a plain task asks for where a call is not the common one.

    It pickles as that of the same task on the other side.

    Args:
        task: whose runs they are.
        awaited: what comes back is the result of an `await`.
    """

    __slots__ = ("_awaited", "_task", "plain_types", "refill", "settle", "take", "usual_type")

    BaseException = BaseException
    IndexError = IndexError
    tuple = tuple
    open_session = staticmethod(current_session)
    raised = staticmethod(plain_raised)
    returned = staticmethod(plain_returned)
    run = staticmethod(plain_run)

    def __init__(self, task: TaskDefinition, awaited: bool) -> None:
        self._task = task
        self._awaited = awaited
        self.plain_types = plain_awaited_types if awaited else plain_types
        # The latest plain type that came back; never `tuple`, which ceases to be plain with Flask.
        self.usual_type: type = type(None)
        self.settle = settled_awaited if awaited else settled
        unattached = unattached_runs_of(task)
        self.take, self.refill = unattached.take, unattached.refill

    def __reduce__(self) -> Any:
        return RareCases, (self._task, self._awaited)


def begin_run(
    task: TaskDefinition,
    options: TaskOptions,
    session: Session | None,
    started: float,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Run:
    """Return a run that began at *started*: an observed one in a session that is observed."""
    observed = session is not None and session.observer is not None
    return (ObservedRun if observed else Run)(task, options, session, started, args, kwargs)


def beginning(task: TaskDefinition, options: TaskOptions) -> Callable[..., Run]:
    """Return a function that begins a run of *task*, given the call's arguments when `context=` is
    a callable.
    """
    return functools.partial(_begun, task, options)


def _begun(task: TaskDefinition, options: TaskOptions, args: Any = (), kwargs: Any = None) -> Run:
    return begin_run(task, options, current_session(), clock(), args, kwargs)
