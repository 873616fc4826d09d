"""`ldinstrument sweep`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .terminal import CHANGES, FAILED, AsJson, err, print_json, say, warn

Seconds = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="As the workers have it, or shorter.")
]


def sweep(
    store: Annotated[
        str,
        typer.Argument(
            envvar="LDINSTRUMENT_STORE",
            show_envvar=True,
            help="sqlite:///path or redis://host:port/0.",
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Stop after so many; the last batch is whole."),
    ] = None,
    idle: Seconds = None,
    maximum: Seconds = None,
    remember: Seconds = None,
    as_json: AsJson = False,
) -> None:
    """Report the sessions that have ended in a store: for cron, and fleets that scale to zero.

    The SDK key comes from LAUNCHDARKLY_SDK_KEY. Exit code 0: all done, 1: failed, 3: done to the
    limit, there may be more.
    """
    from ..stores import sweep as sweep_store

    path = store.removeprefix("sqlite:///")
    if ":" not in path and not Path(path).exists():
        warn(f"there is no store at {path} yet; is it the path that the workers use?")
    given: dict[str, Any] = {"idle": idle, "maximum": maximum, "remember": remember}
    report = sweep_store(
        store, limit=limit, **{name: value for name, value in given.items() if value is not None}
    )
    if as_json:
        print_json(asdict(report))
    else:
        still_open = "" if report.open is None else f", {report.open} sessions still open"
        say(
            f"{report.sessions} sessions, {report.delivered} events delivered, {report.dropped} "
            f"dropped{still_open}"
        )
    if report.error:
        say(
            f"error: stopped early: {report.error}; what is left is kept for the next sweep",
            "red",
            on=err(),
        )
        raise typer.Exit(FAILED)
    raise typer.Exit(0 if report.complete else CHANGES)
