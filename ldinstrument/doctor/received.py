"""What arrived: as a local LaunchDarkly saw it, and what this very process complained about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..diagnostics import diagnostics
from ..rest import MetricsAPI
from .findings import Finding, Subject

_LOCAL_ADVICE = {
    "event receipt": ("event keys are case-sensitive", "ldinstrument tail"),
    "analysis unit": (
        "events whose context has none of the metric's analysis units count for nothing",
        "give the session a context of that kind: session(Context.create(key, kind))",
    ),
    "numeric value": ("events without a finite number do not count", "record a finite number"),
    "magnitude": (
        "LaunchDarkly converts no units: the numbers would be wrong in silence",
        "record the metric's own unit, such as 1000 * seconds",
    ),
    "exposure": (
        "only events after an exposure of the same context count",
        "evaluate the flag before recording, with the very context of the session: not with "
        "another key, nor with one "
        "made anew in each call",
    ),
}


MOST_NAMED = 5


def unread_events(api: MetricsAPI, health: Sequence[dict[str, Any]] | None) -> Iterator[Finding]:
    """Yield the event keys that a local LaunchDarkly received and that no metric reads."""
    unread = [check for check in health or () if check.get("check") == "definition"]
    if unread:
        named = [str(check.get("subject")) for check in unread]
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        yield Finding(
            "events",
            "warning",
            f"no metric of project {api.project} reads {', '.join(named[:MOST_NAMED])}{more}",
            "LaunchDarkly keeps events without a metric out of every experiment",
            "declare them: catalog.add(ldinstrument.Metric(...)); then ldinstrument apply",
        )


def seen_locally(subject: Subject) -> Iterator[Finding]:
    """Yield what only a local LaunchDarkly can see: each event, its context, and the exposures."""
    for check in subject.health or ():
        if check.get("subject") != subject.key or check.get("check") not in _LOCAL_ADVICE:
            continue
        detail, (why, command) = str(check.get("detail")), _LOCAL_ADVICE[check["check"]]
        if check.get("ok"):
            if check.get("warning"):
                yield Finding(check["check"], "warning", detail, why, command)
            else:
                yield Finding(check["check"], "ok", detail)
        elif (
            check["check"] != "event receipt" or "case-sensitive" in detail
        ):  # never received: see last seen
            yield Finding(check["check"], "broken", detail, why, command)


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
    "offline": ("nothing is sent", "do not set offline=True"),
    "send_events_off": ("nothing is sent", "do not set send_events=False"),
}


def said_here(subject: Subject) -> Iterator[Finding]:
    """Yield what this very process has warned about, for a doctor called from inside the
    program.
    """
    event = subject.found.event_key or subject.key
    about = {
        event,
        subject.key,
        *(metric.key for metric in subject.wanted.values() if metric.event == event),
    }
    tasks = {key.rpartition(".")[0] for key in about}
    for (cause, what), count in diagnostics.counts().items():
        concerns = not what or what in about or what in tasks or what.split(" ")[0] in about
        if cause in _SAID and concerns:
            why, command = _SAID[cause]
            yield Finding(
                "this process", "warning", f"{cause.replace('_', ' ')} ({count}x)", why, command
            )
