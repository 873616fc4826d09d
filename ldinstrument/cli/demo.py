"""`ldinstrument demo`: an experiment from traffic to verdict, on this machine alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from ..errors import missing_extra
from .readout import Document, experiment_lines, interval, percent, variation_names, wrapped
from .terminal import out, say

if TYPE_CHECKING:
    from ..demo.experiment import Finished

STYLES = {"better": "bold green", "worse": "bold red"}


def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Stay up for browsing.")] = False,
) -> None:
    """Send real traffic through an instrumented program, and read its experiment out."""
    try:
        from ..demo.experiment import REQUESTS, local_launchdarkly, run_experiment
    except ImportError as error:
        raise missing_extra("dev", error.name or "the demo's local LaunchDarkly") from error

    with local_launchdarkly() as local:
        say(f"local LaunchDarkly at {local.url}; no account, no key")
        with _progress(REQUESTS) as advance:
            finished = run_experiment(local, advance=advance)
        for line, style in demo_lines(finished):
            say(line, style)
        if serve:
            _browse(f"the page: {local.page_url}  (Ctrl-C ends it)")
        else:
            say("ldinstrument demo --serve keeps the page up for browsing")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, nothing elsewhere."""
    console = out()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("visitors ask", total=total)
        yield lambda: progress.advance(bar)


def _browse(line: str) -> None:
    try:
        say(line, "bold")
        threading.Event().wait()
    except KeyboardInterrupt:
        return


# -- what is shown ---------------------------------------------------------------------------------


def demo_lines(finished: Finished) -> Iterator[tuple[str, str]]:
    """Yield the lines of a finished experiment, each with its style: delivery, goals, verdicts."""
    from ..demo.helpdesk import GOALS
    from ..devserver.readout.readout_document import readout_document

    yield from wrapped(_delivered(finished), indent=0)
    yield "", ""
    (experiment,) = readout_document(finished.readout, 0)["experiments"]
    goals = [metric for metric in experiment["metrics"] if metric["metric"] in GOALS]
    others = sorted(_fed(experiment["metrics"]) - {*GOALS})
    yield from experiment_lines({**experiment, "metrics": goals})
    yield from wrapped(f"also measured: {', '.join(others)}", indent=0)
    yield "", ""
    yield from verdict_lines(goals)


def _fed(metrics: Sequence[Document]) -> set[str]:
    return {metric["metric"] for metric in metrics if any(row["events"] for row in metric["rows"])}


def _delivered(finished: Finished) -> str:
    visitors = {visitor for account in finished.accounts.values() for visitor in account.visitors}
    requests = sum(account.requests for account in finished.accounts.values())
    events = finished.events
    return (
        f"{len(visitors)} visitors asked {requests} questions: {events.emitted} events emitted, "
        f"{events.delivered} delivered, {sum(events.dropped.values())} dropped"
    )


def verdict_lines(metrics: Sequence[Document]) -> Iterator[tuple[str, str]]:
    """Yield a line for what each comparison of each metric came to, decided ones first."""
    found = [
        (metric, comparison)
        for metric in metrics
        if metric["result"] is not None
        for comparison in metric["result"]["ldinstrument"]["comparisons"]
    ]
    for metric, comparison in sorted(found, key=_is_undecided):
        word = comparison["verdict"]["word"]
        difference = interval(comparison["bayesian"]["relativeDifference"], percent)
        treatment = variation_names(metric)[comparison["treatmentId"]]
        said = f"{treatment} is {word}" if word in STYLES else word
        line = f"{metric['metric']}: {said}, {difference}"
        yield from wrapped(line, STYLES.get(word, "bold"), indent=0)


def _is_undecided(found: tuple[Any, Document]) -> bool:
    return found[1]["verdict"]["word"] not in STYLES
