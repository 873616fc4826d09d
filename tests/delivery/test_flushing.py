"""`flush` and `aflush`: the truth, before the deadline, in every state."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import faults
import pytest
from clients import async_sdk, uris
from deadlines import ATTEMPTS, LATE, NEVER, in_time
from event_server import DrippingServer
from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig

from ldinstrument.delivery import EventProcessor, FlushReport, Plugin, aflush, flush
from ldinstrument.ledger import ledger
from ldinstrument.sessions.emission import emit
from ldinstrument.sessions.rollups import Emission

CONTEXT = Context.create("u-1")


TIMEOUT = 0.3


def test_a_flush_waits_for_the_answer(server, client):
    """When it returns, LaunchDarkly has the events, and the report says so."""
    server.answer(late=0.2)
    client.track("a", CONTEXT)
    client.track("b", CONTEXT, {"n": 1}, 2.5)
    assert flush(30.0, client) == FlushReport(delivered=2)
    assert server.keys() == {"a": 1, "b": 1}


def test_nothing_to_flush_returns_at_once(client):
    """An empty flush is confirmed, and does not wait for anything."""
    assert in_time(lambda: flush(NEVER, client), 0) == FlushReport()


def test_a_flush_sends_summaries_and_index_events_uncounted(server, client):
    """Only `track` events count; the others travel along."""
    client.variation("no-such-flag", CONTEXT, False)
    client.identify(Context.builder("u-2").name("Bo").build())
    assert flush(30.0, client) == FlushReport()
    kinds = [event["kind"] for post in server.posts for event in json.loads(post.body)]
    assert sorted(kinds) == ["identify", "index", "summary"]


def test_black_hole(server, make):
    """A server that accepts and never answers costs the deadline and no more."""
    client = make(flush_interval=3600, read_timeout=NEVER)
    server.answer(stall=True)
    client.track("a", CONTEXT)
    report = in_time(lambda: flush(TIMEOUT, client), TIMEOUT)
    assert report == FlushReport(pending=1, others=1, timed_out=True)


def test_saturated_workers(server, make):
    """With every sending thread stuck, a further flush still keeps its deadline, and nothing is
    lost.
    """
    client = make(flush_interval=3600, read_timeout=1)
    stall = server.answer(stall=True, counts=False)
    for number in range(6):
        client.track(f"e.{number}", CONTEXT)
        flush(0.02, client)
    report = in_time(lambda: flush(TIMEOUT, client), TIMEOUT)
    assert (report.pending + report.failed, report.timed_out) == (6, True)
    stall.stall = False
    server.behave()
    deadline = time.monotonic() + NEVER
    while len(server.keys()) < 6 and time.monotonic() < deadline:
        flush(1.0, client)
    assert server.keys() == {f"e.{number}": 1 for number in range(6)}


def test_full_queue(server, make):
    """In a black hole, with a queue that is more than full, the flush still keeps its deadline."""
    client = make(pending=10, max_bytes=4000, flush_interval=3600, read_timeout=NEVER)
    server.answer(stall=True)
    for number in range(2000):
        client.track(f"e.{number}", CONTEXT)
    report = in_time(lambda: flush(TIMEOUT, client), TIMEOUT)
    assert report.timed_out
    assert report.pending + sum(ledger.stats().events.dropped.values()) == 2000


def test_a_dripping_proxy(server, make):
    """A proxy that answers a byte at a time costs the deadline, and its thread the read
    time-out.
    """
    proxy = DrippingServer()
    client = LDClient(
        Config(
            "sdk-key",
            base_uri=server.url,
            events_uri="http://events.example.test",
            stream_uri=server.url,
            use_ldd=True,
            flush_interval=3600,
            http=HTTPConfig(read_timeout=1.0, http_proxy=proxy.url),
            plugins=[Plugin()],
            event_processor_class=partial(EventProcessor, close_timeout=0.2, **faults.FAST),
        )
    )
    client.track("a", CONTEXT)
    report = in_time(lambda: flush(TIMEOUT, client), TIMEOUT)
    assert (report.pending + report.failed, report.timed_out) == (1, True)
    deadline = time.monotonic() + NEVER
    while proxy.connections < 2 and time.monotonic() < deadline:
        flush(TIMEOUT, client)
    assert proxy.connections >= 2  # the first POST was cut, and another one begun
    client.close()
    proxy.close()


def test_hanging_dns(make, monkeypatch):
    """`getaddrinfo` cannot be interrupted: the flush leaves it alone."""
    hold = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hold.wait(NEVER) or [])
    client = LDClient(faults.config("http://events.example.test", flush_interval=3600))
    client.track("a", CONTEXT)
    report = in_time(lambda: flush(TIMEOUT, client), TIMEOUT)
    assert report == FlushReport(pending=1, others=1, timed_out=True)
    in_time(client.close, 2.0)
    hold.set()


def test_closed_client(server, client):
    """After `close()`, a flush returns at once; what is tracked then is dropped by name."""
    client.track("a", CONTEXT)
    client.close()
    client.track("late", CONTEXT)
    assert flush(NEVER, client).dropped == 1
    in_time(lambda: flush(NEVER, client), 0)
    assert server.keys() == {"a": 1}
    assert ledger.stats().events.dropped == {"closed": 1}


def test_offline_client():
    """An offline client sends nothing; the flush says that it cannot confirm."""
    client = LDClient(
        Config("sdk-key", offline=True, plugins=[Plugin()], event_processor_class=EventProcessor)
    )
    client.track("a", CONTEXT)
    assert in_time(lambda: flush(NEVER, client), 0) == FlushReport(confirmed=False)
    client.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_forked_child(server, client):
    """A child delivers its own events with threads of its own; the parent's stay the parent's."""
    client.track("parent", CONTEXT)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            client.track("child", CONTEXT)
            report = flush(30.0, client)
            code = (
                0
                if report == FlushReport(delivered=1) and ledger.stats().events.emitted == 1
                else 2
            )
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert flush(30.0, client).delivered == 1
    assert server.keys() == {"parent": 1, "child": 1}


def test_a_flush_does_not_wait_for_what_cannot_happen_in_time(server, client):
    """A `Retry-After` beyond the deadline ends the wait early: the events are kept."""
    server.answer(status=503, headers={"Retry-After": "600"})
    client.track("a", CONTEXT)
    assert in_time(lambda: flush(NEVER, client), 0) == FlushReport(failed=1, others=1)


def test_a_flush_without_a_client_reaches_every_client(server, make):
    """`flush()` is for all clients of the process."""
    one, two = make(flush_interval=3600), make(flush_interval=3600)
    one.track("a", CONTEXT)
    two.track("b", CONTEXT)
    assert flush(30.0).delivered == 2


def test_held_events_are_pending_until_there_is_a_client(server, make):
    """What was recorded before there was a client leaves when one appears."""
    emit(Emission("early", None, None, 1234, 1), CONTEXT, None)
    assert (flush(0.5).pending, flush(0.5).confirmed) == (1, False)
    client = make(flush_interval=3600)
    assert flush(30.0, client).delivered == 1
    assert [(event["key"], event["creationDate"]) for event in server.taken()] == [("early", 1234)]


def test_disabled_flush_is_inert(monkeypatch, client):
    """`LDINSTRUMENT_DISABLED`: no wait, nothing confirmed."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    assert flush(30.0, client) == FlushReport(confirmed=False)
    assert asyncio.run(aflush(30.0, client)) == FlushReport(confirmed=False)


