"""Metric definitions: what LaunchDarkly must know about an event so that it counts.

The rules come from LaunchDarkly's metrics API (the fields of `MetricPost`), from what its analysis
does with them, and from the rollups that turn the many values of one session into few events
without changing that analysis.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from ..diagnostics import caller_place, warn_once
from ..errors import ConflictingDefinition, DefinitionError
from ..process import on_fork
from ..values import Frozen
from .metric import Limit, Metric, Rollup
from .standard import STANDARD_METRICS

# -- the catalog ---------------------------------------------------------------------------------


class EventRouting(Frozen):
    """How the values of one event key travel: what all metrics on that key need, taken together."""

    __slots__ = (
        "event_key",
        "numeric",
        "counted",
        "rollup",
        "rate",
        "analysis_units",
        "declared",
    )
    event_key: str
    numeric: bool
    counted: bool
    rollup: Rollup
    rate: Limit | None
    analysis_units: frozenset[str]
    declared: bool

    def __init__(
        self,
        event_key: str,
        numeric: bool,
        counted: bool,
        rollup: Rollup,
        rate: Limit | None,
        analysis_units: frozenset[str],
        declared: bool = True,
    ) -> None:
        self._fill(event_key, numeric, counted, rollup, rate, analysis_units, declared)


FINENESS: Mapping[str, int] = {"each": 0, "sum": 1, "mean": 2, "last": 2, "once": 3}


def event_routing(event_key: str, metrics: Iterable[Metric]) -> EventRouting:
    """Return the routing of *event_key*, which feeds *metrics*: the finest rollup and the strictest
    limit win.
    """
    feeding = tuple(metrics)
    numeric = any(metric.numeric for metric in feeding)
    wanted = {cast("Rollup", metric.rollup) for metric in feeding if metric.numeric or not numeric}
    counting = any(metric.measure == "count" and metric.rollup == "each" for metric in feeding)
    finest = min(wanted, key=FINENESS.__getitem__)
    clash = {"mean", "last", "once", "sum"} & wanted
    rollup: Rollup = "each" if counting or len(clash) > 1 else finest
    rates = [metric.rate for metric in feeding if metric.rate]
    rate = min(rates, key=lambda limit: limit.count / limit.seconds) if rates else None
    units = frozenset(unit for metric in feeding for unit in metric.analysis_units or ())
    return EventRouting(event_key, numeric, not numeric and counting, rollup, rate, units)


MAX_ROUTINGS = 10_000
MAX_IMPLIED = 6_000


def undeclared_routing(event_key: str) -> EventRouting:
    """Return the routing of an event key that no metric declares: each value by itself."""
    return EventRouting(event_key, False, False, "each", None, frozenset(), declared=False)


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
        self._routings: dict[str, EventRouting] = {}
        self._implied = 0
        self._change_callbacks: list[Callable[[], object]] = []
        self._use_callbacks: list[Callable[[], object]] = []
        self.names_units = False  # whether any metric says by which context kind it is analysed
        self.version = 0  # counts every change: a plan made of routings is good for one version
        self.add(*metrics)

    def add(self, *metrics: Metric) -> None:
        """Declare *metrics*.

        Raises:
            ConflictingDefinition: a different definition stands under the same key; names both
                places.
            DefinitionError: something given is not a `Metric`.
        """
        place = caller_place()
        for metric in metrics:
            if not isinstance(metric, Metric):
                raise DefinitionError(
                    f"catalog: give Metric objects, not a {type(metric).__name__}"
                )
            with self._lock:
                known = self._metrics.get(metric.key)
                if known is None:
                    self._put(metric, place)
                elif known != metric:
                    raise ConflictingDefinition(
                        f"two definitions of metric {metric.key!r}: "
                        f"{_differences(known, metric)}; declared at "
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
                self._routings.pop(known.event, None)
            self._put(metric, caller_place())

    def _put(self, metric: Metric, place: str) -> None:
        self._metrics[metric.key] = metric
        self._feeding.setdefault(metric.event, {})[metric.key] = metric
        self._places[metric.key] = place
        self.names_units = self.names_units or bool(metric.analysis_units)
        self.version += 1
        self._routings.pop(metric.event, None)
        for callback in self._change_callbacks:
            callback()

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call *callback* whenever a metric is declared; it must neither wait nor raise."""
        if callback not in self._change_callbacks:
            self._change_callbacks.append(callback)

    def on_use(self, callback: Callable[[], object]) -> None:
        """Call *callback* when a declared event key is first used; it must neither wait nor
        raise.
        """
        if callback not in self._use_callbacks:
            self._use_callbacks.append(callback)

    def in_use(self, metric: Metric) -> bool:
        """Tell whether the events of *metric* have been asked for since it was declared."""
        return metric.event in self._routings

    def forget_callbacks(self) -> None:
        """Tell nobody of later changes (tests)."""
        self._change_callbacks.clear()
        self._use_callbacks.clear()

    def declare_implied(
        self, name: str, keys: Iterable[str], made: Callable[[], Iterable[Metric]]
    ) -> None:
        """Declare the metrics that *name*, of a session or a task, implies, but for those that are
        there already.

        Names may come from outside, so there is a limit to them: beyond it, which is logged once,
        they are not declared.

        Args:
            name: the session's name or the task's key.
            keys: the keys of the metrics.
            made: makes them; asked only when one is missing.
        """
        missing = [key for key in keys if key not in self._metrics]
        if not missing:
            return
        if self._implied + len(missing) > MAX_IMPLIED:
            warn_once(
                "too_many_names",
                "",
                f"{name}: more than {MAX_IMPLIED} metrics are implied by names of sessions and "
                f"tasks, and LaunchDarkly "
                "needs each of them: give what varies as id= or data=, not in the name",
            )
            return
        self._implied += len(missing)
        self.add(*(metric for metric in made() if metric.key in missing))

    def forked(self) -> None:
        """Renew the lock in a forked child: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget every definition."""
        with self._lock:
            for table in (self._metrics, self._feeding, self._places, self._routings):
                table.clear()
            self._implied = 0
            self.names_units = False
            self.version += 1

    def get(self, key: str) -> Metric | None:
        """Return the metric under *key*, or None."""
        return self._metrics.get(key)

    def place(self, key: str) -> str:
        """Return `file:line` where the metric under *key* was declared; empty when unknown."""
        return self._places.get(key, "")

    def routing(self, event_key: str) -> EventRouting:
        """Return how values of *event_key* travel; undeclared ones each by itself."""
        found = self._routings.get(event_key)
        if found is None:
            with self._lock:
                feeding = [*self._feeding.get(event_key, {}).values()]
                found = (
                    event_routing(event_key, feeding) if feeding else undeclared_routing(event_key)
                )
                # Keys that nobody declared may come from outside.
                if feeding or len(self._routings) < MAX_ROUTINGS:
                    self._routings[event_key] = found
                for callback in self._use_callbacks if feeding else ():
                    callback()
        return found

    def __getitem__(self, key: str) -> Metric:
        try:
            return self._metrics[key]
        except KeyError:
            raise KeyError(
                f"no metric {key!r} in the catalog; declare it with "
                f"catalog.add(Metric({key!r}, ...))"
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
    fields = [field for field in Metric.__slots__ if getattr(one, field) != getattr(other, field)]
    return ", ".join(
        f"{field} is {getattr(one, field)!r} and {getattr(other, field)!r}" for field in fields
    )


catalog = Catalog(STANDARD_METRICS)
on_fork(in_child=catalog.forked)
