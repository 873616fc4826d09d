"""Start everything, drive the traffic, and show what LaunchDarkly then holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import missing_extra
from ..ledger import Events
from .traffic import QUESTIONS, Account, drive, served

VISITORS = 120


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo did and what LaunchDarkly made of it: `accounts` by voice, the read-out, the
    flush, the ledger.
    """

    accounts: dict[str, Account]
    readout: Any
    report: Any
    events: Events


def run(serve: bool = False, visitors: int = VISITORS) -> int:
    """Show the demo on the terminal; with *serve*, stay up for browsing until Ctrl-C. Returns the
    exit code.
    """
    try:
        from rich.console import Console

        from ..devserver import LocalLaunchDarkly, experiment_flag
    except ImportError as error:
        raise missing_extra("dev", error.name or "the demo's terminal part") from error
    from .helpdesk import FLAG

    console = Console()
    with LocalLaunchDarkly(flags=[experiment_flag(FLAG, ("short", "long"))]) as launchdarkly:
        console.print(f"local LaunchDarkly at [bold]{launchdarkly.url}[/bold]; no account, no key")
        with _progress(console, visitors * len(QUESTIONS)) as advance:
            shown = play(launchdarkly, visitors, advance)
        _tables(console, shown)
        if serve:
            _browse(console, f"\nthe page: [bold]{launchdarkly.url}/[/bold]  (Ctrl-C ends it)")
        else:
            console.print("\n[bold]ldinstrument demo --serve[/bold] keeps the page up for browsing")
    return 0


def play(launchdarkly: Any, visitors: int, advance: Callable[[], None] = lambda: None) -> Shown:
    """Create the metrics, drive the traffic through the help desk with a real client, flush, and
    read out.
    """
    from ldclient.client import LDClient
    from ldclient.config import Config

    from ..delivery import EventProcessor, Plugin, flush
    from ..integrations.wsgi import SessionMiddleware
    from ..plans import bootstrap
    from ..sessions.registry import stats
    from . import helpdesk

    address = dict.fromkeys(("base_uri", "events_uri", "stream_uri"), launchdarkly.url)
    client = LDClient(
        Config("sdk-local", plugins=[Plugin()], event_processor_class=EventProcessor, **address)
    )
    try:
        application = SessionMiddleware(
            helpdesk.application(client), context=helpdesk.context_of, client=client
        )
        bootstrap(
            "default",
            catalog=helpdesk.needed(),
            token="api-local",  # noqa: S106 - any token will do there
            base_uri=launchdarkly.url,
        )
        with served(application) as desk:
            accounts = drive(desk, visitors, advance)
        report = flush(timeout=10, client=client)
        return Shown(accounts, launchdarkly.readout(), report, stats().events)
    finally:
        client.close()  # type: ignore[no-untyped-call]


def _browse(console: Any, line: str) -> None:
    try:
        console.print(line)
        threading.Event().wait()
    except KeyboardInterrupt:
        return


class _progress:  # noqa: N801 - reads as the statement it is used as
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, console: Any, total: int) -> None:
        from rich.progress import Progress

        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("visitors ask", total=total)

    def __enter__(self) -> Callable[[], None]:
        self._bar.start()
        return lambda: self._bar.advance(self._task)

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()


def _tables(console: Any, shown: Shown) -> None:
    from rich import box
    from rich.table import Column, Table

    visitors = {visitor for account in shown.accounts.values() for visitor in account.visitors}
    requests = sum(account.requests for account in shown.accounts.values())
    events = shown.events
    console.print(
        f"{len(visitors)} visitors asked {requests} questions: {events.emitted} events emitted, "
        f"{events.delivered} delivered, {sum(events.dropped.values())} dropped"
    )
    table = Table(
        Column("metric", no_wrap=True, min_width=29),
        "voice",
        "units",
        "events",
        "mean",
        "p50",
        "p95",
        title="what LaunchDarkly now holds",
        box=box.SIMPLE,
        pad_edge=False,
        padding=(0, 1),
    )
    last = ""
    for row in shown.readout.rows:
        table.add_row(
            row.metric if row.metric != last else "",
            str(row.value),
            str(row.units),
            str(row.events),
            *map(_number, (row.mean, row.p50, row.p95)),
        )
        last = row.metric
    console.print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
