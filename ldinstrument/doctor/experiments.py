"""Who uses a metric: experiments that run, count it, randomize by its unit, and whose flags
somebody evaluates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from ..errors import ApiError
from ..rest import Experiment
from .findings import Finding, Subject, ago

MOST = 5
"""How many experiments of a metric are looked at."""
STALE_DAYS = 7
"""LaunchDarkly calls a flag inactive that nobody has evaluated for so long."""
_WHY_EXPOSURE = "only events after an exposure of the same context count"


def used(subject: Subject) -> Iterator[Finding]:
    """Whether an experiment, or a guarded rollout, shows the metric's numbers."""
    listed = [
        experiment
        for experiment in _objects(subject, "experiments")
        if not experiment.get("archivedDate")
    ]
    if not listed and (flags := subject.exposing_flags):
        # A local LaunchDarkly reads every experiment flag out, attached or not.
        yield Finding("experiments", "ok", f"read out by {', '.join(flags)}")
        return
    if not listed and not subject.found.experiments:
        yield _unused(subject)
        yield from _unknown_exposure(subject)
        return
    read = (
        subject.api.experiment(_environment(experiment), str(experiment.get("key")))
        for experiment in listed[:MOST]
    )
    known = [experiment for experiment in read if experiment is not None]
    for experiment in known:
        yield from _by_another_unit(subject, experiment)
    running = [experiment for experiment in known if experiment.status == "running"]
    if known and not running and all(experiment.status for experiment in known):
        yield _not_running(subject, known)
        return
    for experiment in running:
        yield from _not_counted(subject, experiment)
    yield Finding("experiments", "ok", f"{subject.found.experiments or len(listed)} use it")
    if subject.health is None:
        yield from _exposures(subject, running)


def _objects(subject: Subject, name: str) -> list[dict[str, Any]]:
    listed = subject.found.raw.get(name)
    return (
        [experiment for experiment in listed if isinstance(experiment, dict)]
        if isinstance(listed, list)
        else []
    )


def _environment(experiment: dict[str, Any]) -> str:
    return str(experiment.get("environmentKey") or "production")


def _unused(subject: Subject) -> Finding:
    rollouts = subject.found.raw.get("guardedRolloutCount")
    if type(rollouts) is int and rollouts > 0:
        return Finding(
            "experiments", "ok", f"no experiment uses it, but {rollouts} guarded rollouts do"
        )
    return Finding(
        "experiments",
        "warning",
        "no experiment uses it",
        "its numbers show in experiments only",
        f"add it to an experiment: {subject.found.url}",
    )


def _by_another_unit(subject: Subject, experiment: Experiment) -> Iterator[Finding]:
    unit, units = experiment.unit_of(subject.key), subject.found.analysis_units
    if unit and units and unit not in units:
        verb = "analyses it" if subject.key in experiment.analysis_units else "randomizes"
        yield Finding(
            "experiments",
            "broken",
            f"{experiment.name} {verb} by {unit!r}, the metric is analysed by {' or '.join(units)}",
            "then no event finds its exposure",
            f"declare analysis_units=({unit!r},), then ldinstrument apply --update",
        )


def _not_running(subject: Subject, known: Sequence[Experiment]) -> Finding:
    told = ", ".join(
        f"{experiment.name} has {experiment.status.replace('_', ' ')}" for experiment in known
    )
    return Finding(
        "experiments",
        "warning",
        f"none of its experiments is running: {told}",
        "only what happens while an iteration runs counts for it",
        f"start an iteration: {subject.found.url}",
    )


def _not_counted(subject: Subject, experiment: Experiment) -> Iterator[Finding]:
    """Find a running iteration that began without the metric, or with an older version of it."""
    version, now = experiment.metrics.get(subject.key), subject.found.raw.get("_versionId")
    if experiment.metrics and version is None:
        yield Finding(
            "experiments",
            "broken",
            f"the running iteration of {experiment.name} does not count it",
            "an iteration counts the metrics that it began with",
            f"add it, and start a new iteration: {subject.found.url}",
        )
    elif version and isinstance(now, str) and version != now:
        yield Finding(
            "experiments",
            "warning",
            f"the running iteration of {experiment.name} counts an older version of it",
            "an iteration keeps the definitions that it began with",
            f"start a new iteration: {subject.found.url}",
        )


def _exposures(subject: Subject, running: Sequence[Experiment]) -> Iterator[Finding]:
    """When the flags of the running experiments were evaluated last; by which contexts LaunchDarkly
    does not tell.
    """
    told = [
        finding
        for experiment in running
        for flag in experiment.flags
        if (finding := _exposure(subject, experiment, flag)) is not None
    ]
    yield from told
    if not told:
        yield from _unknown_exposure(subject)


def _exposure(subject: Subject, experiment: Experiment, flag: str) -> Finding | None:
    try:
        moment = subject.api.last_evaluated(experiment.environment, flag)
    except ApiError:
        return None
    what = f"flag {flag!r} of {experiment.name}"
    seconds = (datetime.now(timezone.utc) - moment).total_seconds() if moment else 0.0
    if moment is not None and seconds < STALE_DAYS * 86_400:
        told = (
            f"{what} was evaluated {ago(seconds)} ago in {experiment.environment}; "
            "by which contexts, LaunchDarkly keeps"
        )
        return Finding("exposure", "ok", told)
    never = (
        "has never been evaluated" if moment is None else f"was last evaluated {ago(seconds)} ago"
    )
    return Finding(
        "exposure",
        "broken",
        f"{what} {never} in {experiment.environment}",
        _WHY_EXPOSURE,
        f"evaluate it (variation) before recording, with the SDK key of {experiment.environment}",
    )


def _unknown_exposure(subject: Subject) -> Iterator[Finding]:
    if subject.health is None:
        yield Finding(
            "exposure",
            "unknown",
            "LaunchDarkly does not tell whose exposure it has seen",
            _WHY_EXPOSURE,
            "try it against a local LaunchDarkly: ldinstrument dev",
        )
