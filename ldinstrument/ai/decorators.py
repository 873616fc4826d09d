"""`track_ai`: what `track_interaction` measures, and what the model used, for each started call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..callables.decorating import ScopeDecorator, rebuilt
from ..errors import DefinitionError
from ..metrics.metric import check_key
from ..sessions.current import BlockScope
from ..sessions.task_definition import TaskDefinition, declared_task
from ..tasks.options import (
    Expected,
    Extractor,
    TaskOptions,
    checked_options,
    checked_unfinished,
)
from ..tasks.tracked_functions import key_from_name, note_function
from .calls import Call
from .handlers import bound_handler, is_handler
from .options import CallOptions, Estimate, ModelOptions, checked_suffixes
from .wrapper import CallWrapper, follow_events

if TYPE_CHECKING:
    from ..callables.decorating import Decorated

F = TypeVar("F", bound="Decorated")
_WHAT = "track_ai"


class CallScope(BlockScope[Call]):
    """What `track_ai("key", ...)` returns: a decorator, or a `with` / `async with` block.

    Reusable, and by many threads and tasks at once.
    """

    def __init__(
        self,
        key: str | None,
        wanted: TaskOptions,
        metrics: tuple[str, ...],
        fails: bool,
        asked: ModelOptions,
    ) -> None:
        super().__init__()
        self._key = key
        self._wanted = wanted
        self._metrics = metrics
        self._fails = fails
        self._asked = asked
        self._wrapper = None if key is None else self._wrapper_for(check_key(_WHAT, key))

    def _wrapper_for(self, key: str) -> CallWrapper:
        task = declared_task(key, self._asked.interaction, self._metrics, self._fails)
        return CallWrapper(task, self._wanted, self._asked.of_key(key, self._metrics))

    def __call__(self, fn: F) -> F:
        """Decorate *fn*; it keeps its type."""
        if is_handler(fn):
            handler: F = self._handler(fn)
            return handler
        if isinstance(fn, type):  # refused, with the reason
            wrapper = CallWrapper(TaskDefinition("", True, {}), self._wanted, CallOptions({}))
        else:
            wrapper = self._wrapper or self._wrapper_for(key_from_name(_WHAT, fn))
        made: F = rebuilt(fn, wrapper)
        note_function(_WHAT, wrapper.task.key, fn)
        return made

    def _handler(self, handler: Any) -> Any:
        if self._wrapper is None:
            raise DefinitionError(f"{_WHAT}: a handler needs a key: {_WHAT}('support')(handler)")
        return bound_handler(handler, self._wrapper.begin, follow_events)

    def begin(self) -> Call:
        """Begin a call that you end yourself, by `returned` or `raised`; it is nobody's current
        one.
        """
        if self._wrapper is None:
            raise DefinitionError(
                f"{_WHAT}: a with block needs a key: with {_WHAT}('support.answer') as call:"
            )
        return self._wrapper.begin()

    def __reduce__(self) -> Any:
        return CallScope, (self._key, self._wanted, self._metrics, self._fails, self._asked)


def _call_scope(
    target: str | None = None,
    /,
    *,
    model: str | None = None,
    provider: str | None = None,
    config: Any = None,
    interaction: bool = True,
    cost: Any = None,
    extract: Callable[[Any], Any] | None = None,
    estimate: Estimate | bool | None = None,
    success: Extractor | None = None,
    expected: Expected = (),
    data: Extractor | None = None,
    record: Mapping[Any, Extractor] | None = None,
    metrics: Iterable[str] | None = None,
    context: Any = None,
    within: float | None = None,
    unfinished: Literal["failure"] | None = None,
) -> CallScope:
    """Measure a function that calls a model, or a `with` block: as `track_interaction` does, and
    what the model used, for each started call, whatever its end.

    `@track_ai`, `@track_ai("support.answer", ...)`, `with track_ai("support.answer") as call:
    call.read(client.responses.create(...))`. What the function returns is read when an SDK made it,
    a stream while it is consumed; a function that returns something else tells by
    `current_call().read(answer)`, or by `extract=`.

    Args:
        target: the key, or the function itself, whose key then is `task.<name>`.
        model, provider: where the answers do not name them.
        config: an AI config of LaunchDarkly that each call is one run of, its tracker, or a
            function of the call's own arguments that returns one. A handler of
            `launchdarkly_ai_server`
            needs none: decorate the handler.
        interaction: whether a call counts as an interaction of its session; False where the request
            around it does already.
        cost: what tokens cost: a `PriceTable`, a mapping of model to `Price`; None: the prices of
            genai-prices, where it is installed; True demands it, False wants no cost.
        extract: a function of the result that returns what is to be read instead of it: an answer
            of an SDK, a `Usage`, a `Generation`, or a mapping of their names.
        estimate: estimates the tokens of a text that a stream had written when it broke off, such
            as `lambda text: len(encoding.encode(text))`; True: one for four characters. Events then
            say `usage: estimated`.
        success, expected, data, record, context, within, unfinished: as of `track_task`.
        metrics: which to feed, of those of `track_task` and `AI_METRICS`; None: success rate,
            duration, unfinished, and all of `AI_METRICS` but `inference_calls`.

    Raises:
        DefinitionError: at definition, for a key that cannot be one, a class, a nameless function
            without a key, an option that is none.
    """
    options = checked_options(
        _WHAT,
        success=success,
        expected=expected,
        data=data,
        record=record,
        context=context,
        within=within,
    )
    asked = ModelOptions(model, provider, config, bool(interaction), cost, extract, estimate)
    suffixes = checked_suffixes(metrics, within)
    fails = checked_unfinished(_WHAT, unfinished)
    return CallScope(target, options, suffixes, fails, asked)


track_ai = ScopeDecorator("track_ai", _call_scope)
