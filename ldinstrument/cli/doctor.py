"""`ldinstrument doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from ..doctor import Finding, examine, examine_all
from .plans import declared
from .terminal import DRIFT, FAILED, AsJson, HostName, Project, connect, out, print_json, progress, row, say, table

_STYLES = {"ok": "green", "warning": "yellow", "broken": "red", "unknown": "dim"}


def doctor(
    metric: Annotated[str | None, typer.Argument(help="A metric's key; without one, all of the code's.")] = None,
    code: Annotated[
        list[str] | None, typer.Option("--code", metavar="TARGET", help="Your package, as in plan; may be repeated.")
    ] = None,
    project: Project = None,
    host: HostName = None,
    as_json: AsJson = False,
) -> None:
    """Why is my metric empty? Walk from the code to the read-out and stop at the first broken link.

    Exit code 0: every link holds, 1: a link is broken, 4: nothing is broken, but something looks wrong.
    """
    found = declared(code)
    known = code or metric in {one.key for one in found.metrics}
    with connect(project, host) as api, progress("examining"):
        if metric is not None:
            walked = examine(metric, api, found.metrics if known else ())
            by_metric: dict[str, list[Finding]] = {}
        else:
            walked, by_metric = examine_all(api, found.metrics)
    everything = [*walked, *(finding for told in by_metric.values() for finding in told)]
    if as_json:
        print_json({
            "findings": [asdict(one) for one in walked],
            "metrics": {key: [asdict(one) for one in told] for key, told in by_metric.items()},
        })  # fmt: skip
    else:
        _show(walked)
        if by_metric:
            _show_all(by_metric)
    raise typer.Exit(_code(everything))


def _show(findings: Sequence[Finding]) -> None:
    shown = table("", "Check", "What was seen")
    for finding in findings:
        lines = [finding.what]
        if finding.why:
            lines.append(f"why it matters: {finding.why}")
        if finding.command:
            lines.append(f"what helps: {finding.command}")
        row(shown, finding.status, finding.check, "\n".join(lines), style=_STYLES[finding.status])
    out().print(shown)


def _show_all(by_metric: dict[str, list[Finding]]) -> None:
    """One line per metric and finding; what helps is said once, however many metrics it would help."""
    shown = table("Metric", "", "What was seen", keys=by_metric)
    for key, told in by_metric.items():
        for finding in told or [Finding("", "ok", "every link holds")]:
            what = f"{finding.check}: {finding.what}" if finding.check else finding.what
            row(shown, key, finding.status, what, style=_STYLES[finding.status])
    out().print(shown)
    helps = {(one.check, one.why, one.command) for told in by_metric.values() for one in told if one.command}
    for check, why, command in sorted(helps):
        say(f"{check}: {why}\n    what helps: {command}")
    say("the whole walk of one metric: ldinstrument doctor METRIC")


def _code(findings: Sequence[Finding]) -> int:
    statuses = {finding.status for finding in findings}
    return FAILED if "broken" in statuses else DRIFT if "warning" in statuses else 0
