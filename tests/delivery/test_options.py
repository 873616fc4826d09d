"""Options of an event processor: refused where they are written."""

from __future__ import annotations

import sys
import time
from functools import partial
from types import SimpleNamespace

import faults
import pytest
from clients import client_of
from ldclient import Config, Context, LDClient

from ldinstrument.delivery import (
    EventProcessor,
    flush,
)
from ldinstrument.delivery.options import flush_interval
from ldinstrument.errors import DefinitionError

CONTEXT = Context.create("u-1")


BARE = Context.create("u-1")


def test_options_are_keywords_of_the_processor(server, make):
    """A misspelt one is an error where it is written."""
    with pytest.raises(TypeError):
        partial(EventProcessor, spol="x")(faults.config(server.url))


def test_an_unknown_option_is_refused_where_it_is_written():
    """A typo must not look like a closed seam."""
    with pytest.raises(TypeError, match="spol"):
        EventProcessor(Config("sdk-key"), spol="/tmp/x")


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": None},
        {"max_bytes": "32MB"},
        {"max_bytes": 0},
        {"max_age": None},
        {"max_age": 0},
        {"close_timeout": None},
        {"close_timeout": -1},
        {"wait_when_full": "1"},
        {"first_pause": 0},
        {"first_pause": "1"},
        {"first_pause": float("nan")},
        {"longest_pause": None},
        {"longest_pause": 0.1},
        {"on_receipt": 5},
        {"transport": 5},
        {"spool": 5},
        {"spool": ""},
        {"max_bytes": True},
    ],
    ids=str,
)
def test_an_odd_option_is_refused_where_it_is_written(options):
    """Not by the first failure of a server, hours later."""
    with pytest.raises(DefinitionError, match=next(iter(options))):
        EventProcessor(Config("sdk-key"), **options)


def test_a_relative_spool_stays_where_it_was(server, tmp_path, monkeypatch):
    """A daemon goes to another folder; its events do not."""
    monkeypatch.chdir(tmp_path)
    server.answer(status=503)
    client = LDClient(
        faults.config(server.url, spool="rel", flush_interval=3600, close_timeout=0.1)
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    client.track("a", CONTEXT)
    flush(0.5, client)
    client.close()
    deadline = time.monotonic() + 30
    while not list((tmp_path / "rel").glob("left-*.events")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list((tmp_path / "rel").glob("left-*.events"))
    assert not (tmp_path / "elsewhere" / "rel").exists()


def test_options_travel_through_partial(server, tmp_path):
    """`functools.partial(EventProcessor, spool=...)` is how options are given to a `Config`."""
    made = partial(EventProcessor, spool=tmp_path / "spool")
    client = client_of(server, use_ldd=True, event_processor_class=made)
    client.track("a", BARE)
    assert flush(30.0, client).delivered == 1
    faults.close(client)
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    ("server", "embedded"),
    [("uwsgi", object()), ("mod_wsgi", SimpleNamespace(application_group="shop"))],
)
def test_events_leave_at_once_where_no_exit_may_be_heard(monkeypatch, server, embedded):
    """A worker of uWSGI that is stopped while it is busy, and a sub-interpreter of mod_wsgi, run no
    hook; elsewhere the SDK's interval holds, also in mod_wsgi's main interpreter.
    """
    config = Config("sdk-key", flush_interval=300)
    monkeypatch.setitem(sys.modules, "mod_wsgi", SimpleNamespace(application_group=""))
    assert flush_interval(config) == 300
    monkeypatch.setitem(sys.modules, server, embedded)
    assert flush_interval(config) == 0.25
    assert flush_interval(Config("sdk-key", flush_interval=0.1)) == 0.1
