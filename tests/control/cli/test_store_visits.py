"""The visits of a store, as the page of a local LaunchDarkly counts and ends them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ldinstrument.cli.store_visits import StoreVisits
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import DefinitionError
from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores import end_request, open_store
from ldinstrument.testing import RecordingClient


def visit(address: str, visitor: str) -> None:
    """A request of a visitor whose visit goes on."""
    with open_store(address, sweep=False, client=RecordingClient()) as store:
        session = open_session("ana", client=RecordingClient())
        session.interaction()
        end_request(session, store, visitor)


def test_open_visits_are_counted_ended_and_reported(
    ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Looking ends nothing; ending reports each once, to the local LaunchDarkly."""
    monkeypatch.setenv("LDINSTRUMENT_URL", ld.url)
    address = f"sqlite:///{tmp_path}/sessions.db"
    for visitor in ("v-1", "v-2"):
        visit(address, visitor)
    visits = StoreVisits(address)
    assert (visits.open(), visits.open()) == (2, 2)
    time.sleep(0.01)
    assert visits.end() == 2
    assert (visits.open(), visits.end()) == (0, 0)
    ld.wait_for(lambda: len(ld.custom_events("session.interactions")) >= 2)


def test_an_address_that_is_none_is_refused() -> None:
    """When it is first asked, with what to write."""
    with pytest.raises(DefinitionError, match="ftp: is no session store"):
        StoreVisits("ftp://example.test").open()
