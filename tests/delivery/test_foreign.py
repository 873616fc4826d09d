"""Clients that were built without our event processor."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from clients import async_client_of, async_sdk, client_of, uris
from deadlines import ATTEMPTS, LATE, NEVER, in_time
from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig

from ldinstrument.delivery import FlushReport, aflush, attach, flush
from ldinstrument.sessions.emission import emit
from ldinstrument.sessions.rollups import Emission

CONTEXT = Context.create("u-1")


TIMEOUT = 0.3


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


def test_a_client_built_elsewhere_is_flushed_as_well_as_possible(server):
    """Without our event processor the flush waits, and says `confirmed=False`."""
    client = client_of(server, use_ldd=True, diagnostic_opt_out=True, flush_interval=3600)
    attach(client)
    emit(Emission("a", None, 1.0, 1234, 1), CONTEXT, client)
    report = flush(30.0, client)
    assert report == FlushReport(unconfirmed=1, confirmed=False)
    assert server.keys() == {"a": 1}
    client.close()


def test_a_client_built_elsewhere_cannot_exceed_the_deadline(server):
    """The SDK's own processor, saturated by a black hole, costs the deadline and no more."""
    addresses = uris(server.url)
    stock = Config(
        "sdk-key",
        **addresses,
        use_ldd=True,
        diagnostic_opt_out=True,
        http=HTTPConfig(read_timeout=NEVER),
    )
    client = LDClient(stock)
    server.answer(stall=True)
    client.track("a", CONTEXT)
    report = in_time(lambda: flush(TIMEOUT, client), TIMEOUT)
    assert (report.timed_out, report.confirmed) == (True, False)
    server.vanish()


@async_sdk
def test_async_client_built_elsewhere(server):
    """Without our processor the async client's own wait is used, unconfirmed."""

    async def main() -> FlushReport:
        client = async_client_of(server.url, use_ldd=True)
        await client.start(1)
        client.track("a", CONTEXT)
        report = await aflush(30.0, client)
        await client.close()
        return report

    assert asyncio.run(main()).confirmed is False
    assert server.keys() == {"a": 1}


def test_an_event_for_somebody_who_cannot_tell_makes_a_flush_unconfirmed(client):
    """Whatever the client of the flush itself has confirmed; the next flush is not concerned."""

    class Elsewhere:
        def track(self, *event: object, **more: object) -> None: ...

    flush(0.0, client)  # a report counts what came since the one before it
    client.track("a", CONTEXT)
    emit(Emission("b", 1.0, None, 1_700_000_000_000, 1), CONTEXT, Elsewhere())
    assert flush(20.0, client) == FlushReport(delivered=1, unconfirmed=1, confirmed=False)
    client.track("c", CONTEXT)
    assert flush(20.0, client) == FlushReport(delivered=1)


def test_a_foreign_flush_that_blocks_costs_the_deadline_only(server):
    """It runs on a thread of its own, for which nobody waits longer than asked."""
    Foreign.hold.clear()
    client = client_of(server, use_ldd=True, event_processor_class=Foreign)
    report = in_time(lambda: flush(TIMEOUT, client), TIMEOUT)
    Foreign.hold.set()
    assert (report.timed_out, report.confirmed) == (True, False)
    assert flush(20.0, client) == FlushReport(confirmed=False)
    client.close()


def test_without_a_thread_a_foreign_flush_is_not_waited_for(server, monkeypatch, caplog):
    """None can start at exit, or at the process's limit: nobody would keep the deadline."""
    client = client_of(server, use_ldd=True, event_processor_class=Foreign)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        report = flush(20.0, client)
        awaited = asyncio.run(aflush(20.0, client))
    assert report == awaited == FlushReport(timed_out=True, confirmed=False)
    assert "bug" not in caplog.text
    client.close()


def _no_thread(thread):
    raise RuntimeError("can't start new thread")


def test_a_closed_client_of_the_sdks_own_has_nothing_to_wait_for(server):
    """Closed is done; what became of its events it cannot tell."""
    client = client_of(server, use_ldd=True)
    attach(client)
    client.close()
    assert flush(20.0) == FlushReport(confirmed=False)


def test_a_closed_client_of_the_sdks_own_unconfirms_nothing_that_comes_later(server, client):
    """What it was given was unconfirmed, once; the events of others are confirmed."""
    other = client_of(server, use_ldd=True, diagnostic_opt_out=True)
    attach(other)
    emit(Emission("a", 1.0, None, 1234, 1), CONTEXT, other)
    other.close()
    client.track("b", CONTEXT)
    assert flush(20.0) == FlushReport(delivered=1, unconfirmed=1, confirmed=False)
    client.track("c", CONTEXT)
    assert flush(20.0) == FlushReport(delivered=1)


def test_a_closed_async_client_of_the_sdks_own_has_nothing_to_wait_for(server):
    """Its own `flush_and_wait` would never end."""
    pytest.importorskip("ldclient.async_client", reason="SDK 9.17 and newer")

    async def main() -> tuple[FlushReport, float]:
        client = async_client_of(server.url, use_ldd=True)
        await client.start(20)
        attach(client)
        await client.close()
        late = []
        for _ in range(ATTEMPTS):
            began = time.monotonic()
            report = await aflush(NEVER)
            late.append(time.monotonic() - began)
        return report, min(late)

    report, late = asyncio.run(main())
    assert report == FlushReport(confirmed=False)
    assert late <= LATE
