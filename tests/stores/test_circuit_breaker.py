"""`circuit_breaker`: a store that fails costs no request, and numbers wait in memory for it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from stores_builders import (
    Failing,
    delta,
    end,
    tallies_of,
    until,
    visit,
)

from ldinstrument.ledger import ledger
from ldinstrument.stores import (
    Delta,
    end_session,
)
from ldinstrument.stores.circuit_breaker import MAX_WAIT, PendingMerge
from ldinstrument.stores.records import readable
from ldinstrument.testing import RecordingClient


def test_a_store_that_is_away_costs_no_request_and_no_number(keep, caplog):
    """Merges wait in memory; once it answers again they are brought in, with the dates that they
    had.
    """
    raw = Failing()
    store = keep(raw, client=RecordingClient())

    raw.away = True
    refs = [visit(store) for _ in range(50)]
    waiting, calls = store.waiting, raw.calls
    raw.away = False
    until(lambda: store.catch_up() or store.waiting == 0)

    assert not any(ref.stored for ref in refs)
    assert waiting == 50
    assert calls < 10, "the circuit breaker spares a store that is away"
    text = end(raw, "session:v-1", "ended")
    assert tallies_of(readable(text))[0] == 50
    assert [record.message.count("secret") for record in caplog.records] == [0] * len(
        caplog.records
    )
    assert len([record for record in caplog.records if "does not answer" in record.message]) == 1
    stats = ledger.stats()
    assert stats.values.recorded == stats.values.emitted == 50


def test_one_caller_at_a_time_asks_whether_the_store_is_back(keep):
    """The others do not wait for its time-out, too."""
    raw = Failing()
    store = keep(raw, client=RecordingClient())
    raw.away = True
    visit(store)
    until(lambda: store.next_attempt() <= 0.05)
    merge, nested = raw.merge, []

    def probed(key, delta):
        nested.append(visit(store, "v-2"))  # another request, while this one asks
        return merge(key, delta)

    raw.merge = probed
    until(lambda: visit(store) and nested)

    assert len(nested) == 1
    assert raw.calls == 2


def test_callers_that_fail_together_have_seen_one_failure(keep):
    """A moment's lock that eight requests meet is no reason to leave the store alone for half a
    minute.
    """
    raw = Failing()
    store = keep(raw, client=RecordingClient())
    together = threading.Barrier(8)

    def fails(key, delta):
        together.wait(10.0)
        raise ConnectionError

    raw.merge = fails
    requests = [threading.Thread(target=visit, args=(store, f"v-{at}")) for at in range(8)]
    for request in requests:
        request.start()
    for request in requests:
        request.join()

    assert store.waiting == 8
    assert store.next_attempt() <= 0.5


def test_what_a_store_cannot_take_costs_itself(make_store, keep):
    """A delta that no store can carry is lost and counted; it neither opens the breaker nor blocks
    the others.
    """
    raw = make_store()
    store = keep(raw, client=RecordingClient())

    with pytest.raises(TypeError):
        delta(groups={"s1a\n": ("no number", 1, 0, 0, None, None)})
    store.merge("v-1", replace(delta("s-1", values=3), exposures={"mark": "no date"}))
    store.merge("v-1", replace(delta("s-1", values=3), exposures={"mark": "no date"}))
    lone = {"user": "\ud800"}
    odd = store.merge("v-\ud800", Delta("s-\ud800", context=lone))

    assert store.waiting == 0
    assert odd is not None
    assert visit(store).stored


def test_what_waits_is_bounded_and_counted(keep):
    """Beyond the bound the oldest waiting numbers are lost, and the ledger says how many."""
    raw = Failing()
    store = keep(raw, client=RecordingClient(), max_waiting=10)

    raw.away = True
    for _ in range(25):
        visit(store)

    assert store.waiting == 10
    assert ledger.stats().values.discarded["store_down"] == 15
    assert ledger.stats().values.open == 10


def test_what_has_waited_for_too_long_is_given_up_and_counted(keep):
    """A shared server remembers the names of merges for half an hour: later, one could count
    twice.
    """
    raw = Failing()
    store = keep(raw, client=RecordingClient())
    waiting = delta("s-1", context={"user": "ana"}, values=3)
    for waited in (MAX_WAIT + 1.0, 1.0):
        store._breaker.keep(PendingMerge("session:v-1", time.monotonic() - waited, waiting))

    store.catch_up()

    assert (store.waiting, raw.calls) == (0, 1)
    assert ledger.stats().values.discarded["store_down"] == 3


def test_without_a_thread_the_next_merge_brings_in_what_waited(keep):
    """A store opened with `sweep=False` (Lambda) catches up a few at a time, with each merge that
    succeeds.
    """
    raw = Failing()
    store = keep(raw, client=RecordingClient())

    raw.away = True
    refs = [visit(store) for _ in range(15)]
    raw.away = False
    until(lambda: refs.append(visit(store)) or (refs[-1].stored and store.waiting == 0))

    assert tallies_of(readable(end(raw, "session:v-1", "ended")))[0] == len(refs)


def test_a_catch_up_waits_as_long_as_the_pause_after_the_failure(keep):
    """A thread that tries again sooner would only be turned away; without work it never wakes."""
    raw = Failing()
    store = keep(raw, client=RecordingClient())
    breaker = store._breaker
    assert breaker.next_attempt() == float("inf")
    raw.away = True
    visit(store)
    breaker.backoff.failed(retry_after=30.0)
    assert 25.0 < breaker.next_attempt() <= 30.0


def test_an_end_that_could_not_be_said_is_said_later(keep):
    """A logout while the store is away happens when it is back, after the merges before it."""
    raw = Failing()
    store = keep(raw, client=RecordingClient())

    raw.away = True
    visit(store)
    assert end_session(store, "v-1") is None
    raw.away = False
    until(lambda: store.catch_up() or store.waiting == 0)

    assert (raw.holdings().open, raw.holdings().ended) == (0, 1)
