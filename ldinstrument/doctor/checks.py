"""The links of one metric, each a function that looks at it and says what it sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from ..errors import Forbidden, NotFound
from ..metrics.catalogs import event_routing
from ..metrics.metric import RESERVED_PREFIXES, Metric
from ..metrics.model_calls import AI_METRICS
from ..plans import incompatible
from ..rest import Difference, differences, metric_body
from .comparability import comparable
from .experiments import used
from .findings import Finding, Status, Subject, ago
from .program_warnings import said_by_programs, said_here
from .received import seen_locally

STALE_DAYS = 14
"""LaunchDarkly's own check of analysis units looks back so far."""
_NOT_OF_EVERY_CALL = tuple(f".{suffix}" for suffix in AI_METRICS)
_LATENCY_WORDS = ("latency", "duration", "time", "tokens", "score")


def _archived(subject: Subject) -> Iterator[Finding]:
    if subject.found.archived:
        yield Finding(
            "archived",
            "broken",
            "the metric is archived",
            "no experiment can use it",
            f"ldinstrument metrics update {subject.key} archived=false",
        )
    else:
        yield Finding("archived", "ok", "no")


def _kind(subject: Subject) -> Iterator[Finding]:
    kind = subject.found.kind
    if kind != "custom":
        yield Finding(
            "kind",
            "broken",
            f"it is a {kind} metric",
            "those are not fed by track, but by browsers or traces",
            "declare a metric under another key",
        )


def _definition(subject: Subject) -> Iterator[Finding]:
    if subject.declared is None:
        yield Finding(
            "definition",
            "unknown",
            "the code that was looked at does not declare it",
            "only LaunchDarkly's side can be checked",
            f"ldinstrument doctor {subject.key} --code YOUR_PACKAGE",
        )
        return
    problem = incompatible(subject.declared, subject.found)
    if problem:
        yield Finding(
            "definition", "broken", problem, "numbers in two units under one metric mean nothing"
        )
        return
    yield _drift(subject.declared, subject)


def _drift(declared: Metric, subject: Subject) -> Finding:
    drifted = [
        difference
        for difference in differences(metric_body(declared), subject.found)
        if not difference.label
    ]
    if not drifted:
        return Finding("definition", "ok", "as the code declares it")
    told = "; ".join(
        f"{difference.field} is {difference.found!r}, the code says {difference.wanted!r}"
        for difference in drifted
    )
    return Finding(
        "definition",
        _weight(drifted),
        told,
        "LaunchDarkly analyses something else than the code means",
        "ldinstrument apply --update (running experiments need a new iteration)",
    )


def _weight(drifted: Sequence[Difference]) -> Status:
    """Which drift makes a metric stay empty, and which only makes it wrong."""
    return (
        "broken"
        if {difference.field for difference in drifted} & {"eventKey", "isNumeric", "kind"}
        else "warning"
    )


def _event_key(subject: Subject) -> Iterator[Finding]:
    event = subject.found.event_key or ""
    sent = sorted({metric.event for metric in subject.wanted.values()})
    if event.startswith(RESERVED_PREFIXES):
        yield Finding(
            "event key",
            "warning",
            f"{event!r} has a prefix of LaunchDarkly's own",
            "the events come from LaunchDarkly's libraries, not from here",
            "choose another event key",
        )
    elif event in sent or not subject.wanted:
        yield Finding("event key", "ok", event)
        yield from _numbers(subject, event)
    else:
        yield _unsent(subject, event, sent)


def _unsent(subject: Subject, event: str, sent: Sequence[str]) -> Finding:
    by_case = [key for key in sent if key.lower() == event.lower()]
    if by_case:
        return Finding(
            "event key",
            "broken",
            f"it reads {event!r}, the code sends {by_case[0]!r}",
            "event keys are case-sensitive",
            f"ldinstrument metrics update {subject.key} eventKey={by_case[0]}",
        )
    return Finding(
        "event key",
        "warning",
        f"no metric in the code reads {event!r}",
        "perhaps nothing sends it any more",
        "look for the key in the code that sends it",
    )


