"""`ldinstrument plan` and `apply`."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from .. import plans
from ..metrics import catalogs
from ..metrics.metric import Metric, naming_complaints
from ..plans import Change, Plan
from ..rest.credentials import on_a_terminal
from ..scan import Scan, scan
from . import stdio as streams
from .terminal import (
    CHANGES,
    DRIFT,
    FAILED,
    AsJson,
    HostName,
    Project,
    Yes,
    as_typed,
    confirmed,
    connect,
    err,
    out,
    print_json,
    progress,
    row,
    say,
    table,
    warn,
)

LONGEST_LIST = 50

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TARGET",
        help="A package (all its modules are imported), a module, a file, or module:catalog. "
        "Without one: the standard metrics.",
    ),
]
Update = Annotated[
    bool, typer.Option("--update", help="Also change metrics that differ from the code.")
]
IMPORT_SECONDS = 10.0
_SHOWN = 10
_MARKS = {
    "create": ("+", "green"),
    "unchanged": ("=", "dim"),
    "drift": ("~", "yellow"),
    "error": ("!", "red"),
}


def plan(
    targets: Targets = None,
    project: Project = None,
    host: HostName = None,
    update: Update = False,
    as_json: AsJson = False,
) -> None:
    """Say what LaunchDarkly needs for your code to count, and change nothing.

    Exit code 0: nothing to do, 1: failed, 3: there is something to create, 4: something differs.
    """
    found = declared(targets)
    with connect(project, host) as api, progress("reading metrics") as report:
        made = plans.plan(found.metrics, api, place=found.place, progress=report)
    code = plan_code(made, found)
    if as_json:
        print_json(_json(made, found, code))
    else:
        show(made, found)
        _next_step(made, found, targets, update, lambda command: as_typed(command, project, host))
    raise typer.Exit(code)


def apply(
    targets: Targets = None,
    project: Project = None,
    host: HostName = None,
    update: Update = False,
    create_context_kinds: Annotated[
        bool,
        typer.Option(
            "--create-context-kinds",
            help="Create missing context kinds, available for experiments.",
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Create the metrics that your code needs; with --update, also change those that differ.

    Nothing is ever deleted. Exit code 0: done, 1: failed, 4: done, but something still differs.
    """
    found = declared(targets)
    with connect(project, host) as api:
        with progress("reading metrics") as report:
            made = plans.plan(found.metrics, api, place=found.place, progress=report)
        if not as_json:
            show(made, found)
        if update and _to_update(made) and not _may_update(made, yes, as_json):
            raise typer.Exit(FAILED)
        with progress("applying") as report:
            done = plans.apply(
                made, api, update=update, create_context_kinds=create_context_kinds, progress=report
            )
    code = apply_code(done, found)
    if as_json:
        print_json(_json(done, found, code))
    else:
        _results(done)
    raise typer.Exit(code)


# -- what the code declares ----------------------------------------------------------------------


def declared(targets: Sequence[str] | None) -> Scan:
    """Return the catalog of *targets*; without any, the default catalog."""
    if not targets:
        catalog = catalogs.catalog
        metrics = tuple(catalog)
        return Scan(metrics, {metric.key: "" for metric in metrics})
    streams.keep_for_answers()
    with progress("importing") as report, _patience() as importing:

        def imports(name: str) -> None:
            importing.append(name)
            report(f"importing {name}", 0, 0)

        return scan(targets, progress=imports)


@contextlib.contextmanager
def _patience() -> Iterator[list[str]]:
    """Say what is being imported when that takes long: a module may run the whole program on
    import.
    """
    importing: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(IMPORT_SECONDS):
            for name in importing[-1:]:
                say(
                    f"still importing {name}; does it run the program on import? (Ctrl-C ends "
                    f"this)",
                    on=err(),
                )

    threading.Thread(target=watch, name="ldinstrument-importing", daemon=True).start()
    try:
        yield importing
    finally:
        over.set()