def test_flush_never_raises():
    """Whatever it is given."""
    assert flush(1.0, client=object()).confirmed is False
    assert isinstance(flush(-1.0), FlushReport)


def _async_config(server, **options):
    from functools import partial

    from ldclient.async_config import AsyncConfig

    return AsyncConfig(
        "sdk-key",
        **uris(server.url),
        use_ldd=True,
        flush_interval=3600,
        plugins=[Plugin()],
        http=HTTPConfig(1, options.pop("read_timeout", 5)),
        event_processor_class=partial(EventProcessor, **{**faults.FAST, **options}),
    )


@async_sdk
def test_async_client(server):
    """An `AsyncLDClient` delivers through the same worker, with its own user agent, and its loop
    goes on meanwhile.
    """
    from ldclient.async_client import AsyncLDClient

    async def main() -> tuple[FlushReport, bool, int]:
        client = AsyncLDClient(_async_config(server))
        await client.start(1)
        client.track("a", CONTEXT)
        server.answer(late=1.0, times=1)
        ticks = 0
        waiting = asyncio.ensure_future(aflush(30.0, client))
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0.01)
        client.track("b", CONTEXT)
        waited = await client.flush_and_wait(30)
        await client.close()
        return await waiting, waited, ticks

    report, waited, ticks = asyncio.run(main())
    assert report == FlushReport(delivered=1)
    assert waited is True
    assert ticks > 2
    assert server.keys() == {"a": 1, "b": 1}


