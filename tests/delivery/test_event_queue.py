"""The queue: from events to payloads, what an event costs, and what it may not cost."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from clients import client_of
from deadlines import held, until_settled
from ldclient import Context
from ldclient.integrations.test_data import TestData

import ldinstrument as ld
from ldinstrument.delivery import (
    EventProcessor,
    FlushReport,
    event_queue,
    flush,
)
from ldinstrument.delivery.event_json import MAX_BYTES, EventJson, Payload, UnwrittenRuns
from ldinstrument.delivery.event_queue import FEW_BYTES, HELP_BYTES, PAUSE_EVERY, EventQueue
from ldinstrument.delivery.worker import DeliveryWorker
from ldinstrument.ledger import ledger

BARE = Context.create("u-1")


RICH = (
    Context.builder("u-1")
    .name("Ana")
    .set("plan", "pro")
    .set("email", "ana@example.test")
    .private("email")
    .build()
)


def test_a_bad_value_costs_its_event_only(server, client):
    """NaN and what is not JSON are dropped by name; the batch arrives, and it is valid JSON."""
    for data, value in (
        ({"n": 1}, 1.0),
        ({"n": object()}, 1.0),
        (None, float("nan")),
        ({"n": {1, 2}}, None),
    ):
        client.track("a", BARE, data, value)
    loop: dict[str, Any] = {}
    loop["self"] = loop
    client.track("loop", BARE, loop)
    report = flush(30.0, client)
    assert (report.delivered, report.dropped) == (1, 4)
    assert ledger.stats().events.dropped == {"not_json": 4}
    assert server.keys() == {"a": 1}


def test_large_events_do_not_cost_the_deadline(server, make, monkeypatch):
    """40 events of 700 kB: they are not batched in one piece, nor by a flush on its own thread,
    which may only help while it tracks.
    """
    client = make(flush_interval=3600, read_timeout=60)
    client.track("warm", BARE)
    assert flush(20.0, client).delivered == 1
    seal, tracking, batched_here = Payload.seal, True, []

    def seen(self: Payload, zipped: bool) -> None:
        seal(self, zipped)
        if threading.current_thread() is threading.main_thread() and not tracking:
            batched_here.append(len(self.body))

    monkeypatch.setattr(Payload, "seal", seen)
    for number in range(40):
        client.track(f"e.{number}", BARE, {"text": "x" * 700_000})
    tracking = False
    until_settled(client, 60)
    assert max(batched_here, default=0) < FEW_BYTES
    assert len(server.keys()) == 41
    assert max(len(post.body) for post in server.posts) <= MAX_BYTES + 1000


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_an_interrupt_in_the_middle_of_batching_loses_nothing(
    server, make, monkeypatch, tmp_path, spool
):
    """Ctrl-C, or a time-out made of a signal, while somebody batches: the next one finds
    everything where it was.
    """
    client = make(flush_interval=3600, **({"spool": tmp_path} if spool else {}))
    worker = client._event_processor.worker
    client.track("warm", BARE)
    assert flush(20.0, client).delivered == 1
    add, interrupted = Payload.add, []

    def once(self: Payload, text: bytes, custom: int) -> bool:
        if not interrupted and threading.current_thread() is threading.main_thread():
            interrupted.append(1)
            raise KeyboardInterrupt
        return add(self, text, custom)

    monkeypatch.setattr(Payload, "add", once)
    with worker.events.batching:  # so that it is this thread which batches
        client.track("a", BARE, {"n": 1})
        with pytest.raises(KeyboardInterrupt):
            worker.events.pass_on()
    assert flush(20.0, client).delivered == 1
    assert server.keys() == {"warm": 1, "a": 1}
    assert ledger.stats().events.pending == 0


def test_what_the_host_changes_after_track_is_not_what_it_tracked(server, client):
    """Events are written when they are tracked; the SDK's own processor sends whatever the data has
    become.
    """
    data = {"n": 1}
    client.track("a", BARE, data)
    data["n"] = 2
    flush(20.0, client)
    assert [event["data"] for event in server.taken() if event["key"] == "a"] == [{"n": 1}]


@ld.track_task("t")
def _task() -> None:
    pass


def _sessions(client: Any, runs: int, *, of: int = 64) -> None:
    """Record *runs* runs of a task without data, in sessions *of* so many."""
    for number in range(runs // of):
        with ld.session(f"u-{number}", client=client, metrics=()):
            for _ in range(of):
                _task()


def test_runs_that_fail_to_be_written_cost_themselves_only(server, client, monkeypatch, caplog):
    """They are dropped by name, also where their context is new; they do not come again and again,
    and what is beside them arrives.
    """
    text_of = EventJson.text_of

    def fails(self: EventJson, unwritten: UnwrittenRuns) -> bytes:
        if b"u-1" in unwritten.end.encode():
            raise MemoryError
        return text_of(self, unwritten)

    monkeypatch.setattr(EventJson, "text_of", fails)
    _sessions(client, 12, of=4)
    for context in (RICH, Context.create_multi(RICH, Context.create("o-1", "org"))):
        with ld.session(context, client=client, metrics=()):
            _task()
    client.track("a", BARE)
    report = flush(30.0, client)
    assert (report.delivered, report.dropped) == (17, 12)
    assert ledger.stats().events.dropped == {"not_json": 12}
    assert "runs of a task" in caplog.text
    custom = [event for event in server.taken() if event["kind"] == "custom"]
    assert {(event["key"], event["context"]["key"]) for event in custom} == {
        ("t.success_rate", "u-0"),
        ("t.duration", "u-0"),
        ("t.success_rate", "u-2"),
        ("t.duration", "u-2"),
        ("a", "u-1"),
    }


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[bool]]]:
    """`interrupt(name)`: let a time limit strike once, on this thread, as that method of
    `EventJson` begins; returns a list that is not empty once it has.
    """

    def make(name: str) -> list[bool]:
        method = getattr(EventJson, name)

        def interrupted(self: EventJson, *given: Any, **options: Any) -> Any:
            if not struck and threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGUSR1)
            return method(self, *given, **options)

        monkeypatch.setattr(EventJson, name, interrupted)
        return struck

    def handler(*_: object) -> None:
        struck.append(True)
        raise TimeoutError

    struck: list[bool] = []
    before = signal.signal(signal.SIGUSR1, handler)
    yield make
    signal.signal(signal.SIGUSR1, before)


def test_an_exception_out_of_a_signal_handler_costs_no_runs(client, interrupt):
    """A time limit that strikes while whoever flushes writes them: the next flush does."""
    struck = interrupt("text_of")
    with client._event_processor.worker.events.batching:  # so that it is this thread
        _sessions(client, 64)
        with pytest.raises(TimeoutError):
            client._event_processor.worker.events.pass_on()
    report = flush(30.0, client)
    assert struck
    assert (report.delivered, report.dropped) == (128, 0)


def test_an_exception_out_of_a_signal_handler_costs_no_batch(client, interrupt):
    """One that strikes while a session's events are written: they are queued all the same."""
    struck = interrupt("write")
    with pytest.raises(TimeoutError):
        _sessions(client, 64)
    report = flush(30.0, client)
    assert struck
    assert (report.delivered, report.dropped) == (128, 0)


