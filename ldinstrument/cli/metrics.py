"""`ldinstrument metrics list | get | create | update | rename | delete`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

import typer

from ..errors import NotFound
from ..metrics.metric import Aggregation, Measure, Metric, SuccessCriteria
from ..rest import RemoteMetric, json_patch
from ..rest.bodies import AnyMetric, ClickMetric, MatchKind, PageViewMetric, UrlMatch
from ..rest.credentials import on_a_terminal
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
    warn,
    when,
)

app = typer.Typer(help="Metrics in LaunchDarkly, one by one.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(help="The metric's key.")]
Texts = list[str] | None
Kind = Literal["custom", "pageview", "click"]


@app.command("list")
def list_(
    query: Annotated[
        str | None, typer.Option("--query", "-q", help="Words in the key or the name.")
    ] = None,
    tag: Annotated[
        Texts, typer.Option("--tag", help="Only with this tag; several: with all of them.")
    ] = None,
    event_key: Annotated[
        Texts, typer.Option("--event-key", help="Only those that read this event.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only of this kind.")] = None,
    used_in: Annotated[
        Literal["experiments", "guarded_rollouts", "any", "none"] | None,
        typer.Option("--used-in", help="Only those in use there."),
    ] = None,
    sort: Annotated[
        Literal["name", "-name", "createdAt", "-createdAt"],
        typer.Option("--sort", help="With - before it descending."),
    ] = "name",
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="At most so many.")
    ] = None,
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
    shown = table("Key", "Measures", "Last seen", "Name", keys=[metric.key for metric in found])
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
    return (
        f"{_measure(metric)} of {metric.unit}{archived}"
        if metric.unit
        else f"{_measure(metric)}{archived}"
    )


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
    }
    for name, value in facts.items():
        if value not in (None, ""):
            row(shown, name, value)
    out().print(shown)
    say(metric.url)


@app.command()
def create(
    key: Key,
    measure: Annotated[
        Measure | None, typer.Option("--measure", "-m", help="What is counted; else value.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", "-u", help="What a value is counted in.")
    ] = None,
    lower: Annotated[
        bool | None,
        typer.Option("--lower-is-better/--higher-is-better", help="Which way is success."),
    ] = None,
    aggregation: Annotated[
        Aggregation | None, typer.Option("--aggregation", help="Of the values of a unit.")
    ] = None,
    percentile: Annotated[
        int | None, typer.Option("--percentile", help="Analyse this percentile, such as 95.")
    ] = None,
    event_key: Annotated[
        str | None, typer.Option("--event-key", help="The event it reads; else its key.")
    ] = None,
    analysis_unit: Annotated[
        Texts, typer.Option("--analysis-unit", help="A context kind; may be repeated.")
    ] = None,
    zero_fill: Annotated[
        bool | None,
        typer.Option("--zero-fill/--no-zero-fill", help="Whether units without events count as 0."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What people read.")] = None,
    description: Annotated[str, typer.Option("--description", help="What people read.")] = "",
    tag: Annotated[Texts, typer.Option("--tag", help="May be repeated.")] = None,
    kind: Annotated[
        Kind,
        typer.Option("--kind", help="custom is what programs send, the others are for browsers."),
    ] = ("custom"),
    url: Annotated[
        Texts,
        typer.Option(
            "--url",
            metavar="KIND:TEXT",
            help="exact:, canonical:, substring: or regex:, for pageview, click.",
        ),
    ] = None,
    selector: Annotated[str, typer.Option("--selector", help="CSS, for click.")] = "",
    project: Project = None,
    host: HostName = None,
    as_json: AsJson = False,
) -> None:
    """Create a metric by hand. Better: declare it in the code, and apply."""
    criteria: SuccessCriteria | None = (
        None if lower is None else "LowerThanBaseline" if lower else "HigherThanBaseline"
    )
    labels: dict[str, Any] = {
        "name": name,
        "description": description,
        "tags": tuple(tag or ()),
        "analysis_units": tuple(analysis_unit or ()) or None,
    }
    of_values: dict[str, Any] = {
        "measure": measure,
        "unit": unit,
        "aggregation": aggregation,
        "percentile": percentile,
        "event_key": event_key,
        "zero_fill": zero_fill,
    }
    metric: AnyMetric
    if kind == "custom":
        _refuse({"--url": url, "--selector": selector or None}, "pageview or click")
        metric = _custom_metric(key, criteria, of_values, labels)
    else:
        options = {f"--{option.replace('_', '-')}": given for option, given in of_values.items()}
        _refuse(options, "custom")
        metric = _browser_metric(kind, key, url or [], selector, criteria, labels)
    with connect(project, host) as api:
        created = api.create(metric)
    if as_json:
        print_json(dict(created.raw))
    else:
        say(f"created: {created.key}  {created.url}", "green")


def _custom_metric(
    key: str,
    criteria: SuccessCriteria | None,
    of_values: dict[str, Any],
    labels: dict[str, Any],
) -> Metric:
    measure = of_values["measure"] or "value"
    if measure == "value":
        wanted = {"--unit": of_values["unit"], "--lower-is-better or --higher-is-better": criteria}
        _require(wanted, "a value")
    return Metric(key, success_criteria=criteria, **{**of_values, "measure": measure}, **labels)


def _refuse(options: dict[str, Any], kind: str) -> None:
    """Options that would be left out without a word."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise typer.BadParameter(f"{', '.join(given)}: only for --kind {kind}")