@async_sdk
def test_async_flush_tells_the_truth(server):
    """Where the SDK's `flush_and_wait` says True after two 500s, ours says False."""
    from ldclient.async_client import AsyncLDClient

    async def main() -> tuple[bool, FlushReport]:
        client = AsyncLDClient(_async_config(server, close_timeout=0.1))
        await client.start(1)
        server.answer(status=500, headers={"Retry-After": "600"})
        client.track("a", CONTEXT)
        waited = await client.flush_and_wait(30)
        report = await aflush(30, client)
        await client.close()
        return waited, report

    waited, report = asyncio.run(main())
    assert waited is False
    assert (report.failed, report.delivered) == (1, 0)


@async_sdk
def test_async_deadline(server):
    """The deadline holds on an event loop, for a black hole, too."""
    from ldclient.async_client import AsyncLDClient

    async def main() -> None:
        client = AsyncLDClient(_async_config(server, read_timeout=NEVER, close_timeout=0.1))
        await client.start(1)
        server.answer(stall=True)
        client.track("a", CONTEXT)
        late = []
        for _ in range(ATTEMPTS):
            began = time.monotonic()
            report = await aflush(TIMEOUT, client)
            late.append(time.monotonic() - began - TIMEOUT)
            assert report == FlushReport(pending=1, others=1, timed_out=True)
        assert min(late) <= LATE
        await client.close()

    asyncio.run(main())


@async_sdk
@pytest.mark.parametrize("how", ["exposure", "identify"])
@pytest.mark.parametrize("answer", [{"status": 500}, {"stall": True}], ids=["500", "stall"])
def test_a_flush_is_not_ok_while_other_events_are_pending(server, how, answer):
    """An evaluation or an `identify` is no `track` event, and `ok` waits for it all the same."""
    from ldclient.async_client import AsyncLDClient

    async def main() -> tuple[bool, FlushReport, FlushReport]:
        client = AsyncLDClient(_async_config(server, close_timeout=0.1, read_timeout=0.5))
        await client.start(1)
        server.answer(**answer)
        if how == "exposure":
            await client.variation("absent", CONTEXT, None)
        else:
            client.identify(CONTEXT)
        waited = await client.flush_and_wait(0.3)
        failing = await aflush(0.3, client)
        server.behave()
        while not (last := await aflush(1.0, client)).ok:
            pass
        await client.close()
        return waited, failing, last

    waited, failing, last = asyncio.run(main())
    assert (waited, failing.ok, failing.others > 0) == (False, False, True)
    assert (last.ok, last.others) == (True, 0)


_NO_FILES = """
import os, resource, sys
sys.path[:0] = [{here!r}]
import faults
import ldinstrument as ld
from ldclient import LDClient
client = LDClient(faults.config({url!r}, flush_interval=3600, **{options!r}))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
client.track("a", faults.CONTEXT)
ld.track_conversion(1.0, context=faults.CONTEXT, client=client)
assert ld.current_session() is None and ld.identify("u") is None and ld.propagate(len)("x") == 1
reports = [ld.flush(0.3, client), ld.flush(0.3)]
for file in taken:
    os.close(file)
while not (report := ld.flush(1.0, client)).ok:
    pass
print([report.delivered for report in reports], ld.stats().events.delivered)
"""


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_no_file_descriptor_left(server, tmp_path, spool):
    """The flush says what it knows and raises nothing; later everything arrives."""
    pytest.importorskip("resource")
    options = {"spool": str(tmp_path / "spool")} if spool else {}
    # A name, so that it has to be resolved: the codec for that must be there already.
    url = server.url.replace("127.0.0.1", "localhost")
    done = subprocess.run(
        [sys.executable, "-c", _NO_FILES.format(here=str(faults.HERE), url=url, options=options)],
        env=faults._environment(),
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0, 0] 2"
    assert server.keys() == {"a": 1, "business.conversion": 1}
