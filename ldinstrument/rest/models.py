"""A metric as LaunchDarkly holds it, and how it differs from what is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Unreachable
from ..metrics.metric import Measure
from .calls import path_of


@dataclass(frozen=True, slots=True)
class Experiment:
    """The current iteration of an experiment.

    Args:
        key, name, environment: whose it is.
        status: `not_started`, `running` or `stopped`; empty when LaunchDarkly does not say.
        randomization_unit: the context kind that it randomizes by; empty when LaunchDarkly does not
            say.
        metrics: the version of each metric that the iteration counts, by metric key; an empty text
            for a member of a metric group.
        analysis_units: the context kind by which it analyses a metric, where that is not the
            randomization unit.
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
        """Return the context kind by which it analyses *metric*; empty when unknown."""
        return self.analysis_units.get(metric, self.randomization_unit)


def experiment(raw: Any, environment: str) -> Experiment:
    """Read LaunchDarkly's `Experiment`; what is not there stays empty."""
    found = mapping(raw)
    iteration = mapping(found.get("currentIteration"))
    counted = [metric for metric in _metrics(iteration) if isinstance(metric.get("key"), str)]
    return Experiment(
        key=text_of(found, "key") or "",
        name=text_of(found, "name") or text_of(found, "key") or "",
        environment=environment,
        status=text_of(iteration, "status") or "",
        randomization_unit=text_of(iteration, "randomizationUnit") or "",
        metrics={metric["key"]: text_of(metric, "_versionId") or "" for metric in counted},
        analysis_units={
            metric["key"]: unit for metric in counted if (unit := text_of(metric, "analysisUnit"))
        },
        flags=tuple(mapping(iteration.get("flags"))),
    )