def plan_code(made: Plan, found: Scan) -> int:
    """Return the exit code that says what *made* asks for."""
    if made.errors:
        return FAILED
    if made.drift or made.finer or found.undeclared:
        return DRIFT
    return CHANGES if made.create else 0


def apply_code(done: Plan, found: Scan) -> int:
    """Return the exit code that says what is left after applying."""
    if done.failed or done.errors:
        return FAILED
    left = [change for change in done.drift if change.result != "updated"]
    return DRIFT if left or done.finer or found.undeclared else 0


def _json(made: Plan, found: Scan, code: int) -> dict[str, Any]:
    return {
        **made.to_json(),
        "undeclared": [
            {"key": use.key, "place": use.place, "advice": use.advice()} for use in found.undeclared
        ],
        "dynamic": [{"place": place, "call": what} for place, what in found.dynamic],
        "unreadable": [{"where": where, "reason": reason} for where, reason in found.unreadable],
        "exitCode": code,
    }


# -- showing -------------------------------------------------------------------------------------


def show(made: Plan, found: Scan) -> None:
    """Print a plan for people."""
    listed = _listed(made)
    shown = table("", "Metric", "What", keys=[change.metric.key for change in listed])
    for change in listed:
        mark, style = _MARKS[change.action]
        row(shown, mark, change.metric.key, "\n".join(_what(change)), style=style)
    if listed:
        out().print(shown)
    if len(listed) < len(made.changes):
        say(f"{len(made.changes) - len(listed)} as in the code are not listed; --json has them all")
    for line in _remarks(made, found):
        say(line)
    say(_summary(made))


def _listed(made: Plan) -> Sequence[Change]:
    """Return the changes to print: all of a short plan, only what differs of a long one."""
    if len(made.changes) <= LONGEST_LIST:
        return made.changes
    return [change for change in made.changes if change.action != "unchanged" or change.differences]


def _what(change: Change) -> Iterator[str]:
    if change.action == "create":
        yield f"create: {definition(change.metric)}"
    elif change.action == "unchanged" and not change.differences:
        yield "as in the code"
    elif change.action == "error":
        yield change.problem
    for difference in change.differences if change.action != "error" else ():
        label = " (label)" if difference.label else ""
        yield f"{difference.field}: {difference.found!r} -> {difference.wanted!r}{label}"
    if change.action == "drift" and change.found is not None:
        count = change.found.experiments
        yield (
            "used by an unknown number of experiments"
            if count is None
            else f"used by {count} experiments"
        )
    if change.place and change.action != "unchanged":
        yield f"declared at {change.place}"


def definition(metric: Metric) -> str:
    """Return a definition in one line."""
    if metric.numeric:
        statistic = f"p{metric.percentile}" if metric.percentile else metric.aggregation
        words = [f"value in {metric.unit}", str(statistic)]
    else:
        words = [metric.measure]
    words.append(
        "lower is better" if metric.success_criteria == "LowerThanBaseline" else "higher is better"
    )
    words.append("zero-fill" if metric.zero_fill else "no zero-fill")
    if metric.event_key and metric.event_key != metric.key:
        words.append(f"event {metric.event_key!r}")
    if metric.analysis_units:
        words.append(f"by {' or '.join(metric.analysis_units)}")
    return ", ".join(words)


def _remarks(made: Plan, found: Scan) -> Iterator[str]:
    for change in made.changes:
        # Not in the table, which would break the address in two.
        if change.found is not None and change.action in ("drift", "error"):
            yield f"{_MARKS[change.action][0]} {change.metric.key}: {change.found.url}"
    for finer in made.finer:
        yield f"! {finer.advice()}"
    for _, advice in made.missing_units:
        yield f"! {advice}"
    yield from _remarks_on_the_code(found)
    yield from (f"? {remark}" for remark in made.remarks)
    if made.unmanaged:
        keys = ", ".join(metric.key for metric in made.unmanaged[:_SHOWN])
        more = f" and {len(made.unmanaged) - _SHOWN} more" if len(made.unmanaged) > _SHOWN else ""
        count = len(made.unmanaged)
        yield f"  in LaunchDarkly and not in the code, left alone: {count} ({keys}{more})"


