"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from ..rest.http import own_version
from . import demo, doctor, local, metrics, plans, readout, sweep
from .terminal import say

app = typer.Typer(
    name="ldinstrument",
    help="Metrics as code for LaunchDarkly: what your program emits, LaunchDarkly knows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    *(plans.plan, plans.apply, doctor.doctor),
    *(local.dev, demo.demo, readout.readout, local.tail, sweep.sweep),
):
    # The whole first line; click alone would cut it after a few words.
    app.command(short_help=(command.__doc__ or "").splitlines()[0])(command)
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
