"""The commands around a local LaunchDarkly: `dev`, `tail`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from ..diagnostics import one_line
from ..errors import DefinitionError, missing_extra
from ..settings import LOCAL_URL
from .store_visits import StoreVisits
from .terminal import AsJson, HostName, connect_locally, guarded, print_json, say

POLL_SECONDS = 0.5


def dev(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")
    ] = 8030,
    db: Annotated[
        Path | None,
        typer.Option("--db", metavar="FILE", help="Keep everything in this SQLite file."),
    ] = None,
    flags: Annotated[
        Path | None,
        typer.Option("--flags", metavar="FILE", help="Flags, in the SDK's JSON format."),
    ] = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option(
            "--experiment",
            metavar="KEY=A,B",
            help="An experiment without a file, such as new-prompt=short,long; repeatable.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="A session store whose open visits to show."),
    ] = None,
) -> None:
    """Run a local LaunchDarkly until Ctrl-C: no account, no key."""
    try:
        from ..devserver import LocalLaunchDarkly, serve
    except ImportError as error:
        raise missing_extra("dev", error.name or "the local LaunchDarkly") from error

    visits = None if store is None else _visits_of(store)

    def ready(local: LocalLaunchDarkly) -> None:
        os.environ[LOCAL_URL] = local.url  # where ended visits are reported
        say(f"local LaunchDarkly at {local.url}", "bold")
        say(f"  export LDINSTRUMENT_URL={local.url}    (SDK, REST and this command line go there)")
        say(f"  {local.page_url}    the live page; Ctrl-C ends it")
        sys.stdout.flush()

    serve(host, port, db, flags or (), experiments=experiment or (), visits=visits, ready=ready)


def _visits_of(store: str) -> StoreVisits:
    """Return the visits of a store that answers.

    Raises:
        DefinitionError: it does not.
    """
    visits = StoreVisits(store)
    try:
        visits.open()
    except DefinitionError:
        raise
    except Exception as error:
        raise DefinitionError(f"--store: {one_line(str(error))}") from error
    return visits


def tail(
    count: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many to begin with.")
    ] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    key: Annotated[str | None, typer.Option("--key", help="Only this event key.")] = None,
    host: HostName = None,
    as_json: AsJson = False,
) -> None:
    """Print the latest events that a local LaunchDarkly received; --json: one per line."""

    def show() -> None:
        with connect_locally(None, host) as api:
            last = 0
            only = {} if key is None else {"key": key}
            page = api.local("events", limit=max(1, count), **only)
            while True:
                for item in page["items"] if count or last else ():
                    _print_event(item["event"], as_json)
                last = max(last, page["last"])
                if not follow:
                    return
                time.sleep(POLL_SECONDS)
                page = api.local("events", since=last, limit=1000, **only)

    guarded(show)


def _print_event(event: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(event, indent=None)
        return
    created = event.get("creationDate") or event.get("startDate") or 0
    clock = datetime.fromtimestamp(created / 1000, timezone.utc).astimezone().strftime("%H:%M:%S")
    words = [clock, str(event.get("kind")), str(event.get("key") or "")]
    if event.get("metricValue") is not None:
        words.append(f"= {event['metricValue']:.6g}")
    words += [
        _context(event.get("context")),
        json.dumps(event["data"], ensure_ascii=False) if event.get("data") else "",
    ]
    say("  ".join(word for word in words if word))


def _context(context: Any) -> str:
    if not isinstance(context, Mapping):
        return ""
    if context.get("kind") != "multi":
        return f"{context.get('kind', 'user')}:{context.get('key')}"
    return ",".join(
        f"{kind}:{part.get('key')}" for kind, part in context.items() if isinstance(part, Mapping)
    )
