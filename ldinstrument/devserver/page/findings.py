"""What the doctor says of each metric: failed checks and warnings of programs, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...metrics.advice import OF_CHECKS, OF_UNREAD_EVENT, OF_WARNINGS, Advice, concerns
from ..database import Document
from ..readout.health import HealthCheck


@dataclass(frozen=True, slots=True)
class FindingView:
    """One finding: what was seen, why it matters, what to do about it, and what to run."""

    subject: str
    check: str
    seen: str
    why: str
    remedy: str
    run: str
    warning: bool


def of_check(check: HealthCheck) -> FindingView:
    """Return the finding of a check that failed, or that looks wrong."""
    run = f"ldinstrument doctor {check.subject}"
    advice = OF_CHECKS.get(check.check, OF_UNREAD_EVENT)
    if check.check == "definition":
        run = "ldinstrument plan"
    elif check.check == "event receipt" and "case-sensitive" not in check.detail:
        advice = Advice("nothing was counted for it", "record the metric while the program runs")
    return FindingView(check.subject, check.check, check.detail, *advice, run, check.warning)


def findings(
    failed: Iterable[FindingView],
    programs: Iterable[Document],
    metrics: Iterable[tuple[str, Document]],
) -> Mapping[str, Sequence[FindingView]]:
    """Return the findings by metric key.

    Args:
        failed: those of checks.
        programs: what programs have warned about.
        metrics: project and definition.
    """
    found: dict[str, list[FindingView]] = {}
    for finding in failed:
        found.setdefault(finding.subject, []).append(finding)
    warnings = [warning for program in programs for warning in program["warnings"]]
    for _, metric in metrics:
        key = metric["key"]
        for cause, subject, count in warnings:
            if cause in OF_WARNINGS and concerns(subject, {key, metric["eventKey"]}):
                found.setdefault(key, []).append(_of_warning(key, cause, count))
    return found


def _of_warning(key: str, cause: str, count: int) -> FindingView:
    seen, times = cause.replace("_", " "), f"{count} time{'' if count == 1 else 's'}"
    return FindingView(
        key,
        "said by a program",
        f"{seen} ({times})",
        *OF_WARNINGS[cause],
        f"ldinstrument doctor {key}",
        warning=True,
    )