def _metrics(iteration: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the metrics of an iteration, also those in its groups and funnels."""
    first = [
        iteration.get(name) for name in ("primaryMetric", "primarySingleMetric", "primaryFunnel")
    ]
    for name in ("secondaryMetrics", "metrics"):
        listed = iteration.get(name)
        first += listed if isinstance(listed, list) else []
    for metric in map(mapping, first):
        members = metric.get("metrics")
        yield from [metric] if not isinstance(members, list) else map(mapping, members)


def mapping(value: Any) -> Mapping[str, Any]:
    """*value* when it is a JSON object, and an empty one otherwise."""
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class RemoteMetric:
    """A metric as LaunchDarkly holds it.

    Args:
        key, name, kind: `kind` is `custom`, `pageview`, `click` or `trace`.
        event_key: the event that feeds it; None for page views, clicks and traces.
        numeric, unit, success_criteria, aggregation, percentile: as in `Metric`, or LaunchDarkly's
            default.
        zero_fill: whether units without events count as 0.
        analysis_units: context kinds.
        last_seen: epoch milliseconds of the last event that it got, None when there was none.
        version: grows with each change.
        experiments: how many experiments use it; None when LaunchDarkly did not say.
        url: the metric in LaunchDarkly's UI.
        raw: the whole answer, for what this type leaves out.

    """

    key: str
    name: str
    kind: str
    event_key: str | None
    numeric: bool
    unit: str | None
    success_criteria: str | None
    aggregation: str
    percentile: int | None
    zero_fill: bool
    analysis_units: tuple[str, ...]
    tags: tuple[str, ...]
    description: str
    archived: bool
    last_seen: int | None
    version: int | None
    experiments: int | None
    url: str
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def measure(self) -> Measure:
        """`value`, `count` or `occurrence`."""
        if self.numeric:
            return "value"
        return "count" if self.aggregation == "sum" else "occurrence"


def remote_metric(raw: Any, project: str, host_url: str, request: str = "") -> RemoteMetric:
    """Read LaunchDarkly's `MetricRep`.

    Raises:
        Unreachable: the answer is JSON, but no metric.

    """
    if not isinstance(raw, dict) or not isinstance(raw.get("key"), str):
        raise Unreachable("the answer is not a metric; is the host right?", request=request)
    percentile = raw.get("percentileValue") if raw.get("analysisType") == "percentile" else None
    default = raw.get("eventDefault")
    last_seen, version = raw.get("lastSeen"), raw.get("_version")
    return RemoteMetric(
        key=raw["key"],
        name=text_of(raw, "name") or raw["key"],
        kind=text_of(raw, "kind") or "custom",
        event_key=text_of(raw, "eventKey"),
        numeric=raw.get("isNumeric") is True,
        unit=text_of(raw, "unit"),
        success_criteria=text_of(raw, "successCriteria"),
        aggregation=text_of(raw, "unitAggregationType") or "average",
        percentile=percentile if isinstance(percentile, int) else None,
        zero_fill=not (isinstance(default, dict) and default.get("disabled") is True),
        analysis_units=_strings(raw, "analysisUnits") or _strings(raw, "randomizationUnits"),
        tags=_strings(raw, "tags"),
        description=text_of(raw, "description") or "",
        archived=raw.get("archived") is True,
        last_seen=last_seen if isinstance(last_seen, int) and last_seen > 0 else None,
        version=version if isinstance(version, int) else None,
        experiments=_experiments(raw),
        url=_site(raw, project, host_url),
        raw=raw,
    )


def text_of(raw: Mapping[str, Any], name: str) -> str | None:
    """Return the string under *name*; None when it is absent, empty or something else."""
    value = raw.get(name)
    return value if isinstance(value, str) and value else None


def _strings(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = raw.get(name)
    return (
        tuple(value for value in values if isinstance(value, str))
        if isinstance(values, list)
        else ()
    )


def _experiments(raw: Mapping[str, Any]) -> int | None:
    for count in (raw.get("experimentCount"), raw.get("activeExperimentCount")):
        if type(count) is int:
            return count
    listed = raw.get("experiments")
    return len(listed) if isinstance(listed, list) else None


def _site(raw: Mapping[str, Any], project: str, host_url: str) -> str:
    site = raw.get("_site")
    href = site.get("href") if isinstance(site, dict) else None
    if isinstance(href, str) and href.startswith("/") and not href.startswith("//"):
        return host_url + href
    return host_url + path_of("projects", project, "metrics", raw["key"]).removeprefix("/api/v2")


# -- wanted and found ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a metric that is not as wanted.

    Args:
        field: LaunchDarkly's name, as a JSON Patch path without the first slash.
        wanted, found: the values.
        label: only what people read differs (name, description, tags): no experiment is touched.

    """

    field: str
    wanted: Any
    found: Any
    label: bool = False


def differences(body: Mapping[str, Any], found: RemoteMetric) -> tuple[Difference, ...]:
    """Return what differs between a wanted `MetricPost` *body* and the metric *found*, field by
    field.

    What the body leaves open (analysis units, description) is not compared; absent fields count as
    LaunchDarkly's defaults (mean, average, zero-fill on, higher is better).
    """
    return tuple(_differing(body, found))


def _differing(body: Mapping[str, Any], found: RemoteMetric) -> Iterator[Difference]:
    pairs: list[tuple[str, Any, Any]] = [
        ("kind", body["kind"], found.kind),
        (
            "successCriteria",
            body["successCriteria"],
            found.success_criteria or "HigherThanBaseline",
        ),
    ]
    if body["kind"] == "custom":
        pairs += _custom_pairs(body, found)
    if "urls" in body:
        pairs.append(("urls", body["urls"], [dict(url) for url in found.raw.get("urls") or ()]))
    if "selector" in body:
        pairs.append(("selector", body["selector"], found.raw.get("selector")))
    if "analysisUnits" in body:
        pairs.append(("analysisUnits", sorted(body["analysisUnits"]), sorted(found.analysis_units)))
    pairs.append(("archived", False, found.archived))
    yield from (
        Difference(field, wanted, is_now) for field, wanted, is_now in pairs if wanted != is_now
    )
    yield from _labels(body, found)


def _custom_pairs(body: Mapping[str, Any], found: RemoteMetric) -> Iterator[tuple[str, Any, Any]]:
    yield "eventKey", body["eventKey"], found.event_key
    yield "isNumeric", body["isNumeric"], found.numeric
    if "unit" in body:
        yield "unit", body["unit"], found.unit
    yield "unitAggregationType", body["unitAggregationType"], found.aggregation
    yield "analysisType", body["analysisType"], "mean" if found.percentile is None else "percentile"
    yield "percentileValue", body.get("percentileValue"), found.percentile
    yield "eventDefault/disabled", body["eventDefault"]["disabled"], not found.zero_fill


def _labels(body: Mapping[str, Any], found: RemoteMetric) -> Iterator[Difference]:
    # A name that equals the key is the one we make up when the code gives none.
    if body["name"] not in (body["key"], found.name):
        yield Difference("name", body["name"], found.name, label=True)
    if body.get("description", found.description) != found.description:
        yield Difference("description", body["description"], found.description, label=True)
    missing = set(body.get("tags", ())) - set(found.tags)
    if missing:
        yield Difference("tags", sorted(missing | set(found.tags)), sorted(found.tags), label=True)
