"""Servers, clients and callbacks that misbehave in ways of their own: each costs what it must, and
is said once.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import faults
import pytest
from ldclient import Config, Context, LDClient

from ldinstrument.delivery import EventProcessor, FlushReport, aflush, attach, flush
from ldinstrument.delivery.payloads import MAX_BYTES, Payload, Sealer
from ldinstrument.errors import DefinitionError
from ldinstrument.ledger import ledger

CONTEXT = Context.create("u-1")


def _until_settled(client: LDClient, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and (
        flush(1.0, client).timed_out or ledger.stats().events.pending
    ):
        time.sleep(0.01)


def test_a_date_nobody_can_read_costs_nothing(server, client):
    """The server's `Date` only bounds debug events; one that overflows does not cost the payload it
    came with.
    """
    server.answer(headers={"Date": "Mon, 01 Jan 99999999999999 00:00:00 GMT"})
    client.track("a", CONTEXT)
    assert flush(20.0, client) == FlushReport(delivered=1)


def test_one_bad_request_in_an_outage_is_not_three(server, make):
    """A proxy's single 400 among its 503s is no verdict; three of LaunchDarkly's are."""
    server.answer(status=503, times=4)
    server.answer(status=400, times=1)
    server.answer(status=202)
    client = make(flush_interval=3600)
    client.track("a", CONTEXT)
    _until_settled(client)
    assert (server.keys(), ledger.stats().events.dropped) == ({"a": 1}, {})


def test_an_outage_is_said_once(server, make, caplog):
    """At the second failure in a row, with its status and no address; the events are kept."""
    server.answer(status=404)
    client = make(flush_interval=0.05)
    client.track("a", CONTEXT)
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        deadline = time.monotonic() + 30
        while len(server.posts) < 5 and time.monotonic() < deadline:
            flush(0.2, client)
    said = [record.getMessage() for record in caplog.records if "404" in record.getMessage()]
    assert len(said) == 1
    assert "LAUNCHDARKLY_EVENTS_URI" in said[0]
    assert "127.0.0.1" not in said[0]
    assert "sdk-" not in said[0]


def test_a_single_lost_connection_is_not_said(server, client, caplog):
    """Kept-alive connections end all the time."""
    server.answer(reset=True, times=1)
    client.track("a", CONTEXT)
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        assert flush(20.0, client).delivered == 1
    assert not caplog.records


def test_what_is_dropped_by_a_bound_is_said_once(server, make, caplog):
    """`max_bytes`: the first loss has a line, which says where the count is."""
    server.answer(status=503)
    client = make(flush_interval=0.02, max_bytes=400)
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        deadline = time.monotonic() + 30
        while (
            ledger.stats().events.dropped.get("backlog_full", 0) < 3 and time.monotonic() < deadline
        ):
            client.track("a", CONTEXT)
            flush(0.05, client)
    said = [record.getMessage() for record in caplog.records if "max_bytes" in record.getMessage()]
    assert len(said) == 1
    assert "stats().events.dropped" in said[0]


def test_a_body_that_is_no_json_does_not_stay_in_the_air(server, make):
    """As a damaged spool may hold: on 413 it cannot be split, so it is dropped by name; the next
    one is not.
    """
    server.answer(status=413, times=1)
    client = make(flush_interval=3600)
    engine = client._event_processor._engine
    client.track("a", CONTEXT)
    flush(0.0, client)
    ledger.emitted(2)
    engine._receive([Payload(b"no json", 2, 2)])
    _until_settled(client)
    stats = ledger.stats().events
    assert (stats.pending, sum(stats.dropped.values()) + stats.delivered) == (0, 3)


@pytest.mark.parametrize("odd", [SystemExit(1), RuntimeError("odd")], ids=repr)
def test_a_callback_that_raises_loses_no_count(server, make, odd):
    """`on_receipt` is the host's; whatever it raises, the payload has its fate and the next one is
    sent.
    """

    def on_receipt(_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise odd

    client = make(flush_interval=3600, on_receipt=on_receipt)
    for number in range(3):
        client.track("a", CONTEXT)
        assert flush(20.0, client).delivered == 1, number
    assert ledger.stats().events.pending == 0


class Foreign:
    """An event processor of somebody else's."""

    hold = threading.Event()

    def __init__(self, config: object) -> None:
        """Nothing to keep."""

    def send_event(self, event: object) -> None:
        """Forget it."""

    def flush(self) -> None:
        self.hold.wait(60)

    def stop(self) -> None:
        """Nothing to end."""


def test_a_foreign_flush_that_blocks_costs_the_deadline_only(server):
    """It runs on a thread of its own, for which nobody waits longer than asked."""
    Foreign.hold.clear()
    client = LDClient(
        Config("sdk-key", base_uri=server.url, events_uri=server.url, stream_uri=server.url, use_ldd=True,
               event_processor_class=Foreign)
    )  # fmt: skip
    began = time.monotonic()
    report = flush(0.3, client)
    took = time.monotonic() - began
    Foreign.hold.set()
    assert took < 20
    assert (report.timed_out, report.confirmed) == (True, False)
    assert flush(20.0, client) == FlushReport(confirmed=False)
    client.close()


