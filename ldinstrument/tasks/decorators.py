"""`track_task` and `track_interaction`: how long a call took and how it ended, for every kind of
callable.

The decorators only read the session; they never set a `ContextVar`, so generators may be resumed
anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..callables.decorating import Rebinder, ScopeDecorator, rebuilt
from ..errors import DefinitionError
from ..metrics.metric import check_key
from ..metrics.standard import DEFAULT_TASK_METRICS
from ..sessions.clock import clock
from ..sessions.current import BlockScope, current_session
from ..sessions.task_definition import TaskDefinition, declared_task
from .options import (
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


class TaskScope(BlockScope[Run]):
    """What `track_task("key", ...)` returns: a decorator, or a `with` / `async with` block.

    Reusable, and by many threads and tasks at once.
    """

    def __init__(
        self,
        name: str,
        interaction: bool,
        key: str | None,
        options: TaskOptions,
        metrics: tuple[str, ...],
        unfinished_fails: bool = False,
    ) -> None:
        super().__init__()
        self._name = name
        self._interaction = interaction
        self._key = key
        self._options = options
        self._metrics = metrics
        self._unfinished_fails = unfinished_fails
        self._rebinder = Rebinder()
        self._task = None if key is None else self._define(key)

    def _define(self, key: str) -> TaskDefinition:
        return declared_task(
            _checked_key(self._name, key),
            self._interaction,
            self._metrics,
            self._unfinished_fails,
        )

    def __call__(self, fn: F) -> F:
        """Decorate *fn*; it keeps its type."""
        again: F | None = self._rebinder.rebound(fn, lambda: self._wrapper(fn))
        if again is not None:
            return again
        wrapper = self._wrapper(fn)
        made: F = rebuilt(fn, wrapper)
        note_function(self._name, wrapper.task.key, fn)
        return made

    def _wrapper(self, fn: Any) -> TaskWrapper:
        if isinstance(fn, type):
            task = TaskDefinition("", self._interaction, {})  # refused, with the reason
        else:
            task = self._task or self._define(key_from_name(self._name, fn))
        return TaskWrapper(task, self._options)

    def begin(self) -> Run:
        """Begin a run that you end yourself, by `returned` or `raised`."""
        if self._task is None:
            raise DefinitionError(
                f"{self._name}: a with block needs a key: with {self._name}('rerank') as task:"
            )
        return begin_run(self._task, self._options, current_session(), clock())

    def __reduce__(self) -> Any:
        return TaskScope, (
            self._name,
            self._interaction,
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


class _TaskScopes:
    """Makes the scopes of one of the two decorators."""

    def __init__(self, name: str, *, interaction: bool) -> None:
        self._name = name
        self._interaction = interaction

    def scope(
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
    ) -> TaskScope:
        """Measure a function, or a `with` block.

        `@track_task`, `@track_task("retrieve", ...)`, `with track_task("rerank") as task:
        task.fail("empty")`. `<key>.success_rate` (1 or 0) and `<key>.duration` (milliseconds) have
        an event per finished run. `track_interaction` is the same for what the user sees as one
        interaction: its runs also count in the session's success rate, and `<key>.unfinished` (1
        when cancelled or abandoned, else 0) has an event per run that ended.

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
        options = checked_options(
            self._name,
            success=success,
            expected=expected,
            data=data,
            record=record,
            context=context,
            within=within,
        )
        wanted = DEFAULT_TASK_METRICS[self._name] if metrics is None else metrics
        suffixes = checked_metrics(self._name, wanted, within)
        fails = checked_unfinished(self._name, unfinished)
        return TaskScope(self._name, self._interaction, target, options, suffixes, fails)


track_task = ScopeDecorator("track_task", _TaskScopes("track_task", interaction=False).scope)
track_interaction = ScopeDecorator(
    "track_interaction", _TaskScopes("track_interaction", interaction=True).scope
)
