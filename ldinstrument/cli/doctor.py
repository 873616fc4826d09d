"""`ldinstrument doctor`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Annotated, Any

import typer

from ..doctor import Finding, examine, examine_all
from ..metrics.metric import Metric
from ..rest import MetricsAPI
from ..scan import Scan
from .plans import declared
from .terminal import (
    DRIFT,
    FAILED,
    AsJson,
    HostName,
    Project,
    as_typed,
    connect,
    err,
    out,
    print_json,
    progress,
    row,
    say,
    table,
)

_STYLES = {"ok": "green", "warning": "yellow", "broken": "red", "unknown": "dim"}
_OURS = re.compile(r"ldinstrument (apply|doctor|metrics \w+)\b")
ByMetric = dict[str, list[Finding]]


def doctor(
    metric: Annotated[
        str | None, typer.Argument(help="A metric's key; without one, all of the code's.")
    ] = None,
    code: Annotated[
        list[str] | None,
        typer.Option("--code", metavar="TARGET", help="Your package, as in plan; may be repeated."),
    ] = None,
    project: Project = None,
    host: HostName = None,
    as_json: AsJson = False,
) -> None:
    """Say why a metric is empty: walk from the code to the read-out, to the first broken link.

    Exit code 0: every link holds, 1: a link is broken, 4: nothing is broken, but something looks
        wrong.
    """
    found = declared(code)
    with connect(project, host) as api, progress("examining"):
        walked, by_metric = _examined(metric, api, found.metrics, bool(code))
    walked += _recorded_in_vain(found)

    def typed(findings: Sequence[Finding]) -> list[Finding]:
        """Return the findings with commands that can be pasted."""
        return [
            replace(finding, command=_typed(finding.command, code or (), project, host))
            for finding in findings
        ]

    walked, by_metric = typed(walked), {key: typed(told) for key, told in by_metric.items()}
    if as_json:
        print_json(_json(walked, by_metric))
    else:
        _show(walked)
        if by_metric:
            _show_all(by_metric)
        if not code and metric is None:
            say("for the metrics of your code: ldinstrument doctor --code YOUR_PACKAGE", on=err())
    raise typer.Exit(_code([*walked, *chain.from_iterable(by_metric.values())]))


def _json(walked: Sequence[Finding], by_metric: ByMetric) -> dict[str, Any]:
    return {
        "findings": [asdict(finding) for finding in walked],
        "metrics": {key: [asdict(finding) for finding in told] for key, told in by_metric.items()},
    }


def _recorded_in_vain(found: Scan) -> list[Finding]:
    """Return the event keys that the code records and that no metric reads."""
    return [
        Finding(
            "code",
            "warning",
            f"{unread.place} records {unread.key!r}",
            "LaunchDarkly keeps events without a metric out of every experiment",
            unread.advice(),
        )
        for unread in found.undeclared
    ]


def _examined(
    metric: str | None, api: MetricsAPI, declared: Sequence[Metric], by_code: bool
) -> tuple[list[Finding], ByMetric]:
    """One metric, or all; *by_code*: the code was named, and *declared* is what it needs."""
    if metric is not None:
        known = by_code or metric in {known.key for known in declared}
        return examine(metric, api, declared if known else ()), {}
    walked, by_metric = examine_all(api, declared)
    if by_code:
        return walked, by_metric
    # Nobody said that there is code that needs the standard metrics: those that do not exist are no
    # finding.
    return walked, {
        key: told
        for key, told in by_metric.items()
        if all(finding.check != "metric" for finding in told)
    }


def _typed(command: str, code: Sequence[str], project: str | None, host: str | None) -> str:
    """Return the *command* that a finding names, for the very code, project and host that this one
    was called with.
    """

    def words(ours: re.Match[str]) -> str:
        named = ours.group()
        if named.endswith("apply"):
            named = shlex.join([*named.split(), *code])
        elif named.endswith("doctor") and "--code" not in command:
            named = shlex.join(
                [*named.split(), *(word for target in code for word in ("--code", target))]
            )
        return as_typed(named, project, host)

    return _OURS.sub(words, command)


def _show(findings: Sequence[Finding]) -> None:
    """Lines, not a table: addresses and commands are there to be copied."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        say(f"{finding.status:8} {finding.check:{width}}  {finding.what}", _STYLES[finding.status])
        if finding.why:
            say(f"{'':{width + 11}}why it matters: {finding.why}")
        if finding.command:
            say(f"{'':{width + 11}}what helps: {finding.command}")


def _show_all(by_metric: ByMetric) -> None:
    """One line per metric and finding; what helps is said once, however many metrics it would
    help.
    """
    shown = table("Metric", "", "What was seen", keys=by_metric)
    for key, told in by_metric.items():
        for finding in told or [Finding("", "ok", "every link holds")]:
            what = f"{finding.check}: {finding.what}" if finding.check else finding.what
            row(shown, key, finding.status, what, style=_STYLES[finding.status])
    out().print(shown)
    for (check, why, _), alike in sorted(_advice(by_metric).items()):
        more = f" (and {len(alike) - 1} metrics more)" if len(alike) > 1 else ""
        say(f"{check}: {why}\n    what helps: {alike[0]}{more}")
    say("the whole walk of one metric: ldinstrument doctor METRIC")


def _advice(by_metric: ByMetric) -> dict[tuple[str, str, str], list[str]]:
    """Return the commands that help, by check, reason and what they are for any metric."""
    advice: dict[tuple[str, str, str], list[str]] = {}
    for key, told in by_metric.items():
        for finding in told:
            if finding.command:
                of_any = finding.command.replace(key, "METRIC")
                advice.setdefault((finding.check, finding.why, of_any), []).append(finding.command)
    return {
        group: commands if group[2] != commands[0] else commands[:1]
        for group, commands in advice.items()
    }


def _code(findings: Sequence[Finding]) -> int:
    statuses = {finding.status for finding in findings}
    return FAILED if "broken" in statuses else DRIFT if "warning" in statuses else 0
