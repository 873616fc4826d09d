"""The sender: what an answer means for a payload, and what is said of it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import faults
import pytest
from deadlines import until_settled
from ldclient import Config, Context

from ldinstrument.delivery import (
    Receipt,
    flush,
)
from ldinstrument.delivery.event_json import Payload
from ldinstrument.delivery.options import Options
from ldinstrument.delivery.sender import Sender
from ldinstrument.delivery.transport import PostResult
from ldinstrument.ledger import ledger

BARE = Context.create("u-1")


class Failing:
    """A transport to a server that fails; it notes how many posts are under way at once."""

    def __init__(self) -> None:
        self.status = 503
        self.most = self.posts = self._now = 0
        self._changed = threading.Condition()

    def post(self, payload: Payload, headers: Mapping[str, str]) -> PostResult:
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.01)
        with self._changed:
            self._now -= 1
            self.posts += 1
            self._changed.notify_all()
        return PostResult(self.status)

    def close(self) -> None: ...

    def reached(self, posts: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.posts >= posts, 30)


def _fail(receipt: Receipt) -> None:
    raise RuntimeError(receipt.payload_id)


def test_one_bad_request_in_an_outage_is_not_three(server, make):
    """A proxy's single 400 among its 503s is no verdict; three of LaunchDarkly's are."""
    server.answer(status=503, times=4)
    server.answer(status=400, times=1)
    server.answer(status=202)
    client = make(flush_interval=3600)
    client.track("a", BARE)
    until_settled(client)
    assert (server.keys(), ledger.stats().events.dropped) == ({"a": 1}, {})


def test_an_outage_is_said_once(server, make, caplog):
    """At the second failure in a row, with its status and no address; the events are kept."""
    server.answer(status=404)
    client = make(flush_interval=0.05)
    client.track("a", BARE)
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
    client.track("a", BARE)
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
            client.track("a", BARE)
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
    worker = client._event_processor.worker
    client.track("a", BARE)
    flush(0.0, client)
    ledger.count(emitted=2)
    worker._receive([Payload(b"no json", 2, 2)])
    until_settled(client)
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
        client.track("a", BARE)
        assert flush(20.0, client).delivered == 1, number
    assert ledger.stats().events.pending == 0


def test_an_exit_out_of_a_callback_does_not_reach_the_flush(server, make):
    """`on_receipt` may run on the thread that flushes; `flush` never raises."""

    def on_receipt(_: object) -> None:
        raise SystemExit

    client = make(flush_interval=3600, on_receipt=on_receipt)
    for _ in range(3):
        client.track("a", BARE)
        assert flush(20.0, client).delivered == 1


def test_a_single_event_that_is_too_large_is_named(server, client, caplog):
    """413 for one event: dropped as `too_large`, and the log says which; its neighbours arrive."""
    server.answer(largest=2)
    for number in range(5):
        client.track(f"e.{number}", BARE)
    flush(30.0, client)
    assert server.keys() == {f"e.{number}": 1 for number in range(5)}
    server.behave()
    server.answer(status=413)
    client.track("huge", BARE)
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        assert flush(30.0, client).dropped == 1
    assert ledger.stats().events.dropped == {"too_large": 1}
    assert "huge: an event is too large" in caplog.text


def test_a_refused_key_is_said_once_and_never_shown(server, make, caplog):
    """401 stops sending; one line says so, without the key; a changed key starts it again."""
    server.answer(good_key="sdk-good")
    client = make(key="sdk-secret-1", flush_interval=0.05)
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        for _ in range(5):
            client.track("a", BARE)
            assert flush(30.0, client).failed > 0
    assert len(server.posts) == 1
    assert caplog.text.count("refuses the SDK key") == 1
    assert "sdk-secret" not in caplog.text
    client._config._Config__sdk_key = "sdk-good"
    assert flush(30.0, client).delivered == 5


_INTERRUPTED = """
import sys, threading
sys.path[:0] = [{here!r}]
import faults
from ldclient import LDClient
from ldinstrument.delivery import flush
from ldinstrument.ledger import ledger
client = LDClient(faults.config({url!r}, flush_interval=3600, close_timeout=0.1))
client.track("a", faults.CONTEXT)
with ledger.lock:
    print(flush(0.5, client).timed_out)
while ledger.stats().events.pending:
    flush(1.0, client)