def _require(options: dict[str, Any], what: str) -> None:
    missing = [name for name, value in options.items() if not value]
    if missing:
        raise typer.BadParameter(f"{what} needs {' and '.join(missing)}")


def _browser_metric(
    kind: Kind,
    key: str,
    urls: list[str],
    selector: str,
    criteria: SuccessCriteria | None,
    labels: dict[str, Any],
) -> AnyMetric:
    _require({"--url": urls, **({"--selector": selector} if kind == "click" else {})}, f"a {kind}")
    parted = [url.partition(":") for url in urls]
    if wrong := [
        url for url, (how, _, _) in zip(urls, parted, strict=True) if how not in get_args(MatchKind)
    ]:
        raise typer.BadParameter(
            f"--url: {wrong[0]!r} is not KIND:TEXT, with {', '.join(get_args(MatchKind))} as KIND"
        )
    matches = tuple(UrlMatch(cast("MatchKind", how), text) for how, _, text in parted)
    success: SuccessCriteria = criteria or "HigherThanBaseline"
    if kind == "pageview":
        _refuse({"--selector": selector or None}, "click")
        return PageViewMetric(key, matches, success_criteria=success, **labels)
    return ClickMetric(key, matches, selector, success_criteria=success, **labels)


@app.command()
def update(
    key: Key,
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD=VALUE...", help="LaunchDarkly's field names; values are JSON or text."
        ),
    ],
    comment: Annotated[
        str | None, typer.Option("--comment", help="For LaunchDarkly's audit log.")
    ] = None,
    yes: Yes = False,
    project: Project = None,
    host: HostName = None,
    as_json: AsJson = False,
) -> None:
    """Change fields of a metric, such as unit=seconds or eventDefault/disabled=true.

    Several at once: percentileValue=95 analysisType=percentile. Shows each change first, and how
    many experiments use the metric.
    """
    wanted = dict(_parsed(change) for change in changes)
    json_patch(wanted)
    with connect(project, host) as api:
        metric = api.get(key, expand=("experimentCount",))
        unlike = _unlike(wanted, metric)
        for field, value in unlike.items():
            say(f"{field}: {_now(metric, field)!r} -> {value!r}", on=err() if as_json else None)
        if not unlike:
            _unchanged(metric, as_json)
            return
        used = metric.experiments or 0
        asked = used and on_a_terminal() and not as_json
        if asked and not confirmed(f"{used} experiments use it; change it?", yes=yes):
            raise typer.Exit(FAILED)
        changed = api.update(key, wanted, comment=comment)
    _updated(changed, _unlike(wanted, changed), as_json)


def _unlike(wanted: Mapping[str, Any], metric: RemoteMetric) -> dict[str, Any]:
    """Return the fields of *wanted* that *metric* has otherwise."""
    return {
        field: value for field, value in wanted.items() if not _taken(value, _now(metric, field))
    }


def _updated(changed: RemoteMetric, left: Mapping[str, Any], as_json: bool) -> None:
    """Show the metric as it is now; fail when fields are *left* as they were."""
    if as_json:
        print_json(dict(changed.raw))
    else:
        say(f"updated: {changed.key}  {changed.url}", "green")
    for field in left:
        warn(
            f"LaunchDarkly accepted the request, and {field} still is {_now(changed, field)!r}: "
            f"is it spelt right?"
        )
    if left:
        raise typer.Exit(FAILED)


def _unchanged(metric: RemoteMetric, as_json: bool) -> None:
    if as_json:
        print_json(dict(metric.raw))
    else:
        say(f"nothing to change: {metric.key}  {metric.url}")


def _taken(wanted: Any, now: Any) -> bool:
    """Tell whether LaunchDarkly has what was asked for: unknown fields it ignores in silence."""
    if isinstance(wanted, list) and isinstance(now, list):
        return sorted(map(str, wanted)) == sorted(map(str, now))
    return bool(wanted == now or (not wanted and not now))


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
    key: Key,
    name: Annotated[str, typer.Argument(help="The new name.")],
    project: Project = None,
    host: HostName = None,
) -> None:
    """Give a metric another name; its key, events and experiments stay."""
    with connect(project, host) as api:
        renamed = api.rename(key, name)
    say(f"renamed: {renamed.key} is now {renamed.name!r}  {renamed.url}", "green")


@app.command()
def delete(
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY...", help="What to delete; nothing else is.")
    ],
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
            used = (
                f"used by {metric.experiments or 0} experiments, last seen {when(metric.last_seen)}"
            )
            say(f"{metric.key} ({metric.name}), {used}")
        for key in missing:
            say(f"error: there is no metric {key}", "red", on=err())
        if found and not confirmed(f"delete {len(found)} metrics for good?", yes=yes):
            raise typer.Exit(FAILED)
        for metric in found:
            api.delete(metric.key)
            say(f"deleted: {metric.key}", "green")
    raise typer.Exit(FAILED if missing else 0)
