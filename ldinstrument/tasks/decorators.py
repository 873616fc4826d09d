"""`track_task` and `track_interaction`: how long a call took and how it ended, for every kind of
callable.

The decorator only reads the session; it never sets a `ContextVar`, so generators may be resumed
anywhere.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..callables.decorating import rebuilt
from ..callables.streams import (
    notice_frameworks,
    plain_awaited_types,
    plain_types,
    settled,
    settled_awaited,
)
from ..callables.templates import (
    ASYNC_GENERATOR,
    CALL,
    COROUTINE,
    GENERATOR,
    TASK_CALL,
    TASK_COROUTINE,
    TASK_GENERATOR,
    closed_over,
    is_shaped,
    shaped,
    stream_shaped,
)
from ..diagnostics import warn_caller
from ..errors import DefinitionError
from ..metrics.catalogs import catalog
from ..metrics.metric import Metric, check_key
from ..metrics.standard import TASK_METRICS, task_metrics
from ..sessions.accumulator import clock
from ..sessions.contexts import is_function
from ..sessions.current import current_session, current_variable
from ..sessions.outcomes import Outcome, TaskDefinition, current_task
from ..sessions.unattached import unattached_runs_of
from . import runs
from .runs import Extractor, Run, TaskOptions, beginning

if TYPE_CHECKING:
    from ..callables.decorating import Decorated


F = TypeVar("F", bound="Decorated")
Expected = type[BaseException] | tuple[type[BaseException], ...]

_REFUSED_KEYS = ("session", "task")


# -- wrapping --------------------------------------------------------------------------------------

_TEMPLATES = {
    "call": CALL,
    "coroutine": COROUTINE,
    "generator": GENERATOR,
    "async_generator": ASYNC_GENERATOR,
}
_FAST_TEMPLATES = {"call": TASK_CALL, "coroutine": TASK_COROUTINE, "generator": TASK_GENERATOR}


@dataclass(frozen=True, slots=True, eq=False)
class TaskWrapper:
    """Wraps functions into runs of one task."""

    task: TaskDefinition
    options: TaskOptions

    @property
    def what(self) -> str:
        """How the user calls it."""
        return "track_interaction" if self.task.interaction else "track_task"

    def wrap(self, fn: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """A function that runs *fn* and measures it."""
        made: Callable[..., Any] = shaped(
            self._template(kind), fn, self._names(kind), arguments=is_function(self.options.context)
        )
        return made

    def stream(self, kind: str) -> Callable[[Any], Any]:
        """A function that watches a coroutine or generator that nobody has started yet."""
        return stream_shaped(self._template(kind), self._names(kind))

    def _template(self, kind: str) -> str:
        fast = self.options.plain and "time_to_first_item" not in self.task.metrics
        return _FAST_TEMPLATES.get(kind, _TEMPLATES[kind]) if fast else _TEMPLATES[kind]

    def _names(self, kind: str) -> dict[str, Any]:
        notice_frameworks()
        awaited, strays = kind == "coroutine", unattached_runs_of(self.task)
        return {
            "_begin": beginning(self.task, self.options),
            "_current": current_variable.get,
            "_followed": runs.plain_followed_awaited if awaited else runs.plain_followed,
            "_now": clock,
            "_open_session": current_session,
            "_plain_types": plain_awaited_types if awaited else plain_types,
            "_raised": runs.plain_raised,
            "_refill": strays.refill,
            "_returned": runs.plain_returned,
            "_settle": settled_awaited if awaited else settled,
            "_success": Outcome.SUCCESS,
            "_take": strays.take,
            "_task": self.task,
        }

    def __reduce__(self) -> Any:
        return _restored, (
            self.task.key,
            self.task.interaction,
            tuple(self._suffixes()),
            self.options,
        )

    def _suffixes(self) -> list[str]:
        return [suffix for suffix in TASK_METRICS if suffix in self.task.metrics]


def _restored(
    key: str, interaction: bool, metrics: tuple[str, ...], options: TaskOptions
) -> TaskWrapper:
    return TaskWrapper(_define(key, interaction, metrics), options)


# -- definition ------------------------------------------------------------------------------------


class TaskScope:
    """What `track_task("key", ...)` returns: a decorator, or a `with` / `async with` block.
    Reusable.
    """

    def __init__(
        self, key: str | None, interaction: bool, options: TaskOptions, metrics: tuple[str, ...]
    ) -> None:
        self._key = key
        self._interaction = interaction
        self._options = options
        self._metrics = metrics
        self._runs: dict[tuple[int, int], list[Run]] = {}
        self._lock = threading.Lock()
        self._task = None if key is None else _define(_checked_task_key(key), interaction, metrics)

    def __call__(self, fn: F) -> F:
        """Decorate *fn*; it keeps its type."""
        if isinstance(fn, type):
            task = TaskDefinition("", self._interaction, {})  # refused below, with the reason
        else:
            task = self._task or _define(_key_of(fn), self._interaction, self._metrics)
        made: F = rebuilt(fn, TaskWrapper(task, self._options))
        _note_function(task.key, fn)
        return made

    def __enter__(self) -> Run:
        if self._task is None:
            raise DefinitionError(
                "track_task: a with block needs a key: with track_task('rerank') as task:"
            )
        run = Run(self._task, self._options, current_session(), clock())
        with self._lock:
            self._runs.setdefault(_where(), []).append(run)
        return run

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run = self._leaving()
        if run is None:
            return
        if error is None:
            run.returned(None)
        else:
            run.raised(error)

    def _leaving(self) -> Run | None:
        """The run that ends here: the innermost one entered by this thread and task, else by
        any.
        """
        with self._lock:
            here = _where()
            if here not in self._runs:
                here = next(iter(self._runs), here)
            stack = self._runs.get(here)
            run = stack.pop() if stack else None
            if not stack:
                self._runs.pop(here, None)
            return run

    async def __aenter__(self) -> Run:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __reduce__(self) -> Any:
        return TaskScope, (self._key, self._interaction, self._options, self._metrics)


def _where() -> tuple[int, int]:
    """Name this thread and this asyncio task: one scope object may be entered by many of them at
    once.
    """
    task = current_task()
    return threading.get_ident(), id(task) if task is not None else 0


def _define(key: str, interaction: bool, which: tuple[str, ...]) -> TaskDefinition:
    metrics = {suffix: f"{key}.{suffix}" for suffix in which}
    catalog.declare_implied(key, metrics.values(), lambda: task_metrics(key, which).values())
    return TaskDefinition(key, interaction, metrics)


def _checked_task_key(key: str) -> str:
    check_key("track_task", key)
    if key in _REFUSED_KEYS:
        raise DefinitionError(
            f"track_task {key!r}: key: {key}.success_rate is LaunchDarkly's recipe's own metric; "
            f"choose another key"
        )
    return key


def _key_of(fn: Any) -> str:
    name = getattr(_innermost(fn), "__name__", "")
    if not isinstance(name, str) or not name or name == "<lambda>":
        raise DefinitionError(
            f"track_task: a {type(fn).__name__ if name != '<lambda>' else 'lambda'} has no name "
            f"to make a key of; "
            "give one: track_task('checkout.total')(...)"
        )
    return _checked_task_key(f"task.{name}")


def _innermost(fn: Any) -> Any:
    """The function inside a descriptor."""
    if isinstance(fn, (classmethod, staticmethod)):
        return fn.__func__
    if isinstance(fn, property):
        return fn.fget
    if isinstance(
        fn, (functools.cached_property, functools.partialmethod, functools.singledispatchmethod)
    ):
        return fn.func
    return fn


_functions: dict[str, str] = {}
MAX_FUNCTIONS = 10_000


def _note_function(key: str, fn: Any) -> None:
    """Say it when two functions share one key, or one is decorated twice: their numbers would be
    one metric.
    """
    if _tracked_as(fn, key):
        warn_caller(
            f"track_task {key!r}: decorated twice with this key, so each call counts twice; "
            f"remove one"
        )
        return
    inner = _innermost(fn)
    place = f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
    if place.endswith("<lambda>"):
        place += f" of line {inner.__code__.co_firstlineno}"
    known = (
        _functions.setdefault(key, place)
        if len(_functions) < MAX_FUNCTIONS
        else _functions.get(key, place)
    )
    if known != place:
        warn_caller(
            f"track_task {key!r}: both {known} and {place} use this key, so their runs are one "
            f"metric; "
            "give one of them a key of its own"
        )


def _tracked_as(fn: Any, key: str) -> bool:
    """Whether *fn*, or a function that it wraps, is measured under *key* already."""
    inner = _innermost(fn)
    for _ in range(50):
        wrapper = getattr(inner, "_self_wrapper", None)
        task = wrapper.task if isinstance(wrapper, TaskWrapper) else None
        if is_shaped(inner):
            task = closed_over(inner, "_task")
        if task is not None and task.key == key:
            return True
        inner = getattr(inner, "__wrapped__", None)
        if inner is None:
            return False
    return False


def forget_functions() -> None:
    """Forget which function uses which key (tests)."""
    _functions.clear()


def _options(success: Any, expected: Any, data: Any, record: Any, context: Any) -> TaskOptions:
    for field, extractor in (("success", success), ("data", data), *(record or {}).items()):
        if extractor is None:
            continue
        if not callable(extractor):
            raise DefinitionError(
                f"track_task: {field}: give a function of the result, not {extractor!r:.60}"
            )
        if inspect.iscoroutinefunction(extractor) or inspect.isasyncgenfunction(extractor):
            raise DefinitionError(
                f"track_task: {field}: give a plain function of the result, not an async one"
            )
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise DefinitionError(
            "track_task: expected: give exception classes, such as expected=(NotFound,)"
        )
    return TaskOptions(success, kinds, data, dict(record) if record else None, context)


def _metric_names(metrics: Iterable[str]) -> tuple[str, ...]:
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [name for name in names if name not in TASK_METRICS]
    if unknown:
        raise DefinitionError(
            f"track_task: metrics: {unknown[0]!r} is not one of {', '.join(TASK_METRICS)}"
        )
    return names


@overload
def track_task(
    target: str | None = None,
    /,
    *,
    success: Extractor | None = None,
    expected: Expected = (),
    data: Extractor | None = None,
    record: Mapping[Any, Extractor] | None = None,
    metrics: Iterable[str] = ("success_rate", "duration"),
    context: Any = None,
) -> TaskScope: ...


@overload
def track_task(target: F, /) -> F: ...


def track_task(
    target: Any = None,
    /,
    *,
    success: Extractor | None = None,
    expected: Any = (),
    data: Extractor | None = None,
    record: Mapping[Any, Extractor] | None = None,
    metrics: Iterable[str] = ("success_rate", "duration"),
    context: Any = None,
) -> Any:
    """Measure a function, or a `with` block: `<key>.success_rate` (1 or 0) and `<key>.duration`
    (milliseconds).

    `@track_task`, `@track_task("retrieve", ...)`, `with track_task("rerank") as task:
    task.fail("empty")`.

    Args:
        target: the key, or the function itself, whose key then is `task.<name>`.
        success: a function of the result: truthy means success; an `Outcome` is taken as it is.
        expected: exceptions that are a success of the task all the same.
        data: a function of the result that returns the data of this run's events.
        record: more metrics, by `Metric` or key, each from a function of the result; None records
            nothing.
        metrics: which of `success_rate`, `duration`, `time_to_first_item` (streams) to feed.
        context: whose run it is when there is no session: a context, a key, or a callable given the
            function's own arguments.

    Raises:
        DefinitionError: at definition, for a key that cannot be one, a class, a nameless function
            without a key.
    """
    return _tracked(
        target, False, _options(success, expected, data, record, context), _metric_names(metrics)
    )


@overload
def track_interaction(
    target: str | None = None,
    /,
    *,
    success: Extractor | None = None,
    expected: Expected = (),
    data: Extractor | None = None,
    record: Mapping[Any, Extractor] | None = None,
    metrics: Iterable[str] = ("success_rate", "duration"),
    context: Any = None,
) -> TaskScope: ...


@overload
def track_interaction(target: F, /) -> F: ...


def track_interaction(
    target: Any = None,
    /,
    *,
    success: Extractor | None = None,
    expected: Any = (),
    data: Extractor | None = None,
    record: Mapping[Any, Extractor] | None = None,
    metrics: Iterable[str] = ("success_rate", "duration"),
    context: Any = None,
) -> Any:
    """`track_task` for what the user sees as one interaction: its runs also count in the session's
    success rate.
    """
    return _tracked(
        target, True, _options(success, expected, data, record, context), _metric_names(metrics)
    )


def _tracked(target: Any, interaction: bool, options: TaskOptions, metrics: tuple[str, ...]) -> Any:
    if target is None or isinstance(target, str):
        return TaskScope(target, interaction, options, metrics)
    return TaskScope(None, interaction, options, metrics)(target)


__all__ = [
    "Metric",
    "Outcome",
    "Run",
    "TaskScope",
    "forget_functions",
    "track_interaction",
    "track_task",
]
