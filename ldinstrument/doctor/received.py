"""What arrived, as a local LaunchDarkly saw it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..metrics.advice import OF_CHECKS, OF_UNREAD_EVENT
from ..rest import MetricsAPI
from .findings import Finding, Subject

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
            *OF_UNREAD_EVENT,
        )


def seen_locally(subject: Subject) -> Iterator[Finding]:
    """Yield what only a local LaunchDarkly can see: each event, its context, and the exposures."""
    for check in subject.health or ():
        if check.get("subject") != subject.key or check.get("check") not in OF_CHECKS:
            continue
        detail, (why, command) = str(check.get("detail")), OF_CHECKS[check["check"]]
        if check.get("ok"):
            if check.get("warning"):
                yield Finding(check["check"], "warning", detail, why, command)
            else:
                yield Finding(check["check"], "ok", detail)
        elif (
            check["check"] != "event receipt" or "case-sensitive" in detail
        ):  # never received: see last seen
            yield Finding(check["check"], "broken", detail, why, command)
