"""The worker: a queue that takes events without waiting, and its end."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from deadlines import NEVER, held, until_settled
from ldclient import Context
from ldclient.impl.events.types import EventInputEvaluation

import ldinstrument as ld
from ldinstrument.delivery import (
    EventProcessor,
    event_queue,
    flush,
)
from ldinstrument.delivery.event_json import Payload
from ldinstrument.delivery.event_queue import PATIENCE, EventQueue
from ldinstrument.delivery.worker import DeliveryWorker
from ldinstrument.ledger import ledger

BARE = Context.create("u-1")


def _ours() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith("ldinstrument")
    ]


def test_a_close_in_the_middle_of_batching_strands_nothing(server, make, monkeypatch):
    """The next client for the same place delivers what the first one was still batching."""
    seal, begun, go = Payload.seal, threading.Event(), threading.Event()

    def slow(self: Payload, zipped: bool) -> None:
        begun.set()
        assert go.wait(60)
        seal(self, zipped)

    monkeypatch.setattr(Payload, "seal", slow)
    first, second = make(close_timeout=0.05, flush_interval=3600), make(flush_interval=3600)
    first.track("a", BARE)
    first.flush()
    assert begun.wait(60)
    first.track("b", BARE)
    first.close()
    go.set()
    deadline = time.monotonic() + 60
    while ledger.stats().events.delivered < 2 and time.monotonic() < deadline:
        flush(1.0, second)
    assert server.keys() == {"a": 1, "b": 1}


def test_tracking_while_clients_are_closed_strands_nothing(server, make):
    """Whatever comes before, during or after the close of its client is delivered or dropped by
    name.
    """
    clients = [make(close_timeout=5.0, flush_interval=3600) for _ in range(12)]
    done = threading.Event()

    def track() -> None:
        while not done.is_set():
            for client in clients:
                client.track("a", BARE)
            time.sleep(0.001)

    threads = [threading.Thread(target=track) for _ in range(3)]
    for thread in threads:
        thread.start()
    for client in clients[:-1]:
        client.close()
    done.set()
    for thread in threads:
        thread.join()
    until_settled(clients[-1], 60)
    events = ledger.stats().events
    assert events.pending == 0
    assert events.emitted == events.delivered + sum(events.dropped.values())
    assert set(events.dropped) <= {"closed"}
    assert len(server.taken()) == events.delivered


def test_what_is_tracked_after_the_close_is_said_once(client, caplog):
    """A Lambda handler that closes its client would lose every number in silence."""
    client.close()
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        for _ in range(3):
            client.track("a", BARE)
    assert ledger.stats().events.dropped == {"closed": 3}
    assert caplog.text.count("after client.close()") == 1


def test_no_depth_of_recursion_leaves_an_event_pending(server, client):
    """Where there is no room for the call, the event is dropped by name."""

    def down() -> None:
        try:
            client.track("deep", BARE, {"n": 1})
        finally:
            down()

    gc.collect()  # finalisers of what other tests left would fail at the limit, too
    for _ in range(20):
        with pytest.raises(RecursionError):
            down()
    until_settled(client)
    events = ledger.stats().events
    assert events.pending == 0
    assert events.emitted == events.delivered + sum(events.dropped.values())
    assert events.delivered == len(server.taken())


@pytest.fixture(name="stuck")
def _stuck(monkeypatch) -> Iterator[threading.Event]:
    """The worker's thread is kept from batching, as a starved one is, until the event is set."""
    pass_on, begun, go = EventQueue.pass_on, threading.Event(), threading.Event()

    def slow(self: EventQueue, *most: float) -> None:
        begun.set()
        assert go.wait(60)
        pass_on(self, *most)

    monkeypatch.setattr(EventQueue, "pass_on", slow)
    yield begun
    go.set()


def test_track_never_waits_on_an_event_loop(make, stuck):
    """The bounded wait is off on an event loop: what finds no room is dropped at once, counted."""
    client = make(pending=1, max_bytes=2000, wait_when_full=60.0, flush_interval=3600)
    client.track("a", BARE)
    client.flush()
    assert stuck.wait(30)

    async def main() -> float:
        began = time.monotonic()
        for _ in range(100):
            client.track("b", BARE)
        return time.monotonic() - began

    assert asyncio.run(main()) < 30
    dropped = ledger.stats().events.dropped["queue_full"]
    assert 0 < dropped < 100


