"""`memory`: bounded, and said when it is not enough."""

from __future__ import annotations

import pytest
from stores_builders import (
    in_child,
    over,
    visit,
)

from ldinstrument.diagnostics import diagnostics
from ldinstrument.ledger import ledger
from ldinstrument.stores import (
    MemoryStore,
    Rules,
    sweep,
)
from ldinstrument.testing import RecordingClient


def test_memory_is_bounded_and_evictions_are_counted(keep):
    """The session silent for longest ends early, as abandoned, and is reported."""
    recording = RecordingClient()
    store = keep(MemoryStore(Rules(), max_sessions=3), client=recording)

    for number in range(5):
        visit(store, f"v-{number}")
        visit(store, "v-0")
    sweep(store)

    assert store.holdings().open == 3
    assert ledger.stats().evicted_sessions == 2
    assert [event.data["endReason"] for event in recording.of("session.interactions")] == [
        "abandoned"
    ] * 2
    assert recording.of("session.duration") == []


def test_what_waits_in_memory_to_be_reported_is_bounded_too(keep):
    """Without a client nothing is reported: the oldest ended sessions are dropped, said once and
    counted.
    """
    store = keep(MemoryStore(Rules(), max_sessions=3))

    over(store.store, 5)

    assert store.holdings().ended == 3
    assert ledger.stats().events.dropped["store_full"] == 2 * 3
    assert diagnostics.counts()["store_full", "MemoryStore"] == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_memory_in_several_workers_is_said(keep):
    """A forked worker with a store in memory hears that its visitors will be two people."""
    store = keep(MemoryStore(Rules()), client=RecordingClient())

    def child():
        visit(store)
        visit(store)
        return sum(diagnostics.counts().get(("several_workers", "memory"), 0) for _ in range(1))

    assert in_child(child) == 1
    assert ("several_workers", "memory") not in diagnostics.counts()