def test_who_cannot_pause_loses_nothing(make, monkeypatch):
    """In gevent's hub, a sleep raises."""

    class Time:
        monotonic = time.monotonic

        @staticmethod
        def sleep(seconds: float) -> None:
            raise RuntimeError("a blocking function in the event loop")

    client = make(flush_interval=3600)
    monkeypatch.setattr(event_queue, "time", Time)
    with held(client._event_processor.worker.events.batching):
        _sessions(client, 10_000)
    monkeypatch.undo()
    until_settled(client)
    stats = ledger.stats()
    runs = 10_000 // 64 * 64
    assert (stats.events.emitted, stats.events.delivered) == (2 * runs, 2 * runs)
    assert (stats.events.dropped, stats.values.open) == ({}, 0)


def test_what_is_queued_when_a_signal_handler_raises_is_not_dropped(client, monkeypatch):
    """It is counted once: as delivered."""
    announce = EventQueue._announce

    def interrupted(self: EventQueue) -> None:
        announce(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(EventQueue, "_announce", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _sessions(client, 10_000)
    monkeypatch.undo()
    until_settled(client)
    events = ledger.stats().events
    assert (events.emitted, events.pending, events.dropped) == (events.delivered, 0, {})


def test_what_nobody_has_counted_fills_no_queue(client):
    """A signal handler's exception may come between a batch and its subtraction."""
    client._event_processor.worker.events._bytes += 2**30
    flush(30.0, client)
    _sessions(client, 64)
    flush(30.0, client)
    events = ledger.stats().events
    assert (events.delivered, events.dropped) == (128, {})


def test_whoever_helps_batches_a_little_at_a_time(server, make, monkeypatch):
    """The worker's thread gets no turn: the one that tracks does its work, in small pieces."""
    turn, work, batch = threading.Event(), DeliveryWorker._work, EventQueue.batch
    here: list[int] = []

    def starved(self: DeliveryWorker, all: bool) -> None:
        turn.wait(60)
        work(self, all)

    def seen(self: EventQueue, *arguments: float, **options: bool) -> bool:
        before = self._bytes
        done = batch(self, *arguments, **options)
        if threading.current_thread() is threading.main_thread():
            here.append(before - self._bytes)
        return done

    monkeypatch.setattr(DeliveryWorker, "_work", starved)
    monkeypatch.setattr(EventQueue, "batch", seen)
    client = make(flush_interval=3600, max_bytes=4_000_000)
    _sessions(client, 64_000)
    turn.set()
    monkeypatch.undo()
    until_settled(client)
    assert sum(here) > 10_000_000
    assert max(here) < HELP_BYTES + 100_000
    events = ledger.stats().events
    assert (events.emitted, events.delivered, events.dropped) == (128_000, 128_000, {})


def test_whoever_helps_batches_more_before_the_queue_is_full(make, monkeypatch):
    """Others track, too, and a little at a time may be less than what they add: as much leaves as
    has room among the payloads.
    """
    turn, work = threading.Event(), DeliveryWorker._work

    def starved(self: DeliveryWorker, all: bool) -> None:
        turn.wait(60)
        work(self, all)

    monkeypatch.setattr(DeliveryWorker, "_work", starved)
    client = make(flush_interval=3600, max_bytes=4_000_000)
    queue = client._event_processor.worker.events
    with held(queue.batching):
        _sessions(client, 12_000)
    assert queue._bytes > 2_500_000
    _sessions(client, 64)
    left = queue._bytes
    turn.set()
    until_settled(client)
    assert left < 1_200_000
    assert ledger.stats().events.dropped == {}


def test_a_thread_that_never_pauses_gives_the_worker_its_turn(make, monkeypatch):
    """Once for each megabyte that waits, and not for less; interrupted in it, each event is counted
    once.
    """
    pauses: list[int] = []

    class Time:
        monotonic = time.monotonic

        @staticmethod
        def sleep(seconds: float) -> None:
            pauses.append(queue._bytes)
            if len(pauses) == 4:
                raise KeyboardInterrupt

    client = make(flush_interval=3600)
    queue = client._event_processor.worker.events
    monkeypatch.setattr(event_queue, "time", Time)
    with held(queue.batching):
        _sessions(client, 3000)
        assert pauses == []
        _sessions(client, 10_000)
        assert [round(waiting / PAUSE_EVERY) for waiting in pauses] == [1, 2, 3]
        with pytest.raises(KeyboardInterrupt):
            _sessions(client, 10_000)
    monkeypatch.undo()
    until_settled(client)
    events = ledger.stats().events
    assert events.dropped == {"internal": 128}
    assert events.emitted == events.delivered + 128


def test_a_date_nobody_can_read_costs_nothing(server, client):
    """The server's `Date` only bounds debug events; one that overflows does not cost the payload it
    came with.
    """
    server.answer(headers={"Date": "Mon, 01 Jan 99999999999999 00:00:00 GMT"})
    client.track("a", BARE)
    assert flush(20.0, client) == FlushReport(delivered=1)


def test_the_servers_clock_ends_debugging(server):
    """A flag is debugged until a date, which this machine's clock may not have reached: the
    answers' `Date` has.
    """
    data = TestData.data_source()
    flag = data.flag("exp").variation_for_all(True)
    built = flag._build(1) | {"debugEventsUntilDate": int((time.time() + 3600) * 1000)}
    flag._build = lambda version: built | {"version": version}  # the builder cannot express it
    data.update(flag)
    server.answer(headers={"Date": formatdate(time.time() + 7200, usegmt=True)})
    client = client_of(
        server,
        flush_interval=3600,
        update_processor_class=data,
        event_processor_class=EventProcessor,
    )
    seen = []
    for _ in range(2):
        client.variation("exp", RICH, False)
        client.track("a", RICH)
        assert flush(20.0, client).delivered == 1
        seen.append([event["kind"] for event in json.loads(server.posts[-1].body)])
    client.close()
    assert ["debug" in kinds for kinds in seen] == [True, False]