@pytest.mark.parametrize("pending", [1, 10, 100, 1000])
def test_a_burst_into_a_small_queue_loses_nothing(server, make, pending):
    """While LaunchDarkly answers, whoever finds the queue filling up helps to batch."""
    client = make(pending=pending, flush_interval=3600)
    for number in range(2000):
        client.track(f"e.{number}", BARE)
    until_settled(client)
    assert ledger.stats().events.dropped == {}
    assert server.keys() == {f"e.{number}": 1 for number in range(2000)}


def test_a_burst_faster_than_the_answers_loses_nothing(server, make):
    """LaunchDarkly answers, but not at once: five times what may wait is tracked, and waits in the
    queue, where whoever tracks slows down, instead of among the payloads, where the oldest go.
    """
    server.answer(late=0.005)
    client = make(pending=10, max_bytes=200_000, flush_interval=3600, wait_when_full=60.0)
    for number in range(2500):
        client.track(f"e.{number}", BARE, {"text": "x" * 400})
    until_settled(client, 60)
    assert ledger.stats().events.dropped == {}
    assert server.keys() == {f"e.{number}": 1 for number in range(2500)}


@ld.track_task("service.checkout.payments.authorization.provider_of_a_long_name")
def _long() -> None:
    pass


def test_a_burst_of_threads_into_a_small_queue_loses_nothing(server, make):
    """Sixteen, each with sessions of its own, many times what may wait: they slow down."""
    client = make(max_bytes=1_000_000, flush_interval=3600)

    def work() -> None:
        for number in range(6):
            with ld.session(f"u-{number}", client=client, metrics=()):
                for _ in range(300):
                    _long()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until_settled(client, 60)
    assert ledger.stats().events.dropped == {}
    assert len(server.taken()) == 16 * 6 * 300 * 2


def test_no_more_leaves_the_queue_than_has_room_among_the_payloads(server, make):
    """Answers come late: what has just been batched is not pushed out by what comes after it."""
    server.answer(late=0.05)
    client = make(max_bytes=1_000_000, flush_interval=3600, wait_when_full=60.0)
    for number in range(60):
        with ld.session(f"u-{number}", client=client, metrics=()):
            for _ in range(320):
                _long()
    until_settled(client, 60)
    assert ledger.stats().events.dropped == {}
    assert len(server.taken()) == 60 * 320 * 2


def test_a_server_that_stops_answering_is_waited_for_once(server, make, monkeypatch):
    """Not for each event that finds the queue full; what has no room is dropped and counted."""
    now, pauses = [0.0], []

    def pause() -> None:
        now[0] += 0.01
        pauses.append(now[0])

    class Time:
        sleep = time.sleep

        @staticmethod
        def monotonic() -> float:
            return now[0]

    server.answer(stall=True, times=50)
    client = make(max_bytes=100_000, flush_interval=3600, read_timeout=60)
    queue = client._event_processor.worker.events
    with held(queue.batching):
        while queue.size < 100_000:
            client.track("filled", BARE, {"text": "x" * 400})
        monkeypatch.setattr(event_queue, "time", Time)
        monkeypatch.setattr(event_queue, "_pause", pause)
        client.track("first", BARE, {"text": "x" * 400})
        waited = len(pauses)
        assert PATIENCE / 0.01 <= waited <= PATIENCE / 0.01 + 2
        for number in range(100):
            client.track(f"e.{number}", BARE, {"text": "x" * 400})
        assert len(pauses) == waited + 100
        monkeypatch.undo()
    assert ledger.stats().events.dropped == {"queue_full": 101}


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_a_burst_beside_a_starved_worker_loses_nothing(server, make, monkeypatch, tmp_path, spool):
    """Its thread gets no turn, as beside a host that makes a system call per event: ten times what
    may wait is tracked, and whoever tracks does the thread's work.
    """
    turn = threading.Event()
    work = DeliveryWorker._work

    def starved(self: DeliveryWorker, batch: bool) -> None:
        if not spool:  # with one, the disk is the thread's alone; it gets its turn by and by
            turn.wait(60)
        work(self, batch)

    monkeypatch.setattr(DeliveryWorker, "_work", starved)
    # With a spool, all may wait for the disk: how fast that is, is no promise of ours.
    options = {"spool": tmp_path, "max_bytes": 2_000_000} if spool else {"max_bytes": 100_000}
    client = make(pending=10, flush_interval=3600, **options)
    for number in range(2000):
        client.track(f"e.{number}", BARE, {"text": "x" * 400})
    turn.set()
    until_settled(client)
    assert ledger.stats().events.dropped == {}
    assert server.keys() == {f"e.{number}": 1 for number in range(2000)}