def _numbers(subject: Subject, event: str) -> Iterator[Finding]:
    """Compare values with the kind: numeric metrics need a value, the others ignore it."""
    feeding = [metric for metric in subject.wanted.values() if metric.event == event]
    if not feeding:
        return
    routing = event_routing(event, feeding)
    if subject.found.numeric and not routing.numeric:
        yield Finding(
            "numbers",
            "broken",
            "it is numeric, and the code sends its event without a number",
            "events without a number do not count",
            "declare it with measure='value'",
        )
    if subject.found.numeric is False and routing.numeric and subject.found.measure == "occurrence":
        yield Finding(
            "numbers",
            "warning",
            "it counts occurrences of an event that carries numbers",
            "a value of 0 counts as much as any other",
            "send the event only when it happened",
        )


def _analysis_units(subject: Subject) -> Iterator[Finding]:
    units = subject.found.analysis_units
    if not units:
        return
    try:
        available = subject.api.analysis_units()
    except (NotFound, Forbidden) as error:
        yield Finding("analysis unit", "unknown", f"the project's settings cannot be read: {error}")
        return
    missing = [unit for unit in units if unit not in available]
    why = "an event counts only for a context that has one of the metric's analysis units"
    if missing:
        yield Finding(
            "analysis unit",
            "broken" if len(missing) == len(units) else "warning",
            f"{', '.join(missing)} is not available for experiments in this project",
            why,
            "ldinstrument apply --create-context-kinds",
        )
    else:
        yield Finding("analysis unit", "ok", f"{' or '.join(units)}; contexts of these kinds count")


def _last_seen(subject: Subject) -> Iterator[Finding]:
    seen = subject.found.last_seen
    if seen is None:
        yield _never_received(subject)
        return
    days = (time.time() * 1000 - seen) / 86_400_000
    if days > STALE_DAYS:
        yield Finding(
            "last seen",
            "warning",
            f"{days:.0f} days ago",
            "the event has stopped coming",
            "look whether the code that sends it still runs",
        )
    else:
        yield Finding("last seen", "ok", f"{ago(days * 86_400)} ago")


def _never_received(subject: Subject) -> Finding:
    what = f"LaunchDarkly has never received {subject.found.event_key!r}"
    if _may_never_happen(subject):
        return Finding("last seen", "unknown", f"{what}; perhaps it never happened")
    if subject.key.endswith(_NOT_OF_EVERY_CALL):
        return Finding("last seen", "unknown", f"{what}; not every call of a model tells it")
    return Finding(
        "last seen",
        "broken",
        what,
        "the program has not run, is offline or disabled, was forked without postfork, ends before "
        "it flushes, or uses another environment's SDK key",
        "in the program: ldinstrument.flush() and ldinstrument.stats(); events show after about "
        "5 minutes",
    )


def _may_never_happen(subject: Subject) -> bool:
    """Tell whether its event may well never come: something bad, or a websocket."""
    found = subject.found
    bad = found.measure == "occurrence" and found.success_criteria == "LowerThanBaseline"
    return bad or subject.key.startswith("websocket.")


def _zero_fill(subject: Subject) -> Iterator[Finding]:
    found = subject.found
    if not found.numeric or not found.zero_fill:
        yield Finding(
            "zero-fill", "ok", "off" if found.numeric else "on, as it should be without numbers"
        )
        return
    slow_is_bad = found.success_criteria == "LowerThanBaseline" or any(
        word in found.key for word in _LATENCY_WORDS
    )
    if found.percentile is not None or (found.aggregation == "average" and slow_is_bad):
        yield Finding(
            "zero-fill",
            "warning",
            "units without events count as 0",
            "that pulls a latency, score or ratio towards 0, and 'never called' looks fast",
            f"ldinstrument metrics update {found.key} eventDefault/disabled=true",
        )
    else:
        yield Finding("zero-fill", "ok", "on: units without events count as 0")


def _percentile(subject: Subject) -> Iterator[Finding]:
    raw, found = subject.found.raw, subject.found
    if raw.get("analysisType") != "percentile":
        return
    if found.percentile is None:
        yield Finding(
            "percentile",
            "broken",
            "it is analysed by percentile, but which one is not set",
            "LaunchDarkly needs the number",
            f"ldinstrument metrics update {found.key} percentileValue=95",
        )
        return
    yield Finding(
        "percentile",
        "ok" if not found.zero_fill else "warning",
        f"p{found.percentile} over the units, not over the events",
        "it cannot be in a funnel, and with CUPED LaunchDarkly uses the mean",
    )


METRIC_CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    _archived,
    _kind,
    _definition,
    _event_key,
    _analysis_units,
    _percentile,
    _zero_fill,
    said_here,
    said_by_programs,
    seen_locally,
    _last_seen,
    used,
    comparable,
)
