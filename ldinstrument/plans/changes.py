"""What a plan is made of: changes, field by field, and what else stands in LaunchDarkly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ApiError
from ..metrics.metric import Metric
from ..rest import Difference, RemoteMetric

Action = Literal["create", "unchanged", "drift", "error"]
Result = Literal["", "created", "created by another", "updated", "not taken", "failed", "not tried"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of the catalog, and what has to happen to it.

    Args:
        metric: as the code declares it.
        action: `create`, `unchanged`, `drift` (it exists, but differs) or `error` (it must not be
            applied).
        found: as LaunchDarkly holds it; None when it does not exist.
        differences: field by field; labels (name, description, tags) alone are no drift.
        problem: why it is an error, and what to do.
        place: `file:line` where it is declared.
        result: what `apply` did; `not taken`: LaunchDarkly accepted the update, and left fields as
            they were.
        failure: why that failed.

    """

    metric: Metric
    action: Action
    found: RemoteMetric | None = None
    differences: tuple[Difference, ...] = ()
    problem: str = ""
    place: str = ""
    result: Result = ""
    failure: ApiError | None = None


@dataclass(frozen=True, slots=True)
class Finer:
    """A metric in LaunchDarkly that needs the single values of an event which sessions fold
    together.

    Args:
        found: the metric that nobody declared here.
        event_key: the event that both read.
        rollup: how the catalog folds the values of that event.
        declared: the catalog's metrics on that event.

    """

    found: RemoteMetric
    event_key: str
    rollup: str
    declared: tuple[str, ...]

    def advice(self) -> str:
        """Return what is wrong, and what to do."""
        return (
            f"{self.found.key} reads the event {self.event_key!r} as {_statistic(self.found)}, "
            f"but sessions send one "
            f"{self.rollup} of it: declare that metric in the code too, or set rollup='each' on "
            f"{self.declared[0]}"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen so that LaunchDarkly and the code agree; after `apply`, also what did
    happen.

    Args:
        project: the LaunchDarkly project.
        host: where LaunchDarkly is.
        changes: one per metric of the catalog.
        unmanaged: metrics in LaunchDarkly that the catalog does not have; None when nobody looked.
        finer: metrics in LaunchDarkly that need finer values than the catalog's rollups send.
        missing_units: analysis units that the catalog asks for and the project does not have, and
            what to do.
        remarks: what could not be found out, and why.

    """

    project: str
    host: str
    changes: tuple[Change, ...] = ()
    unmanaged: tuple[RemoteMetric, ...] | None = None
    finer: tuple[Finer, ...] = ()
    missing_units: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def create(self) -> tuple[Change, ...]:
        """What does not exist yet."""
        return self._of("create")

    @property
    def drift(self) -> tuple[Change, ...]:
        """What exists, but differs in more than its labels."""
        return self._of("drift")

    @property
    def errors(self) -> tuple[Change, ...]:
        """What must not be applied as it stands."""
        return self._of("error")

    @property
    def labels(self) -> tuple[Change, ...]:
        """What differs in its labels (name, description, tags) only."""
        return tuple(change for change in self._of("unchanged") if change.differences)

    @property
    def failed(self) -> tuple[Change, ...]:
        """What `apply` tried in vain, or did not come to."""
        return tuple(change for change in self.changes if change.result in ("failed", "not tried"))

    @property
    def not_taken(self) -> tuple[Change, ...]:
        """What LaunchDarkly accepted, and did not make as asked: their `differences` are what is
        left.
        """
        return tuple(
            change
            for change in self.changes
            if change.result == "not taken" or (change.result == "created" and change.differences)
        )

    def _of(self, action: Action) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.action == action)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {
            "project": self.project,
            "host": self.host,
            "changes": [_change_json(change) for change in self.changes],
            "unmanaged": None
            if self.unmanaged is None
            else [_found_json(metric) for metric in self.unmanaged],
            "finer": [
                {"key": finer.found.key, "eventKey": finer.event_key, "advice": finer.advice()}
                for finer in self.finer
            ],
            "missingAnalysisUnits": [
                {"unit": unit, "advice": advice} for unit, advice in self.missing_units
            ],
            "remarks": list(self.remarks),
        }


def _change_json(change: Change) -> dict[str, Any]:
    found = change.found
    return {
        "key": change.metric.key,
        "action": change.action,
        "declaredAt": change.place,
        "differences": [
            {
                "field": difference.field,
                "wanted": difference.wanted,
                "found": difference.found,
                "label": difference.label,
            }
            for difference in change.differences
        ],
        "problem": change.problem,
        "experiments": found.experiments if found else None,
        "url": found.url if found else None,
        "result": change.result,
        "failure": str(change.failure) if change.failure else "",
    }


def _found_json(metric: RemoteMetric) -> dict[str, Any]:
    return {"key": metric.key, "name": metric.name, "kind": metric.kind, "url": metric.url}


def _statistic(found: RemoteMetric) -> str:
    if not found.numeric:
        return "a count of events" if found.measure == "count" else "an occurrence"
    return (
        f"percentile {found.percentile} of the values"
        if found.percentile
        else f"the {found.aggregation} of values"
    )
