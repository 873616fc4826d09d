"""`ldinstrument metrics list | get | create | update | rename | delete`."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

import typer

from ..errors import DefinitionError, NotFound
from ..metrics import Aggregation, Measure, Metric, SuccessCriteria
from ..rest import RemoteMetric, json_patch
from ..rest.bodies import AnyMetric, ClickMetric, MatchKind, PageViewMetric, UrlMatch
from .terminal import (
    FAILED,
    AsJson,
    HostName,
    Project,
    Yes,
    confirmed,
    connect,
    err,
    out,
    print_json,
    progress,
    row,
    say,
    table,
    when,
)

app = typer.Typer(help="Metrics in LaunchDarkly, one by one.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(help="The metric's key.")]
Texts = list[str] | None


@app.command("list")
def list_(
    query: Annotated[str | None, typer.Option("--query", "-q", help="Words in the key or the name.")] = None,
    tag: Annotated[Texts, typer.Option("--tag", help="Only with this tag; several: with all of them.")] = None,
    event_key: Annotated[Texts, typer.Option("--event-key", help="Only those that read this event.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="custom, pageview or click.")] = None,
    used_in: Annotated[
        str | None, typer.Option("--used-in", help="experiments, guarded_rollouts, any or none.")
    ] = None,
    sort: Annotated[str, typer.Option("--sort", help="createdAt or name; with - before it descending.")] = "name",
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many.")] = None,
    project: Project = None,
    host: HostName = None,
    as_json: AsJson = False,
) -> None:
    """List the metrics of a project."""
    with connect(project, host) as api, progress("reading metrics") as report:
        total = api.count() or 0
        found = []
        for metric in api.list(
            query=query,
            tags=tag or (),
            event_keys=event_key or (),
            event_kind=kind,
            used_in=used_in,
            sort=sort,
            limit=limit,
        ):
            found.append(metric)
            report("reading metrics", len(found), total)
    if as_json:
        print_json([dict(metric.raw) for metric in found])
        return
    shown = table("Key", "Measures", "Last seen", "Name", keys=[one.key for one in found])
    for metric in found:
        row(shown, metric.key, _measures(metric), when(metric.last_seen), metric.name)
    out().print(shown)
    say(f"{len(found)} of {max(total, len(found))} metrics")


def _measure(metric: RemoteMetric) -> str:
    if metric.kind != "custom":
        return metric.kind
    if not metric.numeric:
        return metric.measure
    return f"p{metric.percentile}" if metric.percentile else metric.aggregation


def _measures(metric: RemoteMetric) -> str:
    archived = " (archived)" if metric.archived else ""
    return f"{_measure(metric)} of {metric.unit}{archived}" if metric.unit else f"{_measure(metric)}{archived}"


@app.command()
def get(key: Key, project: Project = None, host: HostName = None, as_json: AsJson = False) -> None:
    """Show one metric, and where it is in LaunchDarkly."""
    with connect(project, host) as api:
        metric = api.get(key, expand=("experiments", "experimentCount"))
    if as_json:
        print_json(dict(metric.raw))
    else:
        _show(metric)


def _show(metric: RemoteMetric) -> None:
    shown = table("", "")
    shown.show_header = False
    better = {"LowerThanBaseline": "lower", "HigherThanBaseline": "higher"}
    facts: dict[str, Any] = {
        "key": metric.key,
        "name": metric.name,
        "description": metric.description,
        "event key": metric.event_key,
        "measure": _measure(metric),
        "unit": metric.unit,
        "better is": better.get(metric.success_criteria or ""),
        "zero-fill": "on" if metric.zero_fill else "off",
        "analysed by": " or ".join(metric.analysis_units),
        "tags": ", ".join(metric.tags),
        "experiments": metric.experiments,
        "version": metric.version,
        "last seen": when(metric.last_seen),
        "archived": "yes" if metric.archived else None,
        "in LaunchDarkly": metric.url,
    }
    for name, value in facts.items():
        if value not in (None, ""):
            row(shown, name, value)
    out().print(shown)


@app.command()
def create(
    key: Key,
    measure: Annotated[str, typer.Option("--measure", "-m", help="value, count or occurrence.")] = "value",
    unit: Annotated[str | None, typer.Option("--unit", "-u", help="What a value is counted in.")] = None,
    lower: Annotated[
        bool | None, typer.Option("--lower-is-better/--higher-is-better", help="Which way is success.")
    ] = None,
    aggregation: Annotated[str | None, typer.Option("--aggregation", help="average or sum.")] = None,
    percentile: Annotated[int | None, typer.Option("--percentile", help="Analyse this percentile, such as 95.")] = None,
    event_key: Annotated[str | None, typer.Option("--event-key", help="The event it reads; else its key.")] = None,
    analysis_unit: Annotated[Texts, typer.Option("--analysis-unit", help="A context kind; may be repeated.")] = None,
    zero_fill: Annotated[
        bool | None, typer.Option("--zero-fill/--no-zero-fill", help="Whether units without events count as 0.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What people read.")] = None,
    description: Annotated[str, typer.Option("--description", help="What people read.")] = "",
    tag: Annotated[Texts, typer.Option("--tag", help="May be repeated.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="custom, pageview or click.")] = "custom",
    url: Annotated[
        Texts,
        typer.Option(
            "--url", metavar="KIND:TEXT", help="exact:, canonical:, substring: or regex:, for pageview, click."
        ),
    ] = None,
    selector: Annotated[str, typer.Option("--selector", help="CSS, for click.")] = "",
    project: Project = None,
    host: HostName = None,
    as_json: AsJson = False,
) -> None:
    """Create a metric by hand. Better: declare it in the code, and apply."""
    criteria = None if lower is None else "LowerThanBaseline" if lower else "HigherThanBaseline"
    labels: dict[str, Any] = {
        "name": name,
        "description": description,
        "tags": tuple(tag or ()),
        "analysis_units": tuple(analysis_unit or ()) or None,
    }
    metric: AnyMetric
    if kind == "custom":
        metric = Metric(
            key, cast("Measure", measure), unit=unit, success_criteria=cast("SuccessCriteria | None", criteria),
            aggregation=cast("Aggregation | None", aggregation), percentile=percentile, event_key=event_key,
            zero_fill=zero_fill, **labels,
        )  # fmt: skip
    else:
        metric = _browser_metric(
            kind, key, url or [], selector, {**labels, "success_criteria": criteria or "HigherThanBaseline"}
        )
    with connect(project, host) as api:
        created = api.create(metric)
    if as_json:
        print_json(dict(created.raw))
    else:
        say(f"created: {created.key}  {created.url}", "green")


def _browser_metric(kind: str, key: str, urls: list[str], selector: str, labels: dict[str, Any]) -> AnyMetric:
    matches = tuple(UrlMatch(cast("MatchKind", how), text) for how, _, text in (url.partition(":") for url in urls))
    if kind == "pageview":
        return PageViewMetric(key, matches, **labels)
    if kind == "click":
        return ClickMetric(key, matches, selector, **labels)
    raise DefinitionError(f"--kind: {kind!r} is not one of custom, pageview, click")


@app.command()
def update(
    key: Key,
    changes: Annotated[
        list[str], typer.Argument(metavar="FIELD=VALUE...", help="LaunchDarkly's field names; values are JSON or text.")
    ],
    comment: Annotated[str | None, typer.Option("--comment", help="For LaunchDarkly's audit log.")] = None,
    yes: Yes = False,
    project: Project = None,
    host: HostName = None,
    as_json: AsJson = False,
) -> None:
    """Change fields of a metric: unit=seconds, eventDefault/disabled=true, percentileValue=95 analysisType=percentile.

    Shows each change first, and how many experiments use the metric.
    """
    wanted = dict(_parsed(change) for change in changes)
    json_patch(wanted)
    with connect(project, host) as api:
        metric = api.get(key, expand=("experimentCount",))
        for field, value in wanted.items():
            say(f"{field}: {_now(metric, field)!r} -> {value!r}", on=err() if as_json else None)
        used = metric.experiments or 0
        if (
            used
            and err().is_terminal
            and not as_json
            and not confirmed(f"{used} experiments use it; change it?", yes=yes)
        ):
            raise typer.Exit(FAILED)
        changed = api.update(key, wanted, comment=comment)
    if as_json:
        print_json(dict(changed.raw))
    else:
        say(f"updated: {changed.key}  {changed.url}", "green")


def _parsed(change: str) -> tuple[str, Any]:
    field, equals, text = change.partition("=")
    if not equals or not field:
        raise typer.BadParameter(f"{change!r} is not FIELD=VALUE, such as unit=seconds")
    try:
        return field.strip("/"), json.loads(text)
    except ValueError:
        return field.strip("/"), text


def _now(metric: RemoteMetric, field: str) -> Any:
    value: Any = metric.raw
    for step in field.split("/"):
        value = value.get(step) if isinstance(value, dict) else None
    return value


@app.command()
def rename(
    key: Key, name: Annotated[str, typer.Argument(help="The new name.")], project: Project = None, host: HostName = None
) -> None:
    """Give a metric another name; its key, events and experiments stay."""
    with connect(project, host) as api:
        renamed = api.rename(key, name)
    say(f"renamed: {renamed.key} is now {renamed.name!r}  {renamed.url}", "green")


@app.command()
def delete(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="What to delete; nothing else is.")],
    yes: Yes = False,
    project: Project = None,
    host: HostName = None,
) -> None:
    """Delete metrics by name. There is no way back."""
    with connect(project, host) as api:
        found, missing = [], []
        for key in keys:
            try:
                found.append(api.get(key, expand=("experimentCount",)))
            except NotFound:
                missing.append(key)
        for metric in found:
            used = f"used by {metric.experiments or 0} experiments, last seen {when(metric.last_seen)}"
            say(f"{metric.key} ({metric.name}), {used}")
        for key in missing:
            say(f"error: there is no metric {key}", "red", on=err())
        if found and not confirmed(f"delete {len(found)} metrics for good?", yes=yes):
            raise typer.Exit(FAILED)
        for metric in found:
            api.delete(metric.key)
            say(f"deleted: {metric.key}", "green")
    raise typer.Exit(FAILED if missing else 0)
