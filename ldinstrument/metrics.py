"""Metric definitions: what LaunchDarkly must know about an event so that it counts.

The rules come from LaunchDarkly's metrics API (the fields of `MetricPost`), from what its analysis does with them, and
from the rollups that turn the many values of one session into few events without changing that analysis.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from .errors import ConflictingDefinition, DefinitionError
from .ledger import ledger
from .naming import naming_complaints

Measure = Literal["value", "count", "occurrence"]
Aggregation = Literal["average", "sum"]
SuccessCriteria = Literal["HigherThanBaseline", "LowerThanBaseline"]
Rollup = Literal["sum", "once", "last", "mean", "each"]

METRIC_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LIMIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(s|m|h)\s*")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
RESERVED_PREFIXES = ("$ld:", "otel.")
_PACKAGE = str(Path(__file__).resolve().parent)


class MetricWarning(UserWarning):
    """A definition that works, but perhaps not as meant."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: *count* events per *seconds*, with a burst of *count*."""

    count: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Metric:
    """The definition of one metric.

    Args:
        key: letters, digits, `.`, `_`, `-`; starts with a letter or digit; cannot change later.
        measure: `value` (a number per event), `count` (how many events) or `occurrence` (did it happen at all).
        unit: what a value is counted in, such as `milliseconds`; required for `value`.
        success_criteria: `HigherThanBaseline` or `LowerThanBaseline`; required for `value`.
        aggregation: how LaunchDarkly combines the events of one unit: `average` or `sum`. `count` always sums,
            `occurrence` always averages.
        percentile: analyse this percentile (1 to 99) over the units instead of the mean; `value` only, no zero-fill.
        analysis_units: the context kinds that the metric is analysed by; `None` leaves it to the project.
        event_key: the key of the `track` events that feed the metric; the metric's own key when `None`.
        zero_fill: whether a unit without events counts as 0. `None` means: not for averages and percentiles of
            values, yes for sums, counts and occurrences.
        rollup: how the values of one session become events; `None` chooses the one that leaves LaunchDarkly's
            analysis as it would be with one event per value.
        limit: outside a session, at most so many events, such as `"10/s"`, `"100/m"`, `"500/h"`.
        name, description, tags: what people see in LaunchDarkly.

    Raises:
        DefinitionError: names the field and what to write instead.
    """

    key: str
    measure: Measure = "value"
    unit: str | None = None
    success_criteria: SuccessCriteria | None = None
    aggregation: Aggregation | None = None
    percentile: int | None = None
    analysis_units: tuple[str, ...] | None = None
    event_key: str | None = None
    zero_fill: bool | None = None
    rollup: Rollup | None = None
    limit: str | None = None
    name: str | None = None
    description: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_keys()
        self._check_choice("measure", self.measure, get_args(Measure))
        self._check_numeric()
        self._set("aggregation", self._checked_aggregation())
        self._check_percentile()
        self._set("zero_fill", self._checked_zero_fill())
        self._set("rollup", self._checked_rollup())
        self._check_limit()
        self._set("analysis_units", self._checked_strings("analysis_units", self.analysis_units, empty_is_none=True))
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
        warnings.warn(f"Metric {self.key!r}: {message}", MetricWarning, stacklevel=_callers_depth())

    def _check_choice(self, field: str, value: object, choices: tuple[str, ...]) -> None:
        if value not in choices:
            raise self._refuse(field, f"{value!r} is not one of {', '.join(map(repr, choices))}")

    def _check_keys(self) -> None:
        check_key("Metric", self.key)
        if self.event_key is not None:
            if not isinstance(self.event_key, str) or not self.event_key.strip():
                raise self._refuse("event_key", "give a non-empty string, or leave it out to use the metric's key")
            refuse_reserved(f"Metric {self.key!r}: event_key", self.event_key)

    def _check_numeric(self) -> None:
        if self.success_criteria is not None:
            self._check_choice("success_criteria", self.success_criteria, get_args(SuccessCriteria))
        if self.measure != "value":
            if self.unit is not None:
                raise self._refuse("unit", f"a {self.measure} has no unit; leave it out, or use measure='value'")
            if self.success_criteria is None:
                self._set("success_criteria", "HigherThanBaseline")
            return
        if not isinstance(self.unit, str) or not self.unit.strip():
            raise self._refuse("unit", "a value needs one, such as unit='milliseconds'")
        if self.success_criteria is None:
            raise self._refuse(
                "success_criteria", "a value needs one: 'HigherThanBaseline' or 'LowerThanBaseline' (latency, errors)"
            )

    def _checked_aggregation(self) -> Aggregation:
        if self.aggregation is not None:
            self._check_choice("aggregation", self.aggregation, get_args(Aggregation))
        fixed = cast("Aggregation | None", {"count": "sum", "occurrence": "average"}.get(self.measure))
        if fixed is None:
            return self.aggregation or "average"
        if self.aggregation not in (None, fixed):
            other = {"count": "occurrence", "occurrence": "count"}[self.measure]
            raise self._refuse(
                "aggregation", f"a {self.measure} is always {fixed!r}; leave it out, or use measure={other!r}"
            )
        return fixed

    def _check_percentile(self) -> None:
        if self.percentile is None:
            return
        if isinstance(self.percentile, bool) or not isinstance(self.percentile, int) or not 1 <= self.percentile <= 99:
            raise self._refuse("percentile", f"{self.percentile!r} is not a whole number from 1 to 99, such as 95")
        if self.measure != "value":
            raise self._refuse("percentile", f"a {self.measure} has none; use measure='value'")
        if self.zero_fill:
            raise self._refuse(
                "zero_fill", "a percentile cannot count absent units as 0; leave zero_fill out or set it to False"
            )

    def _checked_zero_fill(self) -> bool:
        if self.zero_fill is None:
            return self.measure != "value" or (self.aggregation == "sum" and self.percentile is None)
        if not isinstance(self.zero_fill, bool):
            raise self._refuse("zero_fill", "give True, False or None")
        if self.zero_fill and self.measure == "value" and self.aggregation == "average":
            self._warn("zero_fill=True makes units without events count as 0 and drags the average down")
        return self.zero_fill

    def _checked_rollup(self) -> Rollup:
        wanted = default_rollup(self.measure, cast("Aggregation", self.aggregation))
        if self.rollup is None or self.rollup == wanted:
            return wanted
        self._check_choice("rollup", self.rollup, get_args(Rollup))
        if not self.numeric and self.rollup in ("sum", "last", "mean"):
            raise self._refuse("rollup", f"{self.rollup!r} needs a number; a {self.measure} has none: 'each' or 'once'")
        if not (self.rollup == "each" or (self.measure == "occurrence" and self.rollup == "once")):
            self._warn(
                f"rollup={self.rollup!r} changes the statistic: LaunchDarkly will see one {self.rollup} per session, "
                f"not what {wanted!r} would give it"
            )
        return self.rollup

    def _check_limit(self) -> None:
        if self.limit is not None:
            try:
                parse_limit(self.limit)
            except ValueError as error:
                raise self._refuse("limit", str(error)) from None

    def _checked_strings(self, field: str, values: Any, *, empty_is_none: bool = False) -> tuple[str, ...] | None:
        if values is None or (empty_is_none and not values and not isinstance(values, str)):
            return None
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise self._refuse(field, f"give a list of strings, such as [{values!r}]")
        strings = tuple(values)
        if not all(isinstance(one, str) and one for one in strings):
            raise self._refuse(field, "every entry must be a non-empty string")
        return strings

    def _check_texts(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise self._refuse("name", "give a string")
        if not isinstance(self.description, str):
            raise self._refuse("description", "give a string")


def default_rollup(measure: Measure, aggregation: Aggregation) -> Rollup:
    """The rollup that leaves LaunchDarkly's analysis identical to one event per value."""
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
    if not METRIC_KEY.fullmatch(key):
        raise DefinitionError(
            f"{what} {key!r}: key: use letters, digits, '.', '_' and '-' only, and start with a letter or digit"
        )
    return key


def refuse_reserved(field: str, key: str) -> None:
    """Refuse the prefixes that LaunchDarkly keeps for itself (`$ld:`, `otel.`)."""
    for prefix in RESERVED_PREFIXES:
        if key.startswith(prefix):
            raise DefinitionError(f"{field}: the prefix {prefix!r} is LaunchDarkly's own; choose another key")


def parse_limit(limit: object) -> Limit:
    """Parse `"10/s"`, `"100/m"` or `"500/h"`.

    Raises:
        ValueError: when it is none of these.
    """
    match = _LIMIT.fullmatch(limit) if isinstance(limit, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{limit!r} is not a rate such as '10/s', '100/m' or '500/h'")
    return Limit(float(match[1]), _SECONDS[match[2]])


def _callers_depth() -> int:
    """The `stacklevel` of the first frame outside this package, for a `warnings.warn` in the caller."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back and (frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_code.co_filename == "<string>"):
        frame, depth = frame.f_back, depth + 1
    return depth


def callers_place() -> str:
    """`file:line` of the first frame outside this package: where a user declared something."""
    frame: Any = sys._getframe(1)
    while frame and (frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_code.co_filename == "<string>"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""


# -- what sessions and tasks emit by themselves --------------------------------------------------


SESSION_METRICS = ("duration", "success_rate", "interactions")


@functools.lru_cache(maxsize=256)
def session_metrics(name: str = "session") -> tuple[Metric, Metric, Metric]:
    """The three metrics of the sessions called *name*: duration, success rate, interactions."""
    return (
        Metric(
            f"{name}.duration",
            unit="milliseconds",
            success_criteria="LowerThanBaseline",
            name=f"{name}: duration",
            description="From the first to the last activity of a session.",
        ),
        Metric(
            f"{name}.success_rate",
            unit="percent",
            success_criteria="HigherThanBaseline",
            name=f"{name}: success rate",
            description="Successful interactions of all that succeeded or failed, 0 to 100, per session that had any.",
        ),
        Metric(
            f"{name}.interactions",
            unit="count",
            success_criteria="HigherThanBaseline",
            aggregation="sum",
            name=f"{name}: interactions",
            description="Interactions that succeeded or failed, per session.",
        ),
    )


_TASK_METRICS: dict[str, dict[str, Any]] = {
    "success_rate": {
        "unit": "ratio",
        "success_criteria": "HigherThanBaseline",
        "description": "1 for a run that succeeded, 0 for one that failed; cancelled and abandoned runs are left out.",
    },
    "duration": {
        "unit": "milliseconds",
        "success_criteria": "LowerThanBaseline",
        "description": "Wall time of a finished run, from its start to its end.",
    },
    "time_to_first_item": {
        "unit": "milliseconds",
        "success_criteria": "LowerThanBaseline",
        "description": "From the start of a stream to its first item.",
    },
}


def task_metrics(key: str, which: Iterable[str] = ("success_rate", "duration")) -> dict[str, Metric]:
    """The metrics that the runs of the task *key* feed, by suffix."""
    return {
        suffix: Metric(f"{key}.{suffix}", name=f"{key}: {suffix.replace('_', ' ')}", **_TASK_METRICS[suffix])
        for suffix in which
    }


TASK_METRICS: tuple[str, ...] = tuple(_TASK_METRICS)

BUSINESS_CONVERSION = Metric(
    "business.conversion",
    unit="dollars",
    success_criteria="HigherThanBaseline",
    aggregation="sum",
    name="Conversion value",
    description="Value of conversions. A conversion rate is an occurrence metric on the same event key.",
)
REVENUE_IMPACT = Metric(
    "revenue.impact",
    unit="dollars",
    success_criteria="HigherThanBaseline",
    aggregation="sum",
    name="Revenue impact",
    description="Revenue; `source` in the data says where it came from.",
)
USER_SATISFACTION = Metric(
    "user.satisfaction",
    unit="percent",
    success_criteria="HigherThanBaseline",
    name="User satisfaction",
    description="Satisfaction score, 0 to 100; `feedbackType` in the data.",
)
NEGATIVE_FEEDBACK = Metric(
    "user.negative_feedback",
    measure="occurrence",
    success_criteria="LowerThanBaseline",
    name="Negative feedback",
    description="A satisfaction score below 50, or a thumb down.",
)
TASK_SUCCESS = Metric(
    "task.success_rate",
    unit="ratio",
    success_criteria="HigherThanBaseline",
    name="Task success rate",
    description="1 for success, 0 for failure; `taskType` in the data.",
)
STANDARD_METRICS: tuple[Metric, ...] = (
    *session_metrics(),
    BUSINESS_CONVERSION,
    REVENUE_IMPACT,
    USER_SATISFACTION,
    NEGATIVE_FEEDBACK,
    TASK_SUCCESS,
)


# -- the catalog ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventRule:
    """How the values of one event key travel: what all metrics on that key need, taken together."""

    event_key: str
    numeric: bool
    counted: bool
    rollup: Rollup
    rate: Limit | None
    analysis_units: frozenset[str]
    declared: bool = True


_FINENESS = {"each": 0, "sum": 1, "mean": 2, "last": 2, "once": 3}


def event_rule(event_key: str, metrics: Iterable[Metric]) -> EventRule:
    """The rule for *event_key*, which feeds *metrics*: the finest rollup and the strictest limit win."""
    feeding = tuple(metrics)
    numeric = any(metric.numeric for metric in feeding)
    wanted = {cast("Rollup", metric.rollup) for metric in feeding if metric.numeric or not numeric}
    counting = any(metric.measure == "count" and metric.rollup == "each" for metric in feeding)
    finest = min(wanted, key=_FINENESS.__getitem__)
    clash = {"mean", "last", "once", "sum"} & wanted
    rollup: Rollup = "each" if counting or len(clash) > 1 else finest
    rates = [metric.rate for metric in feeding if metric.rate]
    rate = min(rates, key=lambda one: one.count / one.seconds) if rates else None
    units = frozenset(unit for metric in feeding for unit in metric.analysis_units or ())
    return EventRule(event_key, numeric, not numeric and counting, rollup, rate, units)


_RULES_CAP = 10_000
MAX_IMPLIED = 6_000


def _nobodys(event_key: str) -> EventRule:
    return EventRule(event_key, False, False, "each", None, frozenset(), declared=False)


class Catalog:
    """The metrics that a program needs, by key.

    Adding the same definition twice is fine; two different ones under one key are refused.
    Safe to use from many threads.
    """

    def __init__(self, metrics: Iterable[Metric] = ()) -> None:
        self._lock = threading.RLock()
        self._metrics: dict[str, Metric] = {}
        self._feeding: dict[str, dict[str, Metric]] = {}
        self._places: dict[str, str] = {}
        self._rules: dict[str, EventRule] = {}
        self._implied = 0
        self.add(*metrics)

    def add(self, *metrics: Metric) -> None:
        """Declare *metrics*.

        Raises:
            ConflictingDefinition: a different definition stands under the same key; names both places.
            DefinitionError: something given is not a `Metric`.
        """
        place = callers_place()
        for metric in metrics:
            if not isinstance(metric, Metric):
                raise DefinitionError(f"catalog: give Metric objects, not a {type(metric).__name__}")
            with self._lock:
                known = self._metrics.get(metric.key)
                if known is None:
                    self._put(metric, place)
                elif known != metric:
                    raise ConflictingDefinition(
                        f"two definitions of metric {metric.key!r}: {_differences(known, metric)}; declared at "
                        f"{self._places[metric.key] or 'an unknown place'} and {place}: "
                        "make them equal, rename one, or say catalog.replace(metric)"
                    )

    def replace(self, metric: Metric) -> None:
        """Put *metric* in the place of whatever stands under its key."""
        if not isinstance(metric, Metric):
            raise DefinitionError(f"catalog: give a Metric object, not a {type(metric).__name__}")
        with self._lock:
            known = self._metrics.get(metric.key)
            if known is not None:
                del self._feeding[known.event][known.key]
                self._rules.pop(known.event, None)
            self._put(metric, callers_place())

    def _put(self, metric: Metric, place: str) -> None:
        self._metrics[metric.key] = metric
        self._feeding.setdefault(metric.event, {})[metric.key] = metric
        self._places[metric.key] = place
        self._rules.pop(metric.event, None)

    def imply(self, name: str, keys: Iterable[str], made: Callable[[], Iterable[Metric]]) -> None:
        """Declare the metrics that *name*, of a session or a task, implies, but for those that are there already.

        Names may come from outside, so there is a limit to them: beyond it, said once, they are not declared.

        Args:
            name: the session's name or the task's key.
            keys: the keys of the metrics.
            made: makes them; asked only when one is missing.
        """
        missing = [key for key in keys if key not in self._metrics]
        if not missing:
            return
        if self._implied + len(missing) > MAX_IMPLIED:
            ledger.warn(
                "too_many_names",
                "",
                f"{name}: more than {MAX_IMPLIED} metrics are implied by names of sessions and tasks, and LaunchDarkly "
                "needs each of them: give what varies as id= or data=, not in the name",
            )
            return
        self._implied += len(missing)
        self.add(*(metric for metric in made() if metric.key in missing))

    def forked(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget every definition."""
        with self._lock:
            for table in (self._metrics, self._feeding, self._places, self._rules):
                table.clear()
            self._implied = 0

    def get(self, key: str) -> Metric | None:
        """The metric under *key*, or None."""
        return self._metrics.get(key)

    def place(self, key: str) -> str:
        """`file:line` where the metric under *key* was declared; empty when unknown."""
        return self._places.get(key, "")

    def rule(self, event_key: str) -> EventRule:
        """How values of *event_key* travel; for a key that nobody declared, each value by itself."""
        found = self._rules.get(event_key)
        if found is None:
            with self._lock:
                feeding = [*self._feeding.get(event_key, {}).values()]
                found = event_rule(event_key, feeding) if feeding else _nobodys(event_key)
                if feeding or len(self._rules) < _RULES_CAP:  # keys that nobody declared may come from outside
                    self._rules[event_key] = found
        return found

    def __getitem__(self, key: str) -> Metric:
        try:
            return self._metrics[key]
        except KeyError:
            raise KeyError(
                f"no metric {key!r} in the catalog; declare it with catalog.add(Metric({key!r}, ...))"
            ) from None

    def __contains__(self, key: object) -> bool:
        return key in self._metrics

    def __iter__(self) -> Iterator[Metric]:
        with self._lock:
            return iter([self._metrics[key] for key in sorted(self._metrics)])

    def __len__(self) -> int:
        return len(self._metrics)

    def __repr__(self) -> str:
        return f"<Catalog of {len(self)} metrics>"


def _differences(one: Metric, other: Metric) -> str:
    fields = [field for field in Metric.__dataclass_fields__ if getattr(one, field) != getattr(other, field)]
    return ", ".join(f"{field} is {getattr(one, field)!r} and {getattr(other, field)!r}" for field in fields)


catalog = Catalog(STANDARD_METRICS)
