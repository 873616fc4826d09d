"""An experiment as LaunchDarkly holds it: what of it decides whether a metric's events count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .remote import text_of


@dataclass(frozen=True, slots=True)
class Experiment:
    """The current iteration of an experiment.

    Args:
        key, name, environment: whose it is.
        status: `not_started`, `running` or `stopped`; empty when LaunchDarkly does not say.
        randomization_unit: the context kind that it randomizes by; empty when LaunchDarkly does not say.
        metrics: the version of each metric that the iteration counts, by metric key; an empty text for a member of a
            metric group.
        analysis_units: the context kind by which it analyses a metric, where that is not the randomization unit.
        flags: the keys of its flags.
    """

    key: str
    name: str
    environment: str
    status: str
    randomization_unit: str
    metrics: Mapping[str, str]
    analysis_units: Mapping[str, str]
    flags: tuple[str, ...]

    def unit_of(self, metric: str) -> str:
        """The context kind by which it analyses *metric*; empty when unknown."""
        return self.analysis_units.get(metric, self.randomization_unit)


def experiment(raw: Any, environment: str) -> Experiment:
    """Read LaunchDarkly's `Experiment`; what is not there stays empty."""
    found = mapping(raw)
    iteration = mapping(found.get("currentIteration"))
    counted = [one for one in _metrics(iteration) if isinstance(one.get("key"), str)]
    return Experiment(
        key=text_of(found, "key") or "",
        name=text_of(found, "name") or text_of(found, "key") or "",
        environment=environment,
        status=text_of(iteration, "status") or "",
        randomization_unit=text_of(iteration, "randomizationUnit") or "",
        metrics={one["key"]: text_of(one, "_versionId") or "" for one in counted},
        analysis_units={one["key"]: unit for one in counted if (unit := text_of(one, "analysisUnit"))},
        flags=tuple(mapping(iteration.get("flags"))),
    )


def _metrics(iteration: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The metrics of an iteration, also those in its groups and funnels."""
    first = [iteration.get(name) for name in ("primaryMetric", "primarySingleMetric", "primaryFunnel")]
    for name in ("secondaryMetrics", "metrics"):
        listed = iteration.get(name)
        first += listed if isinstance(listed, list) else []
    for one in map(mapping, first):
        members = one.get("metrics")
        yield from [one] if not isinstance(members, list) else map(mapping, members)


def mapping(value: Any) -> Mapping[str, Any]:
    """*value* when it is a JSON object, and an empty one otherwise."""
    return value if isinstance(value, dict) else {}