def test_a_closed_client_of_the_sdks_own_has_nothing_to_wait_for(server):
    """Closed is done; what became of its events it cannot tell."""
    client = LDClient(
        Config(
            "sdk-key",
            base_uri=server.url,
            events_uri=server.url,
            stream_uri=server.url,
            use_ldd=True,
        )
    )
    attach(client)
    client.close()
    assert flush(20.0) == FlushReport(confirmed=False)


def test_a_closed_async_client_of_the_sdks_own_has_nothing_to_wait_for(server):
    """Its own `flush_and_wait` would never end."""
    pytest.importorskip("ldclient.async_client", reason="SDK 9.17 and newer")
    from ldclient.async_client import AsyncLDClient
    from ldclient.async_config import AsyncConfig

    async def main() -> tuple[FlushReport, float]:
        client = AsyncLDClient(
            AsyncConfig("sdk-key", base_uri=server.url, events_uri=server.url, stream_uri=server.url, use_ldd=True,
                        diagnostic_opt_out=True)
        )  # fmt: skip
        await client.start(20)
        attach(client)
        await client.close()
        began = time.monotonic()
        return await aflush(60.0), time.monotonic() - began

    report, took = asyncio.run(main())
    assert report == FlushReport(confirmed=False)
    assert took < 30


PROGRAM = """
import multiprocessing, sys
sys.path[:0] = [{here!r}]
import faults
from ldclient import LDClient


def work(client=None):
    client = client or LDClient(faults.config({url!r}, flush_interval=3600))
    client.track("child", faults.CONTEXT)


if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    given = LDClient(faults.config({url!r}, flush_interval=3600)) if {method!r} == "fork" else None
    child = context.Process(target=work, args=(given,))
    child.start()
    child.join(60)
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_multiprocessing_child_that_returns_has_delivered(
    server, tmp_path: Path, method: str
) -> None:
    """It leaves by `os._exit`, without `atexit`; what it recorded is delivered all the same."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(here=str(faults.HERE), url=server.url, method=method))
    done = subprocess.run(
        [sys.executable, str(program)],
        env=faults._environment(),
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert server.keys() == {"child": 1}


def test_options_are_keywords_of_the_processor(server, make):
    """A misspelt one is an error where it is written."""
    with pytest.raises(TypeError):
        partial(EventProcessor, spol="x")(faults.config(server.url))


def test_large_events_do_not_cost_the_deadline(server, make, monkeypatch):
    """40 events of 700 kB: they are not sealed on the thread that flushes, and not in one piece."""
    client = make(flush_interval=3600, read_timeout=60)
    client.track("warm", CONTEXT)
    assert flush(20.0, client).delivered == 1
    seal, sealers = Sealer.seal, []

    def seen(self, recorded):
        sealers.append(threading.current_thread().name)
        return seal(self, recorded)

    monkeypatch.setattr(Sealer, "seal", seen)
    for number in range(40):
        client.track(f"e.{number}", CONTEXT, {"text": "x" * 700_000})
    _until_settled(client, 60)
    assert threading.current_thread().name not in sealers
    assert len(server.keys()) == 41
    assert max(len(post.body) for post in server.posts) <= MAX_BYTES + 1000


def test_a_close_in_the_middle_of_sealing_strands_nothing(server, make, monkeypatch):
    """The next client for the same place delivers what the first one was still sealing."""
    seal, begun, go = Sealer.seal, threading.Event(), threading.Event()

    def slow(self, recorded):
        begun.set()
        assert go.wait(60)
        return seal(self, recorded)

    monkeypatch.setattr(Sealer, "seal", slow)
    first, second = make(close_timeout=0.05, flush_interval=3600), make(flush_interval=3600)
    first.track("a", CONTEXT)
    first.flush()
    assert begun.wait(60)
    first.track("b", CONTEXT)
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
                client.track("a", CONTEXT)
            time.sleep(0.001)

    threads = [threading.Thread(target=track) for _ in range(3)]
    for thread in threads:
        thread.start()
    for client in clients[:-1]:
        client.close()
    done.set()
    for thread in threads:
        thread.join()
    _until_settled(clients[-1], 60)
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
            client.track("a", CONTEXT)
    assert ledger.stats().events.dropped == {"closed": 3}
    assert caplog.text.count("after client.close()") == 1


def test_no_depth_of_recursion_leaves_an_event_pending(server, client):
    """Where there is no room for the call, the event is dropped by name."""

    def down() -> None:
        try:
            client.track("deep", CONTEXT, {"n": 1})
        finally:
            down()

    for _ in range(20):
        with pytest.raises(RecursionError):
            down()
    _until_settled(client)
    events = ledger.stats().events
    assert events.pending == 0
    assert events.emitted == events.delivered + sum(events.dropped.values())
    assert events.delivered == len(server.taken())


def test_an_exit_out_of_a_callback_does_not_reach_the_flush(server, make):
    """`on_receipt` may run on the thread that flushes; `flush` never raises."""

    def on_receipt(_: object) -> None:
        raise SystemExit

    client = make(flush_interval=3600, on_receipt=on_receipt)
    for _ in range(3):
        client.track("a", CONTEXT)
        assert flush(20.0, client).delivered == 1


@pytest.mark.parametrize("address", ["events.example.test", "ftp://events.example.test"])
def test_an_address_that_is_none_goes_nowhere_near_this_machine(address, monkeypatch):
    """It is the SDK's own library that refuses it; nothing, and no key, is sent to localhost."""
    asked: list[object] = []

    def connect(place, *args, **kwargs):
        asked.append(place[0])
        raise OSError("nobody there")

    monkeypatch.setattr(socket, "create_connection", connect)
    client = LDClient(faults.config(address, flush_interval=3600, close_timeout=0.1))
    client.track("a", CONTEXT)
    flush(0.5, client)
    client.close()
    assert not {"", "localhost", "127.0.0.1"} & set(asked)


_LEAVING = """
import sys
sys.path[:0] = [{here!r}]
import faults
import ldclient
import ldinstrument as ld
def connect():
    ldclient.set_config(faults.config({url!r}, flush_interval=3600, close_timeout=60.0))
    ldclient.get()
def visit():
    visit = ld.session("u-1").__enter__()
    visit.conversion(49.0)
    visit.interaction()
for step in {steps}:
    step()
"""


@pytest.mark.parametrize("steps", ["(connect, visit)", "(visit, connect)"])
def test_the_exit_says_nothing_and_ends_what_is_open(server, tmp_path, steps):
    """An outage that would be said at any other time; then what was recorded arrives, of a session
    nobody ended.
    """
    server.answer(status=503, times=4)
    program = tmp_path / "program.py"
    program.write_text(_LEAVING.format(here=str(faults.HERE), url=server.url, steps=steps))
    done = subprocess.run(
        [sys.executable, program],
        env=faults._environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert server.keys() == {"business.conversion": 1, "session.interactions": 1}
    (ended,) = (event for event in server.taken() if event["key"] == "session.interactions")
    assert ended["data"]["endReason"] == "abandoned"


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": None}, {"max_bytes": "32MB"}, {"max_bytes": 0}, {"max_age": None}, {"max_age": 0},
        {"close_timeout": None}, {"close_timeout": -1}, {"wait_when_full": "1"}, {"first_pause": 0},
        {"first_pause": "1"}, {"first_pause": float("nan")}, {"longest_pause": None},
        {"longest_pause": 0.1}, {"on_receipt": 5},
        {"transport": 5}, {"spool": 5}, {"spool": ""}, {"max_bytes": True},
    ],
    ids=str,
)  # fmt: skip
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


