"""The commands, put together."""

from __future__ import annotations

import typer

from . import doctor, local, metrics, plans, sweep

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
