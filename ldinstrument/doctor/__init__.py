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
from ..rest import MetricsAPI, RemoteMetric
from .access import access
from .checks import METRIC_CHECKS
from .findings import Finding, Subject

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
        else [*walked, *_walk(key, api, wanted, _health(api))]
    )


def _walk(
    key: str, api: MetricsAPI, wanted: dict[str, Metric], health: tuple[dict[str, Any], ...] | None
) -> Iterator[Finding]:
    """Yield the links of one metric, to the first broken one."""
    found, finding = _existence(key, api, wanted)
    yield finding
    if found is None:
        return
    subject = Subject(key, api, wanted, found, health)
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
    health = _health(api)
    return shared, {
        key: [
            link for link in _walk(key, api, wanted, health) if link.status in ("broken", "warning")
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
    close = [known for known in wanted if known.lower() == key.lower()] or get_close_matches(
        key, list(wanted), n=1
    )
    close = close or [metric.key for metric in api.list(query=key, limit=1)]
    hint = f"ldinstrument doctor {close[0]}" if close else f"ldinstrument metrics create {key} ..."
    meant = f"; did you mean {close[0]}?" if close else ""
    return None, Finding(
        "metric",
        "broken",
        f"there is no metric {key}, in the code or in LaunchDarkly{meant}",
        why,
        hint,
    )


def _health(api: MetricsAPI) -> tuple[dict[str, Any], ...] | None:
    try:
        found = api.local("health", project=api.project)
    except ApiError:
        return None
    return (
        tuple(check for check in found if isinstance(check, dict))
        if isinstance(found, list)
        else None
    )
