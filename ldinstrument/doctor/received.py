"""What arrived, as a local LaunchDarkly saw it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

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
    "client": (
        "nobody sees the exposures that the client makes, so sums travel value by value",
        "Config(..., plugins=[ldinstrument.Plugin()], "
        "event_processor_class=ldinstrument.EventProcessor), or ldinstrument.attach(client)",
    ),
    "dilution": (
        "what a session did before its exposure cannot differ: effects show thinner than they are",
        "evaluate the flag when the session begins, or compare the metrics of the task",
    ),
    "identity": (
        "what is measured under another key than the one that was exposed counts for nobody",
        "randomise by a kind that survives the login, such as a device, and keep it in the context",
    ),
    "exposed elsewhere": (
        "a sum that is open at such an exposure counts whole, or not at all",
        "declare rollup='each' for it; docs/experiments.md has what is exact where",
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
