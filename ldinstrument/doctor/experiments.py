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
    listed = [one for one in _objects(subject, "experiments") if not one.get("archivedDate")]
    if not listed and not subject.found.experiments:
        yield _unused(subject)
        yield from _unknown_exposure(subject)
        return
    read = (subject.api.experiment(_environment(one), str(one.get("key"))) for one in listed[:MOST])
    known = [one for one in read if one is not None]
    for one in known:
        yield from _by_another_unit(subject, one)
    running = [one for one in known if one.status == "running"]
    if known and not running and all(one.status for one in known):
        yield _not_running(subject, known)
        return
    for one in running:
        yield from _not_counted(subject, one)
    yield Finding("experiments", "ok", f"{subject.found.experiments or len(listed)} use it")
    if subject.health is None:
        yield from _exposures(subject, running)


def _objects(subject: Subject, name: str) -> list[dict[str, Any]]:
    listed = subject.found.raw.get(name)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _environment(one: dict[str, Any]) -> str:
    return str(one.get("environmentKey") or "production")


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


def _by_another_unit(subject: Subject, one: Experiment) -> Iterator[Finding]:
    unit, units = one.unit_of(subject.key), subject.found.analysis_units
    if unit and units and unit not in units:
        verb = "analyses it" if subject.key in one.analysis_units else "randomizes"
        yield Finding(
            "experiments",
            "broken",
            f"{one.name} {verb} by {unit!r}, the metric is analysed by {' or '.join(units)}",
            "then no event finds its exposure",
            f"declare analysis_units=({unit!r},), then ldinstrument apply --update",
        )


def _not_running(subject: Subject, known: Sequence[Experiment]) -> Finding:
    told = ", ".join(f"{one.name} has {one.status.replace('_', ' ')}" for one in known)
    return Finding(
        "experiments",
        "warning",
        f"none of its experiments is running: {told}",
        "only what happens while an iteration runs counts for it",
        f"start an iteration: {subject.found.url}",
    )


def _not_counted(subject: Subject, one: Experiment) -> Iterator[Finding]:
    """The running iteration began before the metric was added to it, or with an older version of
    it.
    """
    version, now = one.metrics.get(subject.key), subject.found.raw.get("_versionId")
    if one.metrics and version is None:
        yield Finding(
            "experiments",
            "broken",
            f"the running iteration of {one.name} does not count it",
            "an iteration counts the metrics that it began with",
            f"add it, and start a new iteration: {subject.found.url}",
        )
    elif version and isinstance(now, str) and version != now:
        yield Finding(
            "experiments",
            "warning",
            f"the running iteration of {one.name} counts an older version of it",
            "an iteration keeps the definitions that it began with",
            f"start a new iteration: {subject.found.url}",
        )


def _exposures(subject: Subject, running: Sequence[Experiment]) -> Iterator[Finding]:
    """When the flags of the running experiments were evaluated last; by which contexts LaunchDarkly
    does not tell.
    """
    told = [
        finding
        for one in running
        for flag in one.flags
        if (finding := _exposure(subject, one, flag)) is not None
    ]
    yield from told
    if not told:
        yield from _unknown_exposure(subject)


def _exposure(subject: Subject, one: Experiment, flag: str) -> Finding | None:
    try:
        moment = subject.api.last_evaluated(one.environment, flag)
    except ApiError:
        return None
    what = f"flag {flag!r} of {one.name}"
    seconds = (datetime.now(timezone.utc) - moment).total_seconds() if moment else 0.0
    if moment is not None and seconds < STALE_DAYS * 86_400:
        told = f"{what} was evaluated {ago(seconds)} ago in {one.environment}; by which contexts, LaunchDarkly keeps"
        return Finding("exposure", "ok", told)
    never = (
        "has never been evaluated" if moment is None else f"was last evaluated {ago(seconds)} ago"
    )
    return Finding(
        "exposure",
        "broken",
        f"{what} {never} in {one.environment}",
        _WHY_EXPOSURE,
        f"evaluate it (variation) before recording, with the SDK key of {one.environment}",
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
