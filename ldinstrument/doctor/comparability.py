"""Whether an experiment's variations can be compared: as a local LaunchDarkly's read-out says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .findings import Finding, Subject

NOT_COMPARABLE = (
    "means of different people say nothing about the variations",
    "find out who is missing: ldinstrument readout, and docs/survivors.md",
)
NOT_ANALYSED = ("there is no number to compare", "ldinstrument readout")


def comparable(subject: Subject) -> Iterator[Finding]:
    """Yield what each experiment's read-out of this metric is worth."""
    for experiment in subject.experiments or ():
        for metric in experiment["metrics"]:
            if metric["metric"] == subject.key:
                yield from _of_metric(str(experiment["flag"]), metric)


def _of_metric(flag: str, metric: Mapping[str, Any]) -> Iterator[Finding]:
    result = metric["result"]
    if result is None:
        yield Finding("comparison", "warning", f"{flag}: {metric['reason']}", *NOT_ANALYSED)
        return
    verdicts = [comparison["verdict"] for comparison in result["ldinstrument"]["comparisons"]]
    broken = [verdict for verdict in verdicts if verdict["word"] == "not comparable"]
    for verdict in broken[:1]:
        yield Finding("comparison", "broken", f"{flag}: {verdict['reason']}", *NOT_COMPARABLE)
    if verdicts and not broken:
        yield Finding("comparison", "ok", f"{flag}: {verdicts[0]['word']}, {verdicts[0]['reason']}")
