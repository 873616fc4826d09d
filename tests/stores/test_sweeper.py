"""`sweeper`: the thread that brings in what waits, and sweeps."""

from __future__ import annotations

import threading
import time

from stores_builders import (
    Failing,
    over,
    reported,
    until,
    visit,
)

from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores import (
    end_request,
    end_session,
    sweep,
)
from ldinstrument.stores.sweeper import _jittered
from ldinstrument.testing import RecordingClient


def test_the_sweeper_brings_in_what_waited(keep):
    """Nobody has to call anything: the worker's own thread tries again."""
    raw = Failing()
    store = keep(raw, client=RecordingClient(), sweep=True, interval=60.0)

    raw.away = True
    visit(store)
    raw.away = False

    until(lambda: store.waiting == 0)
    assert raw.holdings().open == 1


def test_the_background_sweeper_reports(make_store, keep, ld, client):
    """The thread of a worker finds what fell silent, by itself."""
    store = keep(make_store(idle=0.05), client=client, sweep=True, interval=0.1)

    visit(store, client=client)

    ld.wait_for(lambda: ld.custom_events("session.interactions"), timeout=60.0)
    assert len(reported(ld)) == 1


def test_a_logout_is_reported_without_waiting_for_the_next_sweep(make_store, keep, ld, client):
    """Either way: by its own request, or by a call; the sweeper would come by itself in an hour
    only.
    """
    store = keep(make_store(), client=client, sweep=True, interval=3600.0)

    opened = open_session("ana", client=client)
    end_request(opened, store, "v-1", ends="ended")
    ld.wait_for(lambda: len(reported(ld)) == 1, timeout=60.0)
    visit(store, "v-2", client=client)
    end_session(store, "v-2")
    ld.wait_for(lambda: len(reported(ld)) == 2, timeout=60.0)


def test_the_background_sweeper_rests_between_batches(make_store, keep, ld, client, monkeypatch):
    """Its worker has requests to serve; who calls `sweep` himself has not."""
    raw, rests = make_store(window=0.05), []
    store = keep(raw, client=client)
    monkeypatch.setattr(store, "_rest", lambda seconds: not rests.append(seconds))

    over(raw, 3)
    time.sleep(0.05)
    over(raw, 3, first=3)
    time.sleep(0.05)
    store.sweep_in_background()
    rested = len(rests)
    over(raw, 3, first=6)
    sweep(store)

    assert len(rests) == rested >= 2
    assert len(reported(ld)) == 9


def test_sweepers_do_not_come_in_step():
    """Half of the interval to one and a half, anew each time."""
    waits = {_jittered(10.0) for _ in range(50)}

    assert len(waits) > 1
    assert all(5.0 <= wait <= 15.0 for wait in waits)


def test_a_sweeper_without_a_thread_is_started_later(make_store, keep, monkeypatch):
    """A process at its limit of threads may have one again with the next request."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    store = keep(make_store(), sweep=True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert visit(store, client=RecordingClient()).stored
        assert store._sweeper is None
    visit(store, client=RecordingClient())
    assert store._sweeper.runs