def _remarks_on_the_code(found: Scan) -> Iterator[str]:
    for unit in found.undeclared:
        yield f"! {unit.place}: event key {unit.key!r}: {unit.advice()}"
    for where, reason in found.unreadable:
        yield f"? {where}: {reason}"
    if found.dynamic:
        yield f"? keys made at run time, which cannot be seen from here: {len(found.dynamic)}"
        yield from (f"    {place}: {what}" for place, what in found.dynamic[:_SHOWN])
        yield from _more(len(found.dynamic))
    for metric in found.metrics:
        yield from (
            f"? {metric.key}: {complaint}"
            for complaint in naming_complaints(metric.key, metric.unit)
        )


def _more(count: int) -> Iterator[str]:
    if count > _SHOWN:
        yield f"    and {count - _SHOWN} more (--json lists them all)"


def _summary(made: Plan) -> str:
    same = sum(change.action == "unchanged" for change in made.changes)
    parts = (
        f"{len(made.create)} to create",
        f"{len(made.drift)} differ",
        f"{same} as they should be",
    )
    return ", ".join(parts) + (f", {len(made.errors)} in error" if made.errors else "")


def _next_step(
    made: Plan,
    found: Scan,
    targets: Sequence[str] | None,
    update: bool,
    typed: Callable[[str], str],
) -> None:
    if not targets:
        say(
            "these are the standard metrics; ldinstrument plan YOUR_PACKAGE plans what your code "
            "needs",
            on=err(),
        )
    elif not found.metrics:
        looked = ", ".join(found.modules[:_SHOWN])
        say(f"nothing declares a metric in {len(found.modules)} modules: {looked}", "red", on=err())
    apply = typed(shlex.join(["ldinstrument", "apply", *(targets or ())]))
    if made.errors:
        say("nothing can be applied before the errors are mended", "red", on=err())
    elif made.drift and (update or not made.create):
        say(f"next: {apply} --update (running experiments need a new iteration)", on=err())
    elif made.create:
        say(f"next: {apply}", on=err())


# -- applying ------------------------------------------------------------------------------------


def _to_update(made: Plan) -> list[Change]:
    return [
        change
        for change in made.changes
        if change.differences and change.action in ("drift", "unchanged")
    ]


def _may_update(made: Plan, yes: bool, as_json: bool) -> bool:
    changing = _to_update(made)
    used = sum((change.found.experiments or 0) for change in changing if change.found)
    if as_json or yes or not on_a_terminal():
        return True
    with contextlib.suppress(typer.Abort):
        return confirmed(f"change {len(changing)} metrics, used by {used} experiments?", yes=yes)
    return False


def _results(done: Plan) -> None:
    for change in done.changes:
        if change.result in ("created", "updated", "created by another"):
            say(
                f"{change.result}: {change.metric.key}  {change.found.url if change.found else ''}",
                "green",
            )
    for change in done.failed:
        warn(
            f"{change.result}: {change.metric.key}{f': {change.failure}' if change.failure else ''}"
        )
    for change in done.not_taken:
        fields = ", ".join(
            f"{difference.field} is {difference.found!r}" for difference in change.differences
        )
        warn(f"{change.metric.key}: LaunchDarkly accepted the request, and still {fields}")
    left = [change.metric.key for change in done.drift if change.result != "updated"]
    if left:
        say(f"still different, see --update: {', '.join(left)}", "yellow")
    made = sum(bool(change.result) and change not in done.failed for change in done.changes)
    say(f"{made} done, {len(done.failed)} failed")
