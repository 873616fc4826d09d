"""What is asked of `track_ai` beside what a task has, checked where it is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import DefinitionError
from ..metrics.catalogs import catalog
from ..metrics.model_calls import AI_METRICS, DEFAULT_AI_METRICS, ai_metrics
from ..metrics.standard import TASK_METRICS
from ..tasks.options import checked_metrics
from .cost import Prices, prices_of

Estimate = Callable[[str], int]
CHARACTERS_PER_TOKEN = 4
_WHAT = "track_ai"


def estimate_tokens(written: str) -> int:
    """Return about how many tokens an English text has: one for four characters."""
    return -(-len(written) // CHARACTERS_PER_TOKEN)


@dataclass(frozen=True, slots=True, eq=False)
class CallOptions:
    """What was asked of the model calls of one key beside what a task has.

    Args:
        metrics: event key by suffix, of `AI_METRICS`.
        model, provider: where the answers do not name them.
        prices: knows what tokens cost; None: nobody.
        extract: a function of the result that returns what is to be read instead of it.
        estimate: estimates the tokens of what a broken-off stream had written.
        config: an AI config or tracker that each call is bound to, or a function of the call's
            arguments that returns one.
    """

    metrics: Mapping[str, str]
    model: str | None = None
    provider: str | None = None
    prices: Prices | None = None
    extract: Callable[[Any], Any] | None = None
    estimate: Estimate | None = None
    config: Any = None

    named: dict[str, Any] | None = field(init=False, default=None)
    """The data that a call has of which nothing is read; None: none."""
    silent: bool = field(init=False, default=True)
    """Whether a call of which nothing is read has nothing to tell."""

    def __post_init__(self) -> None:
        found = {"model": self.model, "provider": self.provider}
        known = {name: value for name, value in found.items() if value} or None
        object.__setattr__(self, "named", known)
        told = known is not None or self.extract is not None or self.config is not None
        object.__setattr__(self, "silent", not told)


@dataclass(frozen=True, slots=True, eq=False)
class ModelOptions:
    """The options as they are written, of no key yet; what they are `track_ai` says.

    Raises:
        DefinitionError: an option is none.
    """

    model: str | None
    provider: str | None
    config: Any
    interaction: bool
    cost: Any
    extract: Callable[[Any], Any] | None
    estimate: Estimate | bool | None

    def __post_init__(self) -> None:
        for name in ("model", "provider"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise DefinitionError(f"{_WHAT}: {name}: give a name, not {value!r:.60}")
        _check_function("extract", self.extract)
        if not isinstance(self.estimate, bool):
            _check_function("estimate", self.estimate)
        prices_of(self.cost)

    def of_key(self, key: str, metrics: tuple[str, ...]) -> CallOptions:
        """Return the options of the calls of *key*, and declare which of *metrics* they feed."""
        prices = prices_of(self.cost)
        suffixes = [
            suffix
            for suffix in AI_METRICS
            if suffix in metrics and (suffix != "cost" or prices is not None)
        ]
        fed = {suffix: f"{key}.{suffix}" for suffix in suffixes}
        catalog.declare_implied(key, fed.values(), lambda: ai_metrics(key, suffixes).values())
        estimate = estimate_tokens if self.estimate is True else self.estimate or None
        return CallOptions(
            fed, self.model, self.provider, prices, self.extract, estimate, self.config
        )


def _check_function(name: str, function: Any) -> None:
    if function is None:
        return
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{_WHAT}: {name}: give a plain function, not {function!r:.60}")


def checked_suffixes(metrics: Iterable[str] | None, within: float | None) -> tuple[str, ...]:
    """Return which metrics to feed: those of the task, then those of the model.

    Raises:
        DefinitionError: names one that there is not.
    """
    if metrics is None:
        metrics = DEFAULT_AI_METRICS
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [name for name in names if name not in (*TASK_METRICS, *AI_METRICS)]
    if unknown:
        raise DefinitionError(
            f"{_WHAT}: metrics: {unknown[0]!r} is not one of "
            f"{', '.join((*TASK_METRICS, *AI_METRICS))}"
        )
    of_task = [name for name in names if name in TASK_METRICS]
    return (
        *checked_metrics(_WHAT, of_task, within),
        *(name for name in names if name in AI_METRICS),
    )
