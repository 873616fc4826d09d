"""`track_task` and `track_interaction`: how long a call took and how it ended, for every kind of
callable.

The decorators only read the session; they never set a `ContextVar`, so generators may be resumed
anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ..callables.decorating import Rebinder, rebuilt
from ..clock import clock
from ..errors import DefinitionError
from ..metrics.metric import check_key
from ..metrics.standard import DEFAULT_TASK_METRICS
from ..sessions.current import current_session
from ..sessions.entry_stack import EntryStack
from ..sessions.task_definition import TaskDefinition, declared_task
from .options import (
    PLAIN,
    Expected,
    Extractor,
    TaskOptions,
    checked_metrics,
    checked_options,
    checked_unfinished,
)
from .runs import Run, begin_run
from .tracked_functions import key_from_name, note_function
from .wrapper import TaskWrapper

if TYPE_CHECKING:
    from ..callables.decorating import Decorated


F = TypeVar("F", bound="Decorated")

_REFUSED_KEYS = ("session", "task")


class TaskScope:
    """What `track_task("key", ...)` returns: a decorator, or a `with` / `async with` block.

    Reusable, and by many threads and tasks at once.
    """

    def __init__(
        self,
        decorator: TaskDecorator,
        key: str | None,
        options: TaskOptions,
        metrics: tuple[str, ...],
        unfinished_fails: bool = False,
    ) -> None:
        self._decorator = decorator
        self._key = key
        self._options = options
        self._metrics = metrics
        self._unfinished_fails = unfinished_fails
        self._runs: EntryStack[Run] = EntryStack()
        self._rebinder = Rebinder()
        self._task = None if key is None else self._define(key)

    def _define(self, key: str) -> TaskDefinition:
        return declared_task(
            _checked_key(self._decorator.name, key),
            self._decorator.interaction,
            self._metrics,
            self._unfinished_fails,
        )

    def __call__(self, fn: F) -> F:
        """Decorate *fn*; it keeps its type."""
        name = self._decorator.name
        again: F | None = self._rebinder.rebound(fn, lambda: self._wrapper(fn))
        if again is not None:
            return again
        wrapper = self._wrapper(fn)
        made: F = rebuilt(fn, wrapper)
        note_function(name, wrapper.task.key, fn)
        return made

    def _wrapper(self, fn: Any) -> TaskWrapper:
        if isinstance(fn, type):
            task = TaskDefinition("", self._decorator.interaction, {})  # refused, with the reason
        else:
            task = self._task or self._define(key_from_name(self._decorator.name, fn))
        return TaskWrapper(task, self._options)

    def __enter__(self) -> Run:
        if self._task is None:
            name = self._decorator.name
            raise DefinitionError(
                f"{name}: a with block needs a key: with {name}('rerank') as task:"
            )
        run = begin_run(self._task, self._options, current_session(), clock())
        run.resume()
        self._runs.push(run)
        return run

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run = self._runs.pop()
        if run is None:
            return
        run.pause()
        if error is None:
            run.returned(None)
        else:
            run.raised(error)

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
        return TaskScope, (
            self._decorator,
            self._key,
            self._options,
            self._metrics,
            self._unfinished_fails,
        )


def _checked_key(what: str, key: str) -> str:
    check_key(what, key)
    if key in _REFUSED_KEYS:
        raise DefinitionError(
            f"{what} {key!r}: key: {key}.success_rate is LaunchDarkly's recipe's own metric; "
            f"choose another key"
        )
    return key


class TaskDecorator:
    """Measure a function, or a `with` block.

    `@track_task`, `@track_task("retrieve", ...)`, `with track_task("rerank") as task:
    task.fail("empty")`. `<key>.success_rate` (1 or 0) and `<key>.duration` (milliseconds) have an
    event per finished run. `track_interaction` is the same for what the user sees as one
    interaction: its runs also count in the session's success rate, and `<key>.unfinished` (1 when
    cancelled or abandoned, else 0) has an event per run that ended.
    """

    def __init__(self, name: str, *, interaction: bool) -> None:
        self.name = self.__name__ = self.__qualname__ = name
        self.interaction = interaction
        self.__doc__ = type(self).__doc__
        self._bare = TaskScope(self, None, PLAIN, DEFAULT_TASK_METRICS[name])

    @overload
    def __call__(
        self,
        target: str | None = None,
        /,
        *,
        success: Extractor | None = None,
        expected: Expected = (),
        data: Extractor | None = None,
        record: Mapping[Any, Extractor] | None = None,
        metrics: Iterable[str] | None = None,
        context: Any = None,
        within: float | None = None,
        unfinished: Literal["failure"] | None = None,
    ) -> TaskScope: ...

    @overload
    def __call__(self, target: F, /) -> F: ...

    def __call__(
        self,
        target: Any = None,
        /,
        *,
        success: Extractor | None = None,
        expected: Any = (),
        data: Extractor | None = None,
        record: Mapping[Any, Extractor] | None = None,
        metrics: Iterable[str] | None = None,
        context: Any = None,
        within: float | None = None,
        unfinished: Literal["failure"] | None = None,
    ) -> Any:
        """Return a scope to decorate or enter, or the decorated *target*.

        Args:
            target: the key, or the function itself, whose key then is `task.<name>`.
            success: a function of the result: truthy means success; an `Outcome` is taken as it is.
            expected: exceptions that are a success of the task all the same.
            data: a function of the result that returns the data of this run's events.
            record: more metrics, by `Metric` or key, each from a function of the result; None
                records nothing.
            metrics: which of `success_rate`, `duration`, `unfinished`, `time_to_first_item`
                (streams) to feed. None: the first two, and for an interaction the third.
            context: whose run it is when there is no session: a context, a key, or a callable given
                the function's own arguments.
            within: seconds; `<key>.within` is 1 for a run that succeeded in that time, else 0,
                and 0 as soon as the time has passed.
            unfinished: "failure" counts cancelled and abandoned runs as failures.

        Raises:
            DefinitionError: at definition, for a key that cannot be one, a class, a nameless
                function without a key.
        """
        asked = (success, expected or None, data, record, metrics, context, within, unfinished)
        if callable(target) and all(option is None for option in asked):
            return self._bare(target)
        options = checked_options(
            self.name,
            success=success,
            expected=expected,
            data=data,
            record=record,
            context=context,
            within=within,
        )
        wanted = DEFAULT_TASK_METRICS[self.name] if metrics is None else metrics
        suffixes = checked_metrics(self.name, wanted, within)
        fails = checked_unfinished(self.name, unfinished)
        if target is None or isinstance(target, str):
            return TaskScope(self, target, options, suffixes, fails)
        return TaskScope(self, None, options, suffixes, fails)(target)

    def __reduce__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<decorator {self.name}>"


track_task = TaskDecorator("track_task", interaction=False)
track_interaction = TaskDecorator("track_interaction", interaction=True)
