"""`track_task` and `track_interaction`: how long a call took and how it ended, for every kind of callable.

The decorator only reads the session; it never sets a `ContextVar`, so generators may be resumed anywhere. Each kind of
function has a closure of its own shape, because the hot path is what the host pays: two clock reads, one look at the
ContextVar, one append.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

from .contexts import as_context
from .data import copied
from .decorating import rebuilt
from .emission import disabled
from .errors import DefinitionError, StrictError
from .following import follow, followers
from .following import async_generator as watched_async_generator
from .following import generator as watched_generator
from .ledger import ledger
from .metrics import TASK_METRICS, Metric, catalog, check_key, task_metrics
from .outcomes import Outcome, TaskDefinition, outcome_of
from .sessions import Session, _current, clock, count_strays, open_session, strays

P = ParamSpec("P")
R = TypeVar("R")
Extractor = Callable[[Any], Any]

STRAYS_AT = 1024
_REFUSED_KEYS = ("session", "task")
_MISSING = object()


@dataclass(frozen=True, slots=True, eq=False)
class TaskOptions:
    """What was asked of one task beside its key; extractors are isolated: a failing one costs its own value."""

    success: Extractor | None = None
    expected: tuple[type[BaseException], ...] = ()
    data: Extractor | None = None
    record: Mapping[str, Extractor] | None = None
    context: Any = None

    @property
    def plain(self) -> bool:
        """Whether nothing but clock and outcome is wanted."""
        return not (self.success or self.expected or self.data or self.record or self.context is not None)


# -- one run ---------------------------------------------------------------------------------------


class Run:
    """One run of a task: watched from its start to its end, received by the session it began in."""

    __slots__ = ("_data", "_failure", "_first", "_over", "args", "kwargs", "options", "session", "started", "task")

    def __init__(
        self, task: TaskDefinition, options: TaskOptions, session: Session | None, args: Any = (), kwargs: Any = None
    ) -> None:
        self.task = task
        self.options = options
        self.session = session
        self.args = args
        self.kwargs = kwargs or {}
        self._failure: str | None = None
        self._data: dict[str, Any] = {}
        self._first: float | None = None
        self._over = False
        self.started = clock()

    # -- what a `with` block may say ---------------------------------------------------------------
    def fail(self, reason: str = "") -> None:
        """Say that the task failed although nothing is raised; *reason* goes into the data."""
        self._failure = str(reason)

    def add_data(self, **data: Any) -> None:
        """Add to the data of this run's events."""
        self._data.update(data)

    # -- the watcher -------------------------------------------------------------------------------
    def resume(self) -> None:
        """A task only reads the session: nothing to swap."""

    def pause(self) -> None:
        """A task only reads the session: nothing to swap."""

    def first(self) -> None:
        """Note when the first item of a stream came."""
        self._first = clock()

    def returned(self, result: Any) -> None:
        """The run is over, and returned."""
        if self._over:
            return
        ended, self._over = clock(), True
        outcome = Outcome.SUCCESS
        if self._failure is not None:
            outcome = Outcome.FAILURE
        elif self.options.success is not None:
            told = self._extracted("success", self.options.success, result)
            if told is not _MISSING:
                outcome = _outcome_told(told)
        self._deliver(outcome, ended, result)

    def raised(self, error: BaseException) -> None:
        """The run is over: *error* came out."""
        if self._over:
            return
        ended, self._over = clock(), True
        try:
            outcome = outcome_of(error, self.options.expected)
            if isinstance(error, GeneratorExit):
                self._deliver_quietly(outcome, ended)
            else:
                self._deliver(outcome, ended, _MISSING)
        except Exception as failure:  # StrictError, too: the host's exception is the one that must come out
            ledger.failure("task", failure)

    # -- handing it to the session -------------------------------------------------------------------
    def _deliver(self, outcome: Outcome, ended: float, result: Any) -> None:
        session, own = self.session, False
        try:
            if session is None:
                session, own = self._own_session(), True
            if session is None:
                stray(self.task)
                return
            session._append((self.task, outcome, self.started, ended, self._run_data(outcome, result)))
            self._record_extras(session, result)
            if own:
                session.end()
        except StrictError:
            raise
        except Exception as error:
            ledger.failure("task", error)

    def _deliver_quietly(self, outcome: Outcome, ended: float) -> None:
        """The consumer had enough, or the garbage collector struck: append, and nothing more."""
        if self.session is None:
            strays.append(self.task)
        else:
            self.session._append_quietly((self.task, outcome, self.started, ended, None))

    def _own_session(self) -> Session | None:
        """The one-task session that a `context=` extractor makes when there is no session."""
        if self.options.context is None:
            return None
        who = self.options.context
        if callable(who):
            try:
                who = who(*self.args, **self.kwargs)
            except Exception as error:
                ledger.failure("context extractor", error)
                who = None
        return open_session(as_context(who), name="task", silent=True)

    def _run_data(self, outcome: Outcome, result: Any) -> dict[str, Any] | None:
        data = dict(self._data)
        if self._failure:
            data["reason"] = self._failure
        if self.options.data is not None and result is not _MISSING:
            extracted = self._extracted("data", self.options.data, result)
            if isinstance(extracted, Mapping):
                data.update(extracted)
        return copied(data, self.task.key) if data else None

    def _record_extras(self, session: Session, result: Any) -> None:
        if self._first is not None and "time_to_first_item" in self.task.metrics:
            session.record(f"{self.task.key}.time_to_first_item", (self._first - self.started) * 1000)
        if self.options.record and result is not _MISSING:
            for key, extractor in self.options.record.items():
                value = self._extracted(f"record[{key!r}]", extractor, result)
                if value is not _MISSING and value is not None:
                    session.record(key, None if value is True and _is_occurrence(key) else value)

    def _extracted(self, what: str, extractor: Extractor, result: Any) -> Any:
        try:
            return extractor(result)
        except Exception as error:
            ledger.failure(f"{what} of task {self.task.key}", error)
            return _MISSING