"""


@pytest.mark.parametrize("status", [202, 413])
def test_a_handler_that_interrupted_the_ledger_may_flush(server, status):
    """A posting thread waits for the ledger then, and nobody for the sender: a flush in the handler
    of a signal keeps its deadline, and what happened is counted after it.
    """
    server.answer(status=status)
    program = _INTERRUPTED.format(here=str(faults.HERE), url=server.url)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=faults._environment(),
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_tried_again(server, client, status):
    """Neither by itself nor for a flush; what is recorded meanwhile waits."""
    server.answer(status=status)
    for number in range(3):
        client.track(f"e.{number}", BARE)
        report = flush(20.0, client)
        assert (report.failed, report.pending, report.ok) == (1, number, False)
    assert len(server.posts) == 1


def test_one_payload_at_a_time_probes_a_server_that_fails(make, caplog):
    """A server that comes back shall not meet everything that has waited for it at once."""
    failing = Failing()
    client = make(
        transport=lambda config: failing,
        flush_interval=3600,
        first_pause=0.001,
        longest_pause=0.002,
    )
    client.track("e.0", BARE)
    client.flush()
    while "does not take events" not in caplog.text:  # said at the second failure
        assert failing.reached(failing.posts + 1)
    failing.most = 0
    for number in range(1, 8):
        client.track(f"e.{number}", BARE)
        flush(0.05, client)
    assert failing.reached(failing.posts + 20)
    assert failing.most == 1
    failing.status = 202
    while flush(1.0, client).pending:
        pass
    assert ledger.stats().events.delivered == 8


def test_too_much_waiting_is_dropped_by_name(server, make):
    """What LaunchDarkly does not take is bounded by bytes: the oldest go first."""
    client = make(max_bytes=3000, flush_interval=3600)
    server.answer(status=503)
    for number in range(10):
        client.track(f"e.{number}", BARE, {"text": "x" * 1000})
        flush(0.05, client)
    server.behave()
    flush(30.0, client)
    kept, arrived = ledger.stats().events.dropped["backlog_full"], set(server.keys())
    assert kept + len(arrived) == 10
    assert "e.9" in arrived
    assert "e.0" not in arrived


@pytest.fixture(name="sender")
def _sender() -> Sender:
    """A sender whose payloads stay: it has no threads."""
    options = Options(max_bytes=25, max_age=10.0, transport=lambda config: Failing())
    return Sender(Config("sdk-key"), options, None, lambda: None)


def test_the_oldest_payloads_go_first(sender):
    """Bounded by bytes; the newest always fits. What is dropped is counted."""
    payloads = [Payload(b"x" * 10, 1, 1) for _ in range(4)]
    for payload in payloads:
        sender.add([payload])
    assert [payload.state for payload in payloads] == ["dropped", "dropped", "waiting", "waiting"]
    assert sender.room == 5
    sender.add([newest := Payload(b"x" * 100, 1, 1)])
    sender.run_deferred()
    assert [payload.state for payload in [*payloads, newest]] == ["dropped"] * 4 + ["waiting"]
    assert ledger.stats().events.dropped == {"backlog_full": 4}


def test_old_payloads_go_when_others_come(sender):
    """Bounded by age; who takes what another process left finds it old."""
    old = Payload(b"x", 1, 1, age_from=time.monotonic() - 11)
    sender.add([old])
    sender.add([new := Payload(b"x", 1, 1)])
    sender.run_deferred()
    assert [old.state, new.state] == ["dropped", "waiting"]
    assert ledger.stats().events.dropped == {"too_old": 1}


def test_too_old_is_dropped_by_name(server, make):
    """What LaunchDarkly does not take is bounded by age."""
    client = make(max_age=0.2, flush_interval=0.05)
    server.answer(status=503)
    client.track("a", BARE)
    flush(0.1, client)
    deadline = 100
    while not ledger.stats().events.dropped and deadline:
        deadline -= 1
        flush(0.05, client)
        __import__("time").sleep(0.05)
    assert ledger.stats().events.dropped == {"too_old": 1}


def test_a_bad_request_is_given_up_after_three_attempts(server, client):
    """400 three times over: the payload will never do, and does not hold up the others."""
    server.answer(status=400, times=3)
    client.track("a", BARE)
    for _ in range(20):
        if flush(1.0, client).dropped:
            break
    assert ledger.stats().events.dropped == {"http_400": 1}
    client.track("b", BARE)
    assert flush(30.0, client).delivered == 1


def test_a_failing_receipt_taker_is_harmless(server, make):
    """What the receipts are given to may fail; delivery goes on."""
    client = make(on_receipt=_fail, flush_interval=3600)
    client.track("a", BARE)
    assert flush(30.0, client).delivered == 1


def test_headers_are_the_sdks(server, make):
    """Key, schema and payload id are where LaunchDarkly looks for them."""
    receipts: list[Receipt] = []
    client = make(on_receipt=receipts.append, flush_interval=3600)
    client.track("a", BARE)
    flush(30.0, client)
    assert [post.key for post in server.posts] == ["sdk-good"]
    assert [
        (receipt.payload_id, receipt.custom, receipt.status, receipt.attempts)
        for receipt in receipts
    ] == [(server.posts[0].payload_id, 1, 202, 1)]
    assert receipts[0].size == len(server.posts[0].body)
    assert receipts[0].delivered
