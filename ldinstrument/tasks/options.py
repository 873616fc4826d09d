"""What is asked of one task beside its key, checked where it is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import DefinitionError
from ..metrics.standard import TASK_METRICS
from ..values import Fields, above_zero

Extractor = Callable[[Any], Any]
Expected = type[BaseException] | tuple[type[BaseException], ...]


class TaskOptions(Fields):
    """The options of one task; extractors are isolated: one that fails costs its own value.

    Args:
        success: a function of the result: truthy means success; an `Outcome` is taken as it is.
        expected: exceptions that are a success of the task all the same.
        data: a function of the result that returns the data of this run's events.
        record: more metrics, by `Metric` or key, each from a function of the result.
        context: whose run it is when there is no session: a context, a key, or a callable.
        within: seconds after which an open run counts as 0 in `<key>.within`.
    """

    __slots__ = (
        "success",
        "expected",
        "data",
        "record",
        "context",
        "within",
    )

    def __init__(
        self,
        success: Extractor | None = None,
        expected: tuple[type[BaseException], ...] = (),
        data: Extractor | None = None,
        record: Mapping[Any, Extractor] | None = None,
        context: Any = None,
        within: float | None = None,
    ) -> None:
        self.success = success
        self.expected = expected
        self.data = data
        self.record = record
        self.context = context
        self.within = within

    @property
    def plain(self) -> bool:
        """Whether nothing but clock and outcome is wanted."""
        return not (
            self.success
            or self.expected
            or self.data
            or self.record
            or self.context is not None
            or self.within is not None
        )


PLAIN = TaskOptions()


def checked_options(
    what: str,
    *,
    success: Any,
    expected: Any,
    data: Any,
    record: Any,
    context: Any,
    within: Any,
) -> TaskOptions:
    """Return the options of a task; *what* is the decorator that was given them.

    Raises:
        DefinitionError: names the option and what to write instead.
    """
    for field, extractor in (("success", success), ("data", data), *(record or {}).items()):
        _check_extractor(f"{what}: {field}", extractor)
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise DefinitionError(
            f"{what}: expected: give exception classes, such as expected=(NotFound,)"
        )
    if within is not None:
        above_zero(f"{what}: within=", within)
    return TaskOptions(success, kinds, data, dict(record) if record else None, context, within)


def _check_extractor(what: str, extractor: Any) -> None:
    if extractor is None:
        return
    if not callable(extractor):
        raise DefinitionError(f"{what}: give a function of the result, not {extractor!r:.60}")
    if inspect.iscoroutinefunction(extractor) or inspect.isasyncgenfunction(extractor):
        raise DefinitionError(f"{what}: give a plain function of the result, not an async one")


def checked_metrics(what: str, metrics: Iterable[str], within: float | None) -> tuple[str, ...]:
    """Return the suffixes of the metrics that a task feeds; `within=` adds its own.

    Raises:
        DefinitionError: one is none of `TASK_METRICS`, or is `within` without its time.
    """
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [name for name in names if name not in TASK_METRICS]
    if unknown:
        raise DefinitionError(
            f"{what}: metrics: {unknown[0]!r} is not one of {', '.join(TASK_METRICS)}"
        )
    if "within" in names and within is None:
        raise DefinitionError(f"{what}: metrics: 'within' needs a time: within=2.0 (seconds)")
    return names if within is None or "within" in names else (*names, "within")


def checked_unfinished(what: str, unfinished: Any) -> bool:
    """Tell whether unfinished runs count as failures.

    Raises:
        DefinitionError: *unfinished* is neither None nor "failure".
    """
    if unfinished not in (None, "failure"):
        raise DefinitionError(f"{what}: unfinished= is 'failure' or None, not {unfinished!r:.60}")
    return unfinished is not None