def _is_occurrence(key: str) -> bool:
    metric = catalog.get(key)
    return metric is not None and metric.measure == "occurrence"


def _outcome_told(told: Any) -> Outcome:
    if isinstance(told, Outcome):
        return told
    return Outcome.SUCCESS if told else Outcome.FAILURE


def stray(task: TaskDefinition) -> None:
    """Note a run that no session receives; counted and said when the list is folded."""
    strays.append(task)
    if len(strays) >= STRAYS_AT:
        count_strays()


# -- the closures ------------------------------------------------------------------------------------


def _open_session() -> Session | None:
    found = _current.get()
    while found is not None and found._ended:
        found = found._outer
    return found


def _plain_function(fn: Callable[..., Any], task: TaskDefinition, options: TaskOptions) -> Callable[..., Any]:
    get, now, success = _current.get, clock, Outcome.SUCCESS
    if not options.plain:
        return _function(fn, task, options)

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        session = get()
        if session is None:
            return _without_session(fn, task, options, args, kwargs)
        if session._ended:
            session = _open_session()
        started = now()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            _raised(task, options, session, started, error)
            raise
        if followers.get(type(result), _MISSING) is not None:
            return _followed(task, options, session, started, result)
        if session is None:
            stray(task)
            return result
        entries = session._entries
        entries.append((task, success, started, now(), None))
        if len(entries) >= session._fold_at:
            session._fold_up()
        return result

    return run


def _without_session(fn: Any, task: TaskDefinition, options: TaskOptions, args: Any, kwargs: Any) -> Any:
    strays.append(task)
    result = fn(*args, **kwargs)
    if len(strays) >= STRAYS_AT:
        count_strays()
    return result


def _raised(
    task: TaskDefinition, options: TaskOptions, session: Session | None, started: float, error: BaseException
) -> None:
    run = Run(task, options, session)
    run.started = started
    run.raised(error)


def _followed(task: TaskDefinition, options: TaskOptions, session: Session | None, started: float, result: Any) -> Any:
    """*result* is still running, or its type was never seen before."""
    run = Run(task, options, session)
    run.started = started
    running = follow(result, run)
    if running is not None:
        return running
    run.returned(result)
    return result


def _function(fn: Callable[..., Any], task: TaskDefinition, options: TaskOptions) -> Callable[..., Any]:
    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        watched = Run(task, options, _open_session(), args, kwargs)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            watched.raised(error)
            raise
        running = follow(result, watched)
        if running is not None:
            return running
        watched.returned(result)
        return result

    return run