def test_the_exit_stays_silent_to_the_last_failure(server, tmp_path):
    """Posting threads go on until the interpreter is gone; what they meet then is nobody's news."""
    server.answer(status=503)
    program = (
        "import atexit, sys, time\n"
        f"sys.path[:0] = [{str(faults.HERE)!r}]\n"
        "atexit.register(time.sleep, 1.5)\n"  # registered first, so it runs last: a program that takes its time
        "import faults\nfrom ldclient import LDClient\n"
        f"client = LDClient(faults.config({server.url!r}, flush_interval=3600, first_pause=0.4, "
        f"close_timeout=0.1))\n"
        "client.track('a', faults.CONTEXT)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=faults._environment(),
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_an_interrupt_in_the_middle_of_sealing_loses_nothing(
    server, make, monkeypatch, tmp_path, spool
):
    """Ctrl-C, or a time-out made of a signal, while somebody seals: the next sealing finds
    everything where it was.
    """
    client = make(flush_interval=3600, **({"spool": tmp_path} if spool else {}))
    engine = client._event_processor._engine
    client.track("warm", CONTEXT)
    assert flush(20.0, client).delivered == 1
    texts, interrupted = Sealer.texts, []

    def once(self, recorded):
        if not interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt
        return texts(self, recorded)

    monkeypatch.setattr(Sealer, "texts", once)
    engine._sealer_lock.acquire()  # so that it is this thread which seals
    client.track("a", CONTEXT, {"n": 1})
    with pytest.raises(KeyboardInterrupt):
        engine._seal_now()
    engine._sealer_lock.release()
    assert flush(20.0, client).delivered == 1
    assert server.keys() == {"warm": 1, "a": 1}
    assert ledger.stats().events.pending == 0
