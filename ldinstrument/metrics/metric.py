"""Metric definitions: what LaunchDarkly must know about an event so that it counts.

The rules come from LaunchDarkly's metrics API (the fields of `MetricPost`), from what its analysis
does with them, and from the rollups that turn the many values of one session into few events
without changing that analysis.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, cast, get_args

from ..diagnostics import caller_depth
from ..errors import DefinitionError
from ..values import Frozen

_UNITS = {
    "bytes",
    "dollars",
    "eur",
    "euros",
    "kb",
    "mb",
    "milliseconds",
    "millis",
    "minutes",
    "ms",
    "pct",
    "percent",
    "s",
    "sec",
    "seconds",
    "secs",
    "usd",
}

LAUNCHDARKLYS_OWN = frozenset({"http.request.duration_ms"})
"""Keys that LaunchDarkly's SDKs have chosen."""


def naming_complaints(key: str, unit: str | None) -> Iterator[str]:
    """Say what a reader of LaunchDarkly's metric list would stumble over in *key* (its unit is
    *unit*).
    """
    if key != key.lower():
        yield f"the key is not lower case; event keys are case-sensitive, so prefer {key.lower()!r}"
    if "." not in key:
        yield f"the key has no dotted area; prefer something like 'checkout.{key.lower()}'"
    if key in LAUNCHDARKLYS_OWN:
        return
    words = key.lower().replace("_", ".").replace("-", ".").strip(".").split(".")
    if unit is not None and len(words) > 1 and words[-1] in _UNITS:
        yield (
            f"the key ends in a unit ({words[-1]!r}); the unit belongs in unit={unit!r}, and may "
            "change"
        )


Measure = Literal["value", "count", "occurrence"]
Aggregation = Literal["average", "sum"]
SuccessCriteria = Literal["HigherThanBaseline", "LowerThanBaseline"]
Rollup = Literal["sum", "once", "last", "mean", "each"]

_LIMIT = (
    r"\s*(\d+(?:\.\d+)?)\s*/\s*(s|m|h)\s*"  # compiled at its first use, as few metrics have one
)
_MARKS = str.maketrans("", "", "._-")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
RESERVED_PREFIXES = ("$ld:", "otel.")


class MetricWarning(UserWarning):
    """A definition that works, but perhaps not as meant."""


is_repeated: ContextVar[bool] = ContextVar("ldinstrument_repeated_definition", default=False)
"""Whether what is defined was defined before, and is read from its source now: its author has been
warned already.
"""


class Limit(Frozen):
    """A token bucket: *count* events per *seconds*, with a burst of *count*."""

    __slots__ = (
        "count",
        "seconds",
    )
    count: float
    seconds: float

    def __init__(self, count: float, seconds: float) -> None:
        self._fill(count, seconds)