def test_the_queue_is_bounded_by_bytes(server, make, stuck, caplog):
    """Few events, but large ones: what is above max_bytes is dropped, counted, and said truly."""
    client = make(max_bytes=100_000, flush_interval=3600)
    client.flush()
    assert stuck.wait(30)
    for number in range(50):
        client.track(f"e.{number}", BARE, {"text": "x" * 10_000})
    assert 35 <= ledger.stats().events.dropped["queue_full"] <= 45
    assert "max_bytes=100000" in caplog.text


def test_a_client_that_nobody_holds_still_delivers(server, make):
    """Dropped without `close()`: the processor sends what it has, waits for the answers, and ends
    its threads.
    """

    def elsewhere() -> None:
        processor = EventProcessor(make(flush_interval=3600)._config)
        workers.append(processor.worker)
        from ldclient.impl.events.types import EventInputCustom

        processor.send_event(EventInputCustom(1, BARE, "a"))

    workers: list[Any] = []
    server.answer(late=0.3, times=1)
    elsewhere()
    gc.collect()
    deadline = time.monotonic() + 100
    while not workers[0].closed and time.monotonic() < deadline:
        time.sleep(0.02)
    assert workers[0].closed
    workers[0].thread.join(60)  # it is the last at work, and has begun to end
    assert workers[0].thread not in threading.enumerate()
    assert server.keys() == {"a": 1}
    assert ledger.stats().events.delivered == 1


def test_a_full_thousand_leaves_early_whatever_came_before(server, client):
    """With a flush interval of an hour: 1,000 waiting events are sent at once, also after a flush
    and a failure.
    """
    import time

    for round_ in range(3):
        server.answer(status=503, times=1)
        client.track(f"single.{round_}", BARE)
        while flush(30.0, client).failed:
            pass
        for number in range(1000):
            client.track(f"many.{round_}.{number}", BARE)
        deadline = time.monotonic() + 100
        while ledger.stats().events.pending and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ledger.stats().events.pending == 0
    assert len(server.keys()) == 3003


def test_no_threads_are_left(server, make):
    """A closed client has ended its threads, a stuck one too once the network lets go."""
    before = set(_ours())
    client = make(flush_interval=3600, read_timeout=0.3)
    server.answer(stall=True, times=2)
    for number in range(4):
        client.track(f"e.{number}", BARE)
        flush(0.05, client)
    client.close()
    deadline = time.monotonic() + NEVER
    while set(_ours()) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert set(_ours()) <= before


def test_exposures_that_are_dropped_are_counted(server, make, stuck):
    """An evaluation in an experiment is as good as an event: none of them is lost in silence."""
    client = make(pending=10, max_bytes=100_000, flush_interval=3600)
    client.flush()
    assert stuck.wait(30)
    for number in range(1000):
        client._send_event(_exposure(f"u-{number}"))
    exposures = ledger.stats().exposures
    assert exposures.dropped["queue_full"] > 500
    assert ledger.stats().events.emitted == 0


def test_a_burst_of_exposures_loses_none(server, make):
    """3,000 evaluations in an experiment, into a small queue, while LaunchDarkly answers."""
    client = make(pending=10, flush_interval=3600)
    for number in range(3000):
        client._send_event(_exposure(f"u-{number}"))
    while not flush(1.0, client).ok:
        pass
    exposures = ledger.stats().exposures
    assert (exposures.emitted, exposures.delivered, exposures.dropped) == (3000, 3000, {})
    sent = [event for post in server.posts for event in json.loads(post.body)]
    assert sum(event["kind"] == "feature" for event in sent) == 3000


def _exposure(key: str) -> EventInputEvaluation:
    context = Context.builder(key).name("Ana").build()
    reason = {"kind": "FALLTHROUGH", "inExperiment": True}
    return EventInputEvaluation(
        1, context, "exp", None, 1, True, reason, False, None, track_events=True
    )
