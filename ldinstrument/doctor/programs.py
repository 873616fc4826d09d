"""What the programs said themselves: this very process, and those that a local LaunchDarkly knows.

A warning is about an event key, a task, or everything; only those that concern a metric are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..diagnostics import diagnostics, one_line
from .findings import Finding, Subject
from .model_calls import SAID_OF_MODEL_CALLS, task_of_metric

_SAID: dict[str, tuple[str, str]] = {
    "no_analysis_unit": (
        "LaunchDarkly ignores events without the metric's analysis unit",
        "use a context of that kind",
    ),
    "bad_data": ("a field of the data was left out", "give JSON types"),
    "not_json": ("the event was dropped", "give JSON types"),
    "too_large": ("LaunchDarkly refused the event for its size", "send less data with it"),
    "not_a_number": ("the value was left out", "record a finite number"),
    "no_value": ("the value was left out", "record a finite number"),
    "value_for_occurrence": (
        "the value was left out",
        "record an occurrence without a value, only when it happened",
    ),
    "bad_count": ("the value was left out", "record a whole number"),
    "out_of_range": ("the value was left out", "record a value within the range"),
    "undeclared": (
        "no metric reads the event",
        "catalog.add(Metric(...)), then ldinstrument apply",
    ),
    "two_definitions": ("only the catalog's definition counts", "make the two equal"),
    "unfinished": (
        "runs that were cancelled or abandoned are in no metric: a variation that people leave "
        "looks as good as the others",
        "metrics=('success_rate', 'duration', 'unfinished') on the task",
    ),
    "no_session": ("its numbers go nowhere", "run it inside session(...), or give it context="),
    "no_context": ("an event needs a context", "session(context), or identify() before the end"),
    "invalid_context": ("an event needs a valid context", "give an ldclient.Context or a key"),
    "no_client": ("events wait for a client", "call ldclient.set_config(...) and ldclient.get()"),
    "unwatched_client": (
        "nobody sees the exposures that the client makes, so sums travel value by value",
        "Config(..., plugins=[ldinstrument.Plugin()], "
        "event_processor_class=ldinstrument.EventProcessor), or ldinstrument.attach(client)",
    ),
    "ambiguous_client": (
        "events of one environment never go to another: they are dropped",
        "say which client it is: session(..., client=client)",
    ),
    "rate_limited": (
        "what exceeds the metric's limit= is dropped: sums and counts are too low",
        "record inside a session, where nothing is limited, or raise limit=",
    ),
    "magnitude": (
        "LaunchDarkly converts no units: the numbers would be wrong in silence",
        "record the metric's own unit, such as 1000 * seconds",
    ),
    "diluted": (
        "what a session did before its exposure cannot differ: effects show thinner than they are",
        "evaluate the flag when the session begins, or compare the metrics of the task",
    ),
    "unseen_exposure": (
        "a sum that had folded around the exposure counts as before it",
        "evaluate the flag in the request that records, or give the metric rollup='each'",
    ),
    **SAID_OF_MODEL_CALLS,
    "offline": ("nothing is sent", "do not set offline=True"),
    "send_events_off": ("nothing is sent", "do not set send_events=False"),
}
_Warnings = Mapping[tuple[str, str], int]


def said_here(subject: Subject) -> Iterator[Finding]:
    """Yield what this very process has warned about, for a doctor called from inside the
    program.
    """
    yield from _of_metric(subject, diagnostics.counts(), "this process")


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
    # Of a task, or a session's name.
    about |= {task_of_metric(key) or key.rpartition(".")[0] for key in about}
    for (cause, what), count in warnings.items():
        if cause in _SAID and (not what or what in about or what.split(" ")[0] in about):
            why, command = _SAID[cause]
            yield Finding(who, "warning", f"{cause.replace('_', ' ')} ({count}x)", why, command)
