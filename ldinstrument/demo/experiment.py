"""Run the help desk's experiment: create its metrics, send visitors, flush, read out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ldclient.client import LDClient
from ldclient.config import Config

from ..delivery import EventProcessor, Plugin, flush
from ..devserver import LocalLaunchDarkly, experiment_flag
from ..integrations.wsgi import SessionMiddleware
from ..ledger import Events
from ..scan.startup import bootstrap
from ..sessions.registry import stats
from . import helpdesk
from .traffic import QUESTIONS, Account, drive, served

VISITORS = 300
REQUESTS = VISITORS * len(QUESTIONS)


@dataclass(frozen=True, slots=True)
class Finished:
    """What the experiment did and what LaunchDarkly made of it.

    Args:
        accounts: what the visitors of each voice got, by their own account.
        readout: what the local LaunchDarkly holds.
        report: of the flush.
        events: of the ledger.
    """

    accounts: dict[str, Account]
    readout: Any
    report: Any
    events: Events


def local_launchdarkly() -> LocalLaunchDarkly:
    """Return a LaunchDarkly that has the experiment's flag."""
    flag = experiment_flag(helpdesk.FLAG, helpdesk.VOICES, metrics=helpdesk.GOALS)
    return LocalLaunchDarkly(flags=[flag])


def run_experiment(
    launchdarkly: LocalLaunchDarkly,
    visitors: int = VISITORS,
    advance: Callable[[], None] = lambda: None,
) -> Finished:
    """Let *visitors* ask all their questions at a help desk with a real client.

    Args:
        launchdarkly: where flags come from and events go.
        visitors: how many; each asks every question.
        advance: called after each question.
    """
    address: Any = dict.fromkeys(("base_uri", "events_uri", "stream_uri"), launchdarkly.url)
    client = LDClient(
        Config("sdk-local", plugins=[Plugin()], event_processor_class=EventProcessor, **address)
    )
    try:
        accounts = _serve_visitors(client, launchdarkly.url, visitors, advance)
        report = flush(timeout=10, client=client)
        return Finished(accounts, launchdarkly.readout(), report, stats().events)
    finally:
        client.close()  # type: ignore[no-untyped-call]


def _serve_visitors(
    client: LDClient, url: str, visitors: int, advance: Callable[[], None]
) -> dict[str, Account]:
    application = SessionMiddleware(
        helpdesk.application(client), context=helpdesk.context_of, client=client
    )
    bootstrap(
        "default",
        catalog=helpdesk.needed(),
        token="api-local",  # noqa: S106 - any token will do there
        base_uri=url,
    )
    with served(application) as desk:
        return drive(desk, visitors, advance)
