"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from ..rest.http import own_version
from . import doctor, local, metrics, plans, sweep
from .terminal import say

app = typer.Typer(
    name="ldinstrument",
    help="Metrics as code for LaunchDarkly: what your program emits, LaunchDarkly knows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(plans.plan)
app.command()(plans.apply)
app.command()(doctor.doctor)
app.command()(local.dev)
app.command()(local.demo)
app.command()(local.readout)
app.command()(local.tail)
app.command()(sweep.sweep)
app.add_typer(metrics.app, name="metrics")


def _version(wanted: bool) -> None:
    if wanted:
        say(f"ldinstrument {own_version()}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
    ] = False,
) -> None:
    pass
