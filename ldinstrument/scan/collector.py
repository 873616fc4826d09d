"""What the modules of a program declare and use, gathered into one catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import DefinitionError
from ..metrics import catalogs
from ..metrics.catalogs import Catalog
from ..metrics.metric import Metric
from ..metrics.model_calls import AI_METRICS, ai_metrics
from ..metrics.standard import (
    BUSINESS_CONVERSION,
    NEGATIVE_FEEDBACK,
    REQUEST_METRICS,
    REVENUE_IMPACT,
    SESSION_METRICS,
    STANDARD_METRICS,
    TASK_SUCCESS,
    USER_SATISFACTION,
    session_metrics,
    task_metrics,
)
from .importing import imported
from .source import Use, uses_in

PATTERN_METRICS: Mapping[str, tuple[Metric, ...]] = {
    "conversion": (BUSINESS_CONVERSION,),
    "satisfaction": (USER_SATISFACTION, NEGATIVE_FEEDBACK),
    "feedback": (USER_SATISFACTION, NEGATIVE_FEEDBACK),
    "revenue": (REVENUE_IMPACT,),
    "task_success": (TASK_SUCCESS,),
}
_STANDARD = {metric.key: metric for metric in STANDARD_METRICS}


@dataclass(frozen=True, slots=True)
class Undeclared:
    """An event key that the code records and no metric reads.

    Args:
        key: the event key.
        place: `file:line`.
        similar: a declared event key that it may be a misspelling of, or an empty string.

    """

    key: str
    place: str
    similar: str = ""

    def advice(self) -> str:
        """Return what to do."""
        if self.similar.lower() == self.key.lower():
            return f"it differs only by case from {self.similar!r}; event keys are case-sensitive"
        if self.similar:
            return f"did you mean {self.similar!r}? If not: catalog.add(Metric({self.key!r}, ...))"
        return f"no metric reads it; declare one: catalog.add(Metric({self.key!r}, ...))"


@dataclass(frozen=True, slots=True)
class Scan:
    """What a program needs of LaunchDarkly, as its code says.

    Args:
        metrics: the definitions, sorted by key.
        places: `file:line` by metric key.
        undeclared: event keys that are recorded and that no metric reads.
        dynamic: places whose keys only running the code would tell: (`file:line`, what is called
            there).
        unreadable: modules that could not be imported or read, and definitions that cannot work,
            with the reason.
        modules: the modules that were looked at.

    """

    metrics: tuple[Metric, ...]
    places: Mapping[str, str]
    undeclared: tuple[Undeclared, ...] = ()
    dynamic: tuple[tuple[str, str], ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    modules: tuple[str, ...] = ()

    def place(self, key: str) -> str:
        """`file:line` of the metric under *key*; empty when unknown."""
        return self.places.get(key, "")


class Collector:
    """Collects what the modules of a program declare and use."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._places: dict[str, str] = {}
        self._events: list[tuple[str, str]] = []
        self._dynamic: list[tuple[str, str]] = []
        self.unreadable: list[tuple[str, str]] = []
        self._modules: list[str] = []
        self._from_code = False

    def take_catalog(self, target: str) -> None:
        """`package.module:attribute`."""
        name, _, attribute = target.partition(":")
        found: Any = imported(name)
        for part in attribute.split("."):
            found = getattr(found, part, None)
        metrics = (
            list(found)
            if isinstance(found, Iterable) and not isinstance(found, (str, Mapping))
            else []
        )
        if not metrics or not all(isinstance(metric, Metric) for metric in metrics):
            raise DefinitionError(
                f"{target}: there is no Catalog and no list of Metric objects under that name"
            )
        self._modules.append(name)
        for metric in metrics:
            self._declare(metric, found.place(metric.key) if isinstance(found, Catalog) else "")

    def read(self, name: str, module: ModuleType | None, path: Path | None) -> None:
        """One module: its top-level definitions and its source."""
        self._from_code = True
        self._modules.append(name)
        for value in list(vars(module).values()) if module is not None else ():
            # Not isinstance: it would ask a proxy (Flask's request) for its class.
            if type(value) is Metric and value.key not in _STANDARD:
                self._declare(value, catalogs.catalog.place(value.key) or str(path or name))
        if path is None or path.suffix != ".py":
            return
        try:
            found = list(uses_in(path.read_bytes(), vars(module) if module else None))
        except (OSError, ValueError, SyntaxError, RecursionError) as error:
            self.unreadable.append((str(path), f"its source cannot be read: {error}"))
            return
        for use in found:
            self._use(use, f"{path}:{use.line}")

    def _use(self, use: Use, place: str) -> None:
        if use.kind == "event":
            self._events.append((use.key, place))
        elif use.kind == "dynamic":
            self._dynamic.append((place, use.key))
        elif use.kind == "invalid":
            self.unreadable.append((place, use.key))
        else:
            try:
                for metric in _metrics_of(use):
                    self._declare(metric, place)
            except DefinitionError as error:
                self.unreadable.append((place, str(error)))

    def _declare(self, metric: Metric, place: str) -> None:
        """Declare *metric*; the default catalog wins, for recording uses that."""
        known = self._metrics.get(metric.key)
        if known is None:
            standing = catalogs.catalog.get(metric.key)
            self._metrics[metric.key] = (
                metric if standing is None or not self._from_code else standing
            )
            self._places[metric.key] = place
        elif known != metric and metric.key not in catalogs.catalog:
            other = _short(self._places[metric.key])
            self.unreadable.append(
                (place, f"metric {metric.key!r} is defined otherwise at {other}")
            )

    def found(self) -> list[Metric]:
        """Return the metrics found so far, and those that a recorded event key may mean."""
        named = {key for key, _ in self._events}
        return [
            *self._metrics.values(),
            *(metric for metric in STANDARD_METRICS if named & {metric.key, metric.event}),
        ]

    def result(self) -> Scan:
        """Everything, with the event keys resolved that only now can be."""
        if self._from_code:
            for metric in catalogs.catalog:
                # A standard metric belongs to the program only when something uses it, or it was
                # replaced.
                if _STANDARD.get(metric.key) != metric:
                    self._declare(metric, catalogs.catalog.place(metric.key))
                    self._places[metric.key] = (
                        catalogs.catalog.place(metric.key) or self._places[metric.key]
                    )
        undeclared = [
            found for key, place in self._events if (found := self._resolve(key, place)) is not None
        ]
        return Scan(
            metrics=tuple(self._metrics[key] for key in sorted(self._metrics)),
            places={key: _short(place) for key, place in self._places.items()},
            undeclared=tuple(undeclared),
            dynamic=tuple((_short(place), what) for place, what in dict.fromkeys(self._dynamic)),
            unreadable=tuple((_short(place), reason) for place, reason in self.unreadable),
            modules=tuple(self._modules),
        )

    def _resolve(self, key: str, place: str) -> Undeclared | None:
        for metric in (*self._metrics.values(), *STANDARD_METRICS):
            if key in (metric.key, metric.event):
                self._declare(metric, place)
                return None
        known = {metric.event for metric in self._metrics.values()} | set(_STANDARD)
        by_case = [event for event in sorted(known) if event.lower() == key.lower()]
        close = by_case or get_close_matches(key, sorted(known), n=1, cutoff=0.85)
        return Undeclared(key, _short(place), close[0] if close else "")


def _metrics_of(use: Use) -> Iterator[Metric]:
    if use.kind == "task":
        of_calls = [suffix for suffix in use.metrics if suffix in AI_METRICS]
        of_tasks = [suffix for suffix in use.metrics if suffix not in AI_METRICS]
        yield from (
            *task_metrics(use.key, of_tasks).values(),
            *ai_metrics(use.key, of_calls).values(),
        )
    elif use.kind == "session":
        known = tuple(suffix for suffix in use.metrics if suffix in SESSION_METRICS)
        yield from session_metrics(use.key, known)
    elif use.kind == "requests":
        yield from REQUEST_METRICS
    elif use.kind == "pattern":
        yield from PATTERN_METRICS[use.key]
    elif use.metric is not None:
        yield use.metric


def _short(place: str) -> str:
    """*place* relative to the current directory, when it is in there."""
    path, colon, line = place.rpartition(":")
    path = path if colon and line.isdigit() else place
    try:
        shown = str(Path(path).resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        shown = path
    return f"{shown}:{line}" if path != place else shown