def _coroutine_function(fn: Callable[..., Any], task: TaskDefinition, options: TaskOptions) -> Callable[..., Any]:
    get, now, success = _current.get, clock, Outcome.SUCCESS
    plain = options.plain

    @functools.wraps(fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        session = get()
        if not plain or session is None or session._ended:
            return await _awaited(fn, task, options, args, kwargs)
        started = now()
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            _raised(task, options, session, started, error)
            raise
        entries = session._entries
        entries.append((task, success, started, now(), None))
        if len(entries) >= session._fold_at:
            session._fold_up()
        return result

    return run


async def _awaited(fn: Any, task: TaskDefinition, options: TaskOptions, args: Any, kwargs: Any) -> Any:
    watched = Run(task, options, _open_session(), args, kwargs)
    try:
        result = await fn(*args, **kwargs)
    except BaseException as error:
        watched.raised(error)
        raise
    watched.returned(result)
    return result


def _generator_function(fn: Callable[..., Any], task: TaskDefinition, options: TaskOptions) -> Callable[..., Any]:
    wants_first = "time_to_first_item" in task.metrics

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        watched = Run(task, options, _open_session(), args, kwargs)
        if wants_first:
            return (yield from watched_generator(fn(*args, **kwargs), watched))
        try:
            result = yield from fn(*args, **kwargs)
        except BaseException as error:
            watched.raised(error)
            raise
        watched.returned(result)
        return result

    return run


def _async_generator_function(fn: Callable[..., Any], task: TaskDefinition, options: TaskOptions) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        watched = Run(task, options, _open_session(), args, kwargs)
        inner = fn(*args, **kwargs)
        step = inner.__anext__
        try:
            while True:
                item = await step()
                if watched._first is None:
                    watched.first()
                try:
                    sent = yield item
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:
                    step = functools.partial(inner.athrow, error)
                else:
                    step = inner.__anext__ if sent is None else functools.partial(inner.asend, sent)
        except StopAsyncIteration:
            watched.returned(None)
        except BaseException as error:
            watched.raised(error)
            raise

    return run


def _wrapped(fn: Callable[..., Any], task: TaskDefinition, options: TaskOptions) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(fn):
        return _coroutine_function(fn, task, options)
    if inspect.isgeneratorfunction(fn):
        return _generator_function(fn, task, options)
    if inspect.isasyncgenfunction(fn):
        return _async_generator_function(fn, task, options)
    return _plain_function(fn, task, options)


# -- definition ----------------------------------------------------------------------------------------


class TaskScope:
    """What `track_task("key", ...)` returns: a decorator, or a `with` / `async with` block. Reusable."""

    def __init__(self, key: str | None, interaction: bool, options: TaskOptions, metrics: tuple[str, ...]) -> None:
        self._key = key
        self._interaction = interaction
        self._options = options
        self._metrics = metrics
        self._runs: dict[tuple[int, int], list[Run]] = {}
        self._task: TaskDefinition | None = None
        if key is not None:
            _checked_task_key(key)
            self._task = _define(key, interaction, metrics)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate *fn*."""
        return rebuilt(fn, self._wrap, "track_task")

    def _wrap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        task = self._task or _define(_key_of(fn), self._interaction, self._metrics)
        _note_function(task.key, fn)
        return _wrapped(fn, task, self._options)

    def __enter__(self) -> Run:
        if self._task is None:
            raise DefinitionError("track_task: a with block needs a key: with track_task('rerank') as task:")
        run = Run(self._task, self._options, _open_session())
        self._runs.setdefault(_where(), []).append(run)
        return run

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        here = _where()
        stack = self._runs.get(here)
        if not stack:  # entered in one thread or task, left in another
            here, stack = next(((place, runs) for place, runs in self._runs.items() if runs), (here, None))
        if not stack:
            return
        run = stack.pop()
        if not stack:
            self._runs.pop(here, None)
        if error is None:
            run.returned(None)
        else:
            run.raised(error)

    async def __aenter__(self) -> Run:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.__exit__(kind, error, traceback)

    def __reduce__(self) -> Any:
        return TaskScope, (self._key, self._interaction, self._options, self._metrics)


def _where() -> tuple[int, int]:
    """This thread and this asyncio task: one scope object may be entered by many of them at once."""
    asyncio = sys.modules.get("asyncio")
    task = None
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
    return threading.get_ident(), id(task) if task is not None else 0


def _define(key: str, interaction: bool, which: tuple[str, ...]) -> TaskDefinition:
    metrics = task_metrics(key, which)
    for metric in metrics.values():
        known = catalog.get(metric.key)
        if known is None:
            catalog.add(metric)
    return TaskDefinition(key, interaction, {suffix: metric.event for suffix, metric in metrics.items()})


def _checked_task_key(key: str) -> None:
    check_key("track_task", key)
    if key in _REFUSED_KEYS:
        raise DefinitionError(
            f"track_task {key!r}: key: {key}.success_rate is LaunchDarkly's recipe's own metric; choose another key"
        )


def _key_of(fn: Any) -> str:
    name = getattr(fn, "__name__", "")
    if not name or name == "<lambda>" or fn.__module__ == "ldinstrument.decorating":
        raise DefinitionError(
            "track_task: a lambda, partial or callable object has no name to make a key of; "
            "give one: track_task('checkout.total')(...)"
        )
    key = f"task.{name}"
    _checked_task_key(key)
    return key


_functions: dict[str, str] = {}


def _note_function(key: str, fn: Any) -> None:
    """Say it when two functions share one key: their numbers would be one metric."""
    place = f"{fn.__module__}.{fn.__qualname__}"
    known = _functions.setdefault(key, place)
    if known != place:
        warnings.warn(
            f"track_task {key!r}: both {known} and {place} use this key, so their runs are one metric; "
            "give one of them a key of its own",
            UserWarning,
            stacklevel=_depth(),
        )


def forget_functions() -> None:
    """Forget which function used which key (tests)."""
    _functions.clear()


def _depth() -> int:
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame, depth = frame.f_back, depth + 1
    return depth - 1


def _options(
    success: Extractor | None, expected: Any, data: Extractor | None, record: Mapping[str, Extractor] | None, context: Any
) -> TaskOptions:
    for field, extractor in (("success", success), ("data", data), *(record or {}).items()):
        if extractor is not None and not callable(extractor):
            raise DefinitionError(f"track_task: {field}: give a function of the result, not {extractor!r:.60}")
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise DefinitionError("track_task: expected: give exception classes, such as expected=(NotFound,)")
    return TaskOptions(success, kinds, data, dict(record) if record else None, context)


def _metric_names(metrics: Iterable[str]) -> tuple[str, ...]:
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [name for name in names if name not in TASK_METRICS]
    if unknown:
        raise DefinitionError(f"track_task: metrics: {unknown[0]!r} is not one of {', '.join(TASK_METRICS)}")
    return names


@overload
def track_task(target: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def track_task(
    target: str | None = None,
    /,
    *,
    success: Extractor | None = None,
    expected: type[BaseException] | tuple[type[BaseException], ...] = (),
    data: Extractor | None = None,
    record: Mapping[str, Extractor] | None = None,
    metrics: Iterable[str] = ("success_rate", "duration"),
    context: Any = None,
) -> TaskScope: ...


def track_task(
    target: Any = None,
    /,
    *,
    success: Extractor | None = None,
    expected: Any = (),
    data: Extractor | None = None,
    record: Mapping[str, Extractor] | None = None,
    metrics: Iterable[str] = ("success_rate", "duration"),
    context: Any = None,
) -> Any:
    """Measure a function, or a `with` block: `<key>.success_rate` (1 or 0) and `<key>.duration` (milliseconds).

    `@track_task`, `@track_task("retrieve", ...)`, `with track_task("rerank") as task: task.fail("empty")`.

    Args:
        target: the key, or the function itself, whose key then is `task.<name>`.
        success: a function of the result: truthy means success; an `Outcome` is taken as it is.
        expected: exceptions that are a success of the task all the same.
        data: a function of the result that returns the data of this run's events.
        record: more metrics, each from a function of the result; None records nothing.
        metrics: which of `success_rate`, `duration`, `time_to_first_item` (streams) to feed.
        context: whose run it is when there is no session: a context, a key, or a callable given the function's own
            arguments.

    Raises:
        DefinitionError: at definition, for a key that cannot be one, a class, a nameless function without a key.
    """
    return _tracked(target, False, _options(success, expected, data, record, context), _metric_names(metrics))


@overload
def track_interaction(target: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def track_interaction(
    target: str | None = None,
    /,
    *,
    success: Extractor | None = None,
    expected: type[BaseException] | tuple[type[BaseException], ...] = (),
    data: Extractor | None = None,
    record: Mapping[str, Extractor] | None = None,
    metrics: Iterable[str] = ("success_rate", "duration"),
    context: Any = None,
) -> TaskScope: ...


def track_interaction(
    target: Any = None,
    /,
    *,
    success: Extractor | None = None,
    expected: Any = (),
    data: Extractor | None = None,
    record: Mapping[str, Extractor] | None = None,
    metrics: Iterable[str] = ("success_rate", "duration"),
    context: Any = None,
) -> Any:
    """`track_task` for what the user sees as one interaction: its runs also count in the session's success rate."""
    return _tracked(target, True, _options(success, expected, data, record, context), _metric_names(metrics))


def _tracked(target: Any, interaction: bool, options: TaskOptions, metrics: tuple[str, ...]) -> Any:
    if target is None or isinstance(target, str):
        return TaskScope(target, interaction, options, metrics)
    return TaskScope(None, interaction, options, metrics)(target)


__all__ = ["Metric", "Outcome", "Run", "TaskScope", "disabled", "track_interaction", "track_task"]
