"""What the programs said themselves: this very process, and those that a local LaunchDarkly knows.

A warning is about an event key, a task, or everything; only those that concern a metric are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..diagnostics import diagnostics, one_line
from ..ledger import ledger
from ..metrics.advice import OF_WARNINGS, concerns
from .findings import Finding, Subject

_Warnings = Mapping[tuple[str, str], int]


def said_here(subject: Subject) -> Iterator[Finding]:
    """Yield what this very process has warned about, for a doctor called from inside the
    program.
    """
    suspended = {("suspended", key): runs for key, runs in ledger.suspended_runs().items()}
    yield from _of_metric(subject, {**diagnostics.counts(), **suspended}, "this process")


def said_by_programs(subject: Subject) -> Iterator[Finding]:
    """Yield what programs have told the local LaunchDarkly that they send to."""
    for program in subject.programs:
        yield from _of_metric(subject, _warnings(program), f"program {program.get('pid')}")


def _warnings(program: Mapping[str, Any]) -> _Warnings:
    listed: Iterable[Any] = program.get("warnings") or ()
    return {(one_line(str(cause)), one_line(str(what))): count for cause, what, count in listed}


def _of_metric(subject: Subject, warnings: _Warnings, who: str) -> Iterator[Finding]:
    event = subject.found.event_key or subject.key
    about = {
        event,
        subject.key,
        *(metric.key for metric in subject.wanted.values() if metric.event == event),
    }
    for (cause, what), count in warnings.items():
        if cause in OF_WARNINGS and concerns(what, about):
            told = f"{cause.replace('_', ' ')} ({count}x)"
            yield Finding(who, "warning", told, *OF_WARNINGS[cause])
        elif cause == "suspended" and concerns(what, about):
            told = f"{count} runs were suspended: they went on elsewhere, and are in no metric"
            yield Finding(who, "ok", told)
