"""What commands say, and where: answers on stdout, everything else on stderr; readable without a
terminal, too.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from ..errors import DefinitionError
from ..plans import Progress as Report
from ..rest import MetricsAPI
from ..rest.credentials import Host, find_api_host, on_a_terminal
from . import stdio as streams

Project = Annotated[
    str | None,
    typer.Option(
        "--project", "-p", metavar="KEY", help="LaunchDarkly project; else LAUNCHDARKLY_PROJECT."
    ),
]
HostName = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        help="us, eu, federal or a URL; else LAUNCHDARKLY_API_HOST, LDINSTRUMENT_URL.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

CALL_SECONDS = 60.0
LOCAL_SECONDS = 3.0
"""What does not listen on this machine by then is not running."""
FAILED, USAGE, CHANGES, DRIFT = 1, 2, 3, 4


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise streams.ReaderGone


def out() -> Console:
    """Where answers go."""
    return _Console(file=streams.answers(), highlight=False)


def err() -> Console:
    """Where everything else goes."""
    return _Console(stderr=True, highlight=False)


def say(text: str, style: str = "", *, on: Console | None = None) -> None:
    """Print a line as it is: what comes from elsewhere is no markup."""
    (on or out()).print(Text(_plain(text), style=style), soft_wrap=True)


def _plain(text: str) -> str:
    """*text* without control characters: names in LaunchDarkly are other people's, and this is a
    terminal.
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "?", text)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    say(f"warning: {text}", "yellow", on=err())


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON to stdout, at once."""
    stream = streams.answers()
    if stream is None:
        return
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        raise streams.ReaderGone from None


def connect(project: str | None, host: str | None) -> MetricsAPI:
    """Return the API of a project; says on stderr where it is and whose token is used, never the
    token.
    """
    budget = CALL_SECONDS if _listens(find_api_host(host)) else LOCAL_SECONDS
    api = MetricsAPI(project, base_uri=host, prompt=None, budget=budget, sleep=_patiently)
    for remark in api.token.remarks:
        warn(remark)
    say(f"project {api.project} at {api.host.url}; token from {api.token.source}", "dim", on=err())
    return api


def connect_locally(project: str | None, host: str | None) -> MetricsAPI:
    """Do the same for what only a local LaunchDarkly has.

    Raises:
        DefinitionError: none is named.
    """
    if not find_api_host(host).local:
        raise DefinitionError(
            "only a local LaunchDarkly has this: start one (ldinstrument dev), and "
            "export LDINSTRUMENT_URL=http://127.0.0.1:8030"
        )
    return connect(project, host)


def _listens(host: Host) -> bool:
    """Whether a call is worth its whole budget: on this machine, somebody has to be there, perhaps
    in a moment.
    """
    if not host.local:
        return True
    parts = urlsplit(host.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    end = time.monotonic() + LOCAL_SECONDS
    while True:
        try:
            socket.create_connection((parts.hostname, port), timeout=LOCAL_SECONDS).close()
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)
        else:
            return True


def _patiently(seconds: float) -> None:
    if seconds >= 1:
        say(f"LaunchDarkly is not ready; trying again in {seconds:.0f} s", "dim", on=err())
    time.sleep(seconds)


def as_typed(command: str, project: str | None, host: str | None) -> str:
    """*command* with the options that this one was called with, so that it can be pasted."""
    options = [
        f"--{name} {shlex.quote(given)}"
        for name, given in (("project", project), ("host", host))
        if given
    ]
    return " ".join([command, *options])


def table(*columns: str, right: Sequence[str] = (), keys: Iterable[str] = ()) -> Table:
    """Return an empty table that folds long words instead of cutting them.

    Args:
        right: columns of numbers.
        keys: what the `Key` or `Metric` column will hold; up to 40 characters of it are not folded,
            so that they can be copied.

    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    # A fixed width: rich forgets a minimum while it shrinks columns, and then cuts the last one
    # off.
    widest = min(40, out().width // 2, max((len(key) for key in keys), default=6))
    for column in columns:
        made.add_column(
            column,
            overflow="fold",
            justify="right" if column in right else "left",
            width=widest if column in ("Key", "Metric") else None,
        )
    return made


def row(made: Table, *cells: object, style: str = "") -> None:
    """Add a row of plain text."""
    made.add_row(*(Text("" if cell is None else _plain(str(cell))) for cell in cells), style=style)


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask on a terminal; without one, only `--yes` counts.

    Raises:
        typer.Exit: there is no terminal and no `--yes`.

    """
    if yes:
        return True
    if not on_a_terminal():
        say("error: not on a terminal, so nobody can confirm; say --yes", "red", on=err())
        raise typer.Exit(USAGE)
    return typer.confirm(question, err=True)


@contextmanager
def progress(what: str) -> Iterator[Report]:
    """Show a progress bar on stderr while something is under way; nothing without a terminal."""
    console = err()
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not on_a_terminal(),
    )
    with bar:
        task = bar.add_task(what, total=None)

        def report(doing: str, done: int, total: int) -> None:
            bar.update(task, description=doing or what, completed=done, total=total or None)

        yield report


def when(milliseconds: int | None) -> str:
    """Return a moment in the local time zone; `never` for None."""
    if milliseconds is None:
        return "never"
    return (
        datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
        .astimezone()
        .strftime("%Y-%m-%d %H:%M")
    )


def guarded(call: Callable[[], None]) -> None:
    """Run *call*; Ctrl-C is the ordinary way to end it."""
    try:
        call()
    except KeyboardInterrupt:
        err().print()
