"""Why is my metric empty? A walk from the code to the read-out that stops at the first broken link.

The checks are those that LaunchDarkly makes of metrics (event receipt, analysis unit, numeric
value), and what its analysis ignores without a word. What can only be seen inside the program says
itself there: each warning is logged once and counted in `ldinstrument.stats()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from ..errors import ApiError
from ..metrics.metric import Metric
from ..metrics.standard import STANDARD_METRICS, session_metrics
from ..rest import MetricsAPI, RemoteMetric
from .access import access
from .checks import METRIC_CHECKS
from .findings import Finding, Subject
from .received import unread_events

_Documents = tuple[dict[str, Any], ...] | None
_Seen = tuple[_Documents, _Documents, tuple[dict[str, Any], ...]]
MOST_LISTED = 1000

__all__ = ["Finding", "access", "examine", "examine_all"]


def examine(key: str, api: MetricsAPI, catalog: Iterable[Metric]) -> list[Finding]:
    """Walk the chain for the metric *key* and stop at the first broken link.

    Args:
        key: the metric's key.
        api: the project.
        catalog: what the code declares.

    Returns:
        The findings in the order of the walk; the last one is broken, or all links hold.

    """
    wanted = {metric.key: metric for metric in catalog}
    walked = access(api)
    return (
        walked
        if walked[-1].status == "broken"
        else [*walked, *_walk(key, api, wanted, _seen_locally(api))]
    )


def _walk(key: str, api: MetricsAPI, wanted: dict[str, Metric], seen: _Seen) -> Iterator[Finding]:
    """Yield the links of one metric, to the first broken one."""
    found, finding = _existence(key, api, wanted)
    yield finding
    if found is None:
        return
    subject = Subject(key, api, wanted, found, *seen)
    for check in METRIC_CHECKS:
        for link in check(subject):
            yield link
            if link.status == "broken":
                return


def examine_all(
    api: MetricsAPI, catalog: Iterable[Metric]
) -> tuple[list[Finding], dict[str, list[Finding]]]:
    """Return the shared links, and what is wrong with each metric of *catalog* (an empty list:
    nothing is).

    Returns:
        The findings about token and project; and by metric key those that are not `ok`.

    """
    wanted = {metric.key: metric for metric in catalog}
    shared = access(api)
    if shared[-1].status == "broken":
        return shared, {}
    seen = _seen_locally(api)
    shared += unread_events(api, seen[0])
    return shared, {
        key: [
            link for link in _walk(key, api, wanted, seen) if link.status in ("broken", "warning")
        ]
        for key in wanted
    }


def _existence(
    key: str, api: MetricsAPI, wanted: dict[str, Metric]
) -> tuple[RemoteMetric | None, Finding]:
    found = api.find(key, expand=("experiments", "experimentCount", "guardedRolloutCount"))
    if found is not None:
        return found, Finding("metric", "ok", f"{key} exists: {found.url}")
    why = "LaunchDarkly keeps events without a metric out of every experiment"
    if key in wanted:
        return None, Finding(
            "metric",
            "broken",
            f"{key} is declared in the code, but not in LaunchDarkly",
            why,
            "ldinstrument apply",
        )
    if key in _standard_keys():
        return None, Finding(
            "metric",
            "broken",
            f"{key} is one of ldinstrument's, and neither LaunchDarkly nor the code has it",
            f"{why}; apply makes it from the module that records it, which was not looked at",
            "ldinstrument apply",
        )
    close = _similar(key, api, wanted)
    hint = f"ldinstrument doctor {close[0]}" if close else f"ldinstrument metrics create {key} ..."
    meant = f"; did you mean {close[0]}?" if close else ""
    return None, Finding(
        "metric",
        "broken",
        f"there is no metric {key}, in the code or in LaunchDarkly{meant}",
        why,
        hint,
    )


def _standard_keys() -> list[str]:
    return [metric.key for metric in (*STANDARD_METRICS, *session_metrics())]


def _similar(key: str, api: MetricsAPI, wanted: Iterable[str]) -> list[str]:
    """Return the metric that *key* may have been meant for: of the code, ours, the project's."""
    known = dict.fromkeys(
        [*wanted, *_standard_keys(), *(metric.key for metric in api.list(limit=MOST_LISTED))]
    )
    by_case = [other for other in known if other.lower() == key.lower()]
    return by_case or get_close_matches(key, list(known), n=1)


def _seen_locally(api: MetricsAPI) -> _Seen:
    """Return the health checks, the experiments, and what programs have said, of a local
    LaunchDarkly; None elsewhere.
    """
    try:
        health = api.local("health", project=api.project)
        found = api.local("readout", project=api.project)
        programs = api.local("programs")
    except ApiError:
        return None, None, ()
    experiments = found.get("experiments") if isinstance(found, dict) else None
    return _documents(health), _documents(experiments), _documents(programs) or ()


def _documents(found: Any) -> _Documents:
    if not isinstance(found, list):
        return None
    return tuple(document for document in found if isinstance(document, dict))