class Metric(Frozen):
    """The definition of one metric.

    Args:
        key: letters, digits, `.`, `_`, `-`; starts with a letter or digit; cannot change later.
        measure: `value` (a number per event), `count` (how many events) or `occurrence` (did it
            happen at all).
        unit: what a value is counted in, such as `milliseconds`; required for `value`.
        success_criteria: `HigherThanBaseline` or `LowerThanBaseline`; required for `value`.
        aggregation: how LaunchDarkly combines the events of one unit: `average` or `sum`. `count`
            always sums, `occurrence` always averages.
        percentile: analyse this percentile (1 to 99) over the units instead of the mean; `value`
            only, no zero-fill.
        analysis_units: the context kinds that the metric is analysed by; `None` leaves it to the
            project.
        event_key: the key of the `track` events that feed the metric; the metric's own key when
            `None`.
        zero_fill: whether a unit without events counts as 0. `None` means: not for averages and
            percentiles of values, yes for sums, counts and occurrences.
        rollup: how the values of one session become events; `None` chooses the one that leaves
            LaunchDarkly's analysis as it would be with one event per value.
        limit: outside a session, at most so many events, such as `"10/s"`, `"100/m"`, `"500/h"`.
        name, description, tags: what people see in LaunchDarkly.

    Raises:
        DefinitionError: names the field and what to write instead.
    """

    __slots__ = (
        "key",
        "measure",
        "unit",
        "success_criteria",
        "aggregation",
        "percentile",
        "analysis_units",
        "event_key",
        "zero_fill",
        "rollup",
        "limit",
        "name",
        "description",
        "tags",
    )
    key: str
    measure: Measure
    unit: str | None
    success_criteria: SuccessCriteria | None
    aggregation: Aggregation | None
    percentile: int | None
    analysis_units: tuple[str, ...] | None
    event_key: str | None
    zero_fill: bool | None
    rollup: Rollup | None
    limit: str | None
    name: str | None
    description: str
    tags: tuple[str, ...]

    def __init__(
        self,
        key: str,
        measure: Measure = "value",
        unit: str | None = None,
        success_criteria: SuccessCriteria | None = None,
        aggregation: Aggregation | None = None,
        percentile: int | None = None,
        analysis_units: tuple[str, ...] | None = None,
        event_key: str | None = None,
        zero_fill: bool | None = None,
        rollup: Rollup | None = None,
        limit: str | None = None,
        name: str | None = None,
        description: str = "",
        tags: tuple[str, ...] = (),
    ) -> None:
        self._fill(
            key,
            measure,
            unit,
            success_criteria,
            aggregation,
            percentile,
            analysis_units,
            event_key,
            zero_fill,
            rollup,
            limit,
            name,
            description,
            tags,
        )
        self._check()

    def _check(self) -> None:
        """Refuse what cannot be, and put in what was left out."""
        self._check_keys()
        self._check_choice("measure", self.measure, get_args(Measure))
        self._check_numeric()
        self._set("aggregation", self._checked_aggregation())
        self._check_percentile()
        self._set("zero_fill", self._checked_zero_fill())
        self._set("rollup", self._checked_rollup())
        self._check_limit()
        self._set(
            "analysis_units",
            self._checked_strings("analysis_units", self.analysis_units, empty_is_none=True),
        )
        self._set("tags", self._checked_strings("tags", self.tags) or ())
        self._check_texts()
        for complaint in naming_complaints(self.key, self.unit):
            self._warn(complaint)

    # -- what it means ---------------------------------------------------------------------------
    @property
    def numeric(self) -> bool:
        """Whether its events carry a `metric_value`."""
        return self.measure == "value"

    @property
    def event(self) -> str:
        """The event key that feeds it."""
        return self.event_key or self.key

    @property
    def rate(self) -> Limit | None:
        """The parsed `limit`."""
        return None if self.limit is None else parse_limit(self.limit)

    # -- checks, one per field -------------------------------------------------------------------
    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _refuse(self, field: str, fix: str) -> DefinitionError:
        return DefinitionError(f"Metric {self.key!r}: {field}: {fix}")

    def _warn(self, message: str) -> None:
        if is_repeated.get():
            return
        warnings.warn(f"Metric {self.key!r}: {message}", MetricWarning, stacklevel=caller_depth())

    def _check_choice(self, field: str, value: object, choices: tuple[str, ...]) -> None:
        if value not in choices:
            raise self._refuse(field, f"{value!r} is not one of {', '.join(map(repr, choices))}")

    def _check_keys(self) -> None:
        check_key("Metric", self.key)
        if self.event_key is not None:
            if not isinstance(self.event_key, str) or not self.event_key.strip():
                raise self._refuse(
                    "event_key", "give a non-empty string, or leave it out to use the metric's key"
                )
            refuse_reserved(f"Metric {self.key!r}: event_key", self.event_key)

    def _check_numeric(self) -> None:
        if self.success_criteria is not None:
            self._check_choice("success_criteria", self.success_criteria, get_args(SuccessCriteria))
        if self.measure != "value":
            if self.unit is not None:
                raise self._refuse(
                    "unit", f"a {self.measure} has no unit; leave it out, or use measure='value'"
                )
            if self.success_criteria is None:
                self._set("success_criteria", "HigherThanBaseline")
            return
        if not isinstance(self.unit, str) or not self.unit.strip():
            raise self._refuse("unit", "a value needs one, such as unit='milliseconds'")
        if self.success_criteria is None:
            raise self._refuse(
                "success_criteria",
                "a value needs one: 'HigherThanBaseline' or 'LowerThanBaseline' (latency, errors)",
            )

    def _checked_aggregation(self) -> Aggregation:
        if self.aggregation is not None:
            self._check_choice("aggregation", self.aggregation, get_args(Aggregation))
        fixed = cast(
            "Aggregation | None", {"count": "sum", "occurrence": "average"}.get(self.measure)
        )
        if fixed is None:
            return self.aggregation or "average"
        if self.aggregation not in (None, fixed):
            other = {"count": "occurrence", "occurrence": "count"}[self.measure]
            raise self._refuse(
                "aggregation",
                f"a {self.measure} is always {fixed!r}; leave it out, or use measure={other!r}",
            )
        return fixed

    def _check_percentile(self) -> None:
        if self.percentile is None:
            return
        if (
            isinstance(self.percentile, bool)
            or not isinstance(self.percentile, int)
            or not 1 <= self.percentile <= 99
        ):
            raise self._refuse(
                "percentile", f"{self.percentile!r} is not a whole number from 1 to 99, such as 95"
            )
        if self.measure != "value":
            raise self._refuse("percentile", f"a {self.measure} has none; use measure='value'")
        if self.zero_fill:
            raise self._refuse(
                "zero_fill",
                "a percentile cannot count absent units as 0; leave zero_fill out or set it to "
                "False",
            )

    def _checked_zero_fill(self) -> bool:
        if self.zero_fill is None:
            return self.measure != "value" or (
                self.aggregation == "sum" and self.percentile is None
            )
        if not isinstance(self.zero_fill, bool):
            raise self._refuse("zero_fill", "give True, False or None")
        if self.zero_fill and self.measure == "value" and self.aggregation == "average":
            self._warn(
                "zero_fill=True makes units without events count as 0 and drags the average down"
            )
        return self.zero_fill

    def _checked_rollup(self) -> Rollup:
        wanted = default_rollup(self.measure, cast("Aggregation", self.aggregation))
        if self.rollup is None or self.rollup == wanted:
            return wanted
        self._check_choice("rollup", self.rollup, get_args(Rollup))
        if not self.numeric and self.rollup in ("sum", "last", "mean"):
            raise self._refuse(
                "rollup",
                f"{self.rollup!r} needs a number; a {self.measure} has none: 'each' or 'once'",
            )
        if not (self.rollup == "each" or (self.measure == "occurrence" and self.rollup == "once")):
            self._warn(
                f"rollup={self.rollup!r} changes the statistic: LaunchDarkly will see one "
                f"{self.rollup} per session, "
                f"not what {wanted!r} would give it"
            )
        return self.rollup

    def _check_limit(self) -> None:
        if self.limit is not None:
            try:
                parse_limit(self.limit)
            except ValueError as error:
                raise self._refuse("limit", str(error)) from None

    def _checked_strings(
        self, field: str, values: Any, *, empty_is_none: bool = False
    ) -> tuple[str, ...] | None:
        if values is None or (empty_is_none and not values and not isinstance(values, str)):
            return None
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise self._refuse(field, f"give a list of strings, such as [{values!r}]")
        strings = tuple(values)
        if not all(isinstance(entry, str) and entry for entry in strings):
            raise self._refuse(field, "every entry must be a non-empty string")
        return strings

    def _check_texts(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise self._refuse("name", "give a string")
        if not isinstance(self.description, str):
            raise self._refuse("description", "give a string")


def default_rollup(measure: Measure, aggregation: Aggregation) -> Rollup:
    """Return the rollup that leaves LaunchDarkly's analysis identical to one event per value."""
    if measure == "occurrence":
        return "once"
    return "sum" if (measure, aggregation) == ("value", "sum") else "each"


def check_key(what: str, key: object) -> str:
    """Return *key* when LaunchDarkly takes it as a metric key.

    Raises:
        DefinitionError: says which character, or which reserved prefix.
    """
    if not isinstance(key, str) or not key:
        raise DefinitionError(f"{what}: key: give a non-empty string, not {key!r}")
    refuse_reserved(f"{what} {key!r}: key", key)
    if not is_key(key):
        raise DefinitionError(
            f"{what} {key!r}: key: use letters, digits, '.', '_' and '-' only, and start with a "
            f"letter or digit"
        )
    return key


def is_key(key: str) -> bool:
    """Tell whether *key* begins with a letter or digit and holds only those, `.`, `_` and `-`."""
    return key.isascii() and key[:1].isalnum() and key.translate(_MARKS).isalnum()


def refuse_reserved(field: str, key: str) -> None:
    """Refuse the prefixes that LaunchDarkly keeps for itself (`$ld:`, `otel.`)."""
    for prefix in RESERVED_PREFIXES:
        if key.startswith(prefix):
            raise DefinitionError(
                f"{field}: the prefix {prefix!r} is LaunchDarkly's own; choose another key"
            )


def parse_limit(limit: object) -> Limit:
    """Parse `"10/s"`, `"100/m"` or `"500/h"`.

    Raises:
        ValueError: when it is none of these.
    """
    match = re.fullmatch(_LIMIT, limit) if isinstance(limit, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{limit!r} is not a rate such as '10/s', '100/m' or '500/h'")
    return Limit(float(match[1]), _SECONDS[match[2]])
