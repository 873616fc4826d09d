"""`ldinstrument readout`: what a local LaunchDarkly says of each experiment, line by line.

Lines instead of a table: they are legible at 80 columns and in a pipe.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .terminal import AsJson, HostName, Project, connect_locally, print_json, say

WIDTH = 80
STYLES = {"better": "green", "worse": "red", "not comparable": "yellow"}
Document = Mapping[str, Any]


def readout(project: Project = None, host: HostName = None, as_json: AsJson = False) -> None:
    """Show what a local LaunchDarkly holds: each experiment's metrics, differences and verdicts."""
    with connect_locally(project, host) as api:
        found = api.local("readout", project=api.project)
        here = api.project
    if as_json:
        print_json(found)
        return
    for experiment in found["experiments"]:
        for line, style in experiment_lines(experiment):
            say(line, style)
    if not found["experiments"]:
        say("no experiment yet: nobody was exposed to a flag that is one")
    for line in (*total_lines(found["totals"]), *other_projects(found, here)):
        say(line)


# -- experiments -----------------------------------------------------------------------------------


def experiment_lines(experiment: Document) -> Iterator[tuple[str, str]]:
    """Yield the lines of one iteration of an experiment, each with its style."""
    state = "" if experiment["running"] else ", stopped"
    kinds = " or ".join(experiment["kinds"])
    yield f"{experiment['flag']}, iteration {experiment['iteration']}{state}, by {kinds}", "bold"
    whole = sum(variation["weight"] for variation in experiment["variations"]) or 1
    for place, variation in enumerate(experiment["variations"]):
        role = "control, " if place == 0 else ""
        share = f"{role}{variation['weight'] / whole:.0%} of the traffic"
        yield f"  {_text(variation['value'])}: {variation['units']} units exposed ({share})", ""
    for metric in experiment["metrics"]:
        yield "", ""
        yield from metric_lines(metric)
    yield "", ""


def metric_lines(metric: Document) -> Iterator[tuple[str, str]]:
    """Yield the lines of one metric: its variations, then what each comparison comes to."""
    unit = f" in {metric['unit']}" if metric["unit"] else ""
    better = "higher" if metric["higherIsBetter"] else "lower"
    yield f"{metric['metric']}  ({metric['statistic']}{unit}, {better} is better)", "bold"
    result = metric["result"]
    if result is None:
        yield from wrapped(metric["reason"] or "no unit has a value yet")
        return
    names = variation_names(metric)
    ours = result["ldinstrument"]
    estimates = {
        treatment["treatmentId"]: treatment["estimate"] for treatment in ours["treatments"]
    }
    for row in metric["rows"]:
        yield from wrapped(_row(row, estimates.get(str(row["variation"]))))
    for comparison in ours["comparisons"]:
        yield from comparison_lines(comparison, names)


def variation_names(metric: Document) -> dict[str, str]:
    """Return the values of a metric's variations by their number, as text."""
    return {str(row["variation"]): _text(row["value"]) for row in metric["rows"]}


def _row(row: Document, estimate: Document | None) -> str:
    known = estimate is not None and estimate.get("value") is not None
    figure = interval(estimate, number) if known and estimate else number(row["estimate"])
    share = f"{row['measured']} of {row['units']} units, {row['events']} events"
    return f"{_text(row['value'])[:20]:<20} {figure:<26} {share}"


def comparison_lines(comparison: Document, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what one comparison with the control comes to: difference, verdict, cautions."""
    treatment = names.get(comparison["treatmentId"], comparison["treatmentId"])
    control = names.get(comparison["fromTreatmentId"], comparison["fromTreatmentId"])
    bayesian, verdict = comparison["bayesian"], comparison["verdict"]
    difference = interval(bayesian["relativeDifference"], percent)
    word = verdict["word"].upper()
    style = STYLES.get(verdict["word"], "")
    yield from wrapped(f"{treatment} against {control}: {difference}  {word}", style)
    if verdict["reason"] not in difference:
        yield from wrapped(verdict["reason"], indent=4)
    for caution in comparison["cautions"]:
        yield from wrapped(f"caution: {caution}", indent=4)
    more = comparison.get("moreUnits")
    if more and verdict["word"] == "undecided":
        yield from wrapped(f"about {more:,} more units would show this difference", indent=4)


# -- the rest --------------------------------------------------------------------------------------


def total_lines(totals: Sequence[Document]) -> Iterator[str]:
    """Yield a line per event key: how many events, and which metrics read it."""
    if totals:
        yield "events received"
    for total in totals:
        metrics = ", ".join(total["metrics"]) or "no metric reads it"
        mean = "" if total["mean"] is None else f", mean {number(total['mean'])}"
        line = f"{total['event_key']}: {total['events']} events{mean}; {metrics}"
        yield from textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="      ")


def other_projects(found: Document, here: str) -> Iterator[str]:
    """Say which other projects have metrics: events are shared, metrics are a project's own."""
    others = found.get("otherProjects") or []
    if others:
        named = ", ".join(others)
        yield f"metrics of project {here}; others have some, too: {named} (--project)"


def wrapped(text: str, style: str = "", indent: int = 2) -> Iterator[tuple[str, str]]:
    """Yield *text* in lines of at most `WIDTH` columns."""
    spaces = " " * indent
    for line in textwrap.wrap(text, WIDTH, initial_indent=spaces, subsequent_indent=spaces + "  "):
        yield line, style


def interval(figure: Document, shown: Any) -> str:
    """Return a figure with its interval, or why there is none."""
    if figure.get("value") is None:
        return str(figure.get("reason") or "no number yet")
    if figure.get("lower") is None:
        return str(shown(figure["value"]))
    return f"{shown(figure['value'])} [{shown(figure['lower'])}, {shown(figure['upper'])}]"


def number(value: Any) -> str:
    """Return a number in four significant digits; empty for None."""
    if not isinstance(value, (int, float)):
        return ""
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def percent(value: float) -> str:
    """Return a relative difference: `+8.5 %`."""
    return f"{100 * value:+.1f} %"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
