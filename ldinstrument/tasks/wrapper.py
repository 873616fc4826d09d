"""Wrap functions into runs of one task: which template, and what its closure variables stand for.

A wrapper can be pickled by value, as joblib, Ray and Spark do with functions of the main script:
everything that a template closes over pickles by name, or makes itself anew on the other side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..callables.compiler import shaped, stream_shaped
from ..callables.streams import notice_frameworks, settled, settled_awaited
from ..callables.templates import TASK_TEMPLATES, TEMPLATES
from ..sessions.clock import clock
from ..sessions.contexts import is_function
from ..sessions.current import current_variable
from ..sessions.outcomes import Outcome
from ..sessions.task_definition import TaskDefinition
from . import runs
from .options import TaskOptions

_END_OF_ITERATION = {"__next__": StopIteration, "__anext__": StopAsyncIteration}


class TaskWrapper:
    """Wraps functions into runs of one task."""

    __slots__ = ("options", "task")

    def __init__(self, task: TaskDefinition, options: TaskOptions) -> None:
        self.task = task
        self.options = options

    @property
    def what(self) -> str:
        """How the user calls it."""
        return "track_interaction" if self.task.interaction else "track_task"

    def wrap(self, fn: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """Return a function that runs *fn* and measures it."""
        options = self._options_for(fn)
        arguments = is_function(options.context)
        template = self._template(kind, options)
        made: Callable[..., Any] = shaped(
            template, fn, self._names(kind, options), arguments=arguments
        )
        return made

    def stream(self, kind: str) -> Callable[[Any], Any]:
        """Return a function that watches a coroutine or generator that nobody has started yet."""
        return stream_shaped(self._template(kind, self.options), self._names(kind, self.options))

    def _options_for(self, fn: Any) -> TaskOptions:
        """Return the options; the end of an iteration is no failure of a tracked `__next__`."""
        end = _END_OF_ITERATION.get(getattr(fn, "__name__", ""))
        if end is None:
            return self.options
        return self.options.replace(expected=(*self.options.expected, end))

    def _template(self, kind: str, options: TaskOptions) -> str:
        fast = options.plain and "time_to_first_item" not in self.task.metrics
        return TASK_TEMPLATES.get(kind, TEMPLATES[kind]) if fast else TEMPLATES[kind]

    def _names(self, kind: str, options: TaskOptions) -> dict[str, Any]:
        notice_frameworks()
        awaited = kind == "coroutine"
        return {
            "_begin": runs.beginning(self.task, options),
            "_current": current_variable.get,
            "_now": clock,
            "_rare": runs.RareCases(self.task, awaited),
            "_settle": settled_awaited if awaited else settled,
            "_success": Outcome.SUCCESS,
            "_task": self.task,
        }
