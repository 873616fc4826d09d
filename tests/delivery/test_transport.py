"""POSTs over the pool: any answer that is HTTP is understood, none outlasts its deadline."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.parser import BytesParser
from functools import partial
from typing import Any

import faults
import pytest
from event_server import stop_accepting
from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig

from ldinstrument.delivery import (
    EventProcessor,
    FlushReport,
    Plugin,
    Receipt,
    flush,
)
from ldinstrument.delivery.transport import PAYLOAD_ID, PoolTransport, PostHeaders, transport_of
from ldinstrument.ledger import ledger

CONTEXT = Context.create("u-1")


def _until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


class Raw:
    """A server that answers each request on a connection with the next of *answers*, bytes by
    bytes.
    """

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        try:
            while (size := _size_of_next(stream)) is not None:
                stream.read(size)
                answer = next(self._answers, b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                for part in [answer] if isinstance(answer, bytes) else answer:
                    connection.sendall(part)
                    time.sleep(0.0 if isinstance(answer, bytes) else 0.02)
                if isinstance(answer, bytes) and b"connection: close" in answer.lower():
                    break
        except OSError:  # the client has had enough
            pass
        finally:
            stream.close()
            connection.close()

    def close(self) -> None:
        stop_accepting(self._listener, self._accepting)


DRIP = [b"x"] * 100_000


@pytest.fixture(name="warm")
def _warm(make: Callable[..., LDClient]) -> LDClient:
    """A client with an open connection, on which a flush may send by itself."""
    client = make(flush_interval=3600)
    client.track("warm", CONTEXT)
    assert flush(20.0, client).delivered == 1
    return client


def test_an_answer_after_the_deadline_is_waited_for_by_a_thread(server, warm):
    """The flush is back in time, and the POST that it had begun is the one that delivers."""
    server.answer(late=1.0, times=1)
    warm.track("late", CONTEXT)
    report = flush(0.1, warm)
    assert (report.pending, report.timed_out) == (1, True)
    assert _until(lambda: ledger.stats().events.delivered == 2)
    assert list(server.posts_per_payload().values()) == [1, 1]
    warm.track("next", CONTEXT)
    assert flush(20.0, warm).delivered == 1


def test_a_connection_that_the_server_closed_costs_nothing(server, warm):
    """Kept-alive connections end; the next flush opens another."""
    server.vanish()
    server.listen()
    warm.track("again", CONTEXT)
    assert flush(20.0, warm).delivered == 1
    assert server.keys() == {"warm": 1, "again": 1}


def test_a_connection_that_breaks_under_the_request_is_replaced(server, warm):
    """No answer came, so it is sent again at once, with the same id."""
    server.answer(reset=True, times=1)
    warm.track("again", CONTEXT)
    assert flush(20.0, warm).delivered == 1
    assert server.keys() == {"warm": 1, "again": 1}


def _size_of_next(stream: Any) -> int | None:
    """The length of the body whose head comes next; None at the end of the connection."""
    lines = []
    while (line := stream.readline()) not in (b"", b"\r\n"):
        lines.append(line)
    return int(BytesParser().parsebytes(b"".join(lines[1:]))["Content-Length"]) if lines else None


@pytest.fixture(name="client_of")
def _client_of() -> Iterator[Callable[..., LDClient]]:
    made: list[LDClient] = []

    def client_of(raw: Raw, **options: Any) -> LDClient:
        config = Config(
            "sdk-key",
            base_uri=raw.url,
            events_uri=raw.url,
            stream_uri=raw.url,
            use_ldd=True,
            flush_interval=3600,
            http=HTTPConfig(read_timeout=1.0),
            plugins=[Plugin()],
            event_processor_class=partial(
                EventProcessor, close_timeout=0.2, first_pause=0.05, **options
            ),
        )
        made.append(LDClient(config))
        return made[-1]

    yield client_of
    for client in made:
        client.close()


@pytest.mark.parametrize(
    "opening", [b"HTTP/1.1 202 OK\r\n", b"HTTP/1.1 202 OK\r\nX-Drip: ", b"HTTP/1.1 "], ids=repr
)
def test_a_dripping_answer_does_not_hold_a_flush(client_of, opening):
    """Each byte comes in time and the answer never: neither a flush nor a posting thread waits for
    it.
    """
    raw = Raw(b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n", [opening, *DRIP])
    client = client_of(raw)
    client.track("warm", CONTEXT)
    assert flush(20.0, client).delivered == 1
    client.track("a", CONTEXT)
    began = time.monotonic()
    report = flush(0.3, client)
    assert time.monotonic() - began < 10  # it drips for half an hour
    assert report.delivered == 0
    assert _until(lambda: flush(0.3, client) and ledger.stats().events.delivered == 2)
    raw.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        [b"HTTP/1.1 2", b"02 OK\r\nContent-", b"Length: 0\r", b"\n\r\n"],
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 202 OK\r\nConnection: close\r\n\r\nbye",
        b"HTTP/1.1 202 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 202 OK\r\ncontent-length: 0\r\nX-A: 1\r\n b\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=lambda answer: repr(answer)[:60],
)
def test_any_answer_that_is_http_is_understood(client_of, answer):
    """In one piece or in many, with a body or none, kept alive or closed; and the next POST works
    as well.
    """
    receipts: list[Receipt] = []
    client = client_of(Raw(answer, answer, answer), on_receipt=receipts.append)
    for _ in range(3):
        client.track("a", CONTEXT)
        assert flush(20.0, client) == FlushReport(delivered=1)
    assert {receipt.status // 100 for receipt in receipts} == {2}


def test_an_answer_that_is_not_http_is_a_failure(client_of):
    """It is kept, and sent again with its id."""
    receipts: list[Receipt] = []
    raw = Raw(b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n")
    client = client_of(raw, on_receipt=receipts.append)
    client.track("a", CONTEXT)
    assert _until(lambda: flush(1.0, client) and ledger.stats().events.delivered == 1)
    assert (receipts[0].status, receipts[0].error) == (0, "ProtocolError")
    assert len({receipt.payload_id for receipt in receipts}) == 1
    raw.close()


def test_a_proxy_is_used_where_the_sdk_would(server):
    """`HTTPConfig(http_proxy=...)`: the events leave through it, on urllib3's own pool."""
    config = Config(
        "sdk-key",
        base_uri=server.url,
        events_uri="http://events.example.test",
        stream_uri=server.url,
        use_ldd=True,
        flush_interval=3600,
        http=HTTPConfig(http_proxy=server.url),
        plugins=[Plugin()],
        event_processor_class=EventProcessor,
    )
    assert isinstance(transport_of(config), PoolTransport)
    client = LDClient(config)
    client.track("a", CONTEXT)
    assert flush(20.0, client) == FlushReport(delivered=1)
    client.track("b", CONTEXT)
    assert flush(20.0, client) == FlushReport(delivered=1)
    assert server.keys() == {"a": 1, "b": 1}
    client.close()


def test_the_bytes_are_those_of_the_events(server, warm):
    """One packet or two, what arrives is the payload."""
    big = {"text": "ä" * 20_000}
    warm.track("big", CONTEXT, big)
    assert flush(20.0, warm).delivered == 1
    (event,) = json.loads(server.posts[-1].body)
    assert event["data"] == big


def test_a_connection_that_the_server_has_closed_is_not_used_again(server, make):
    """It is heard before anything is sent: the next payload needs one attempt, not two."""
    receipts: list[Receipt] = []
    client = make(flush_interval=3600, on_receipt=receipts.append)
    for number in range(3):
        client.track(f"e.{number}", CONTEXT)
        assert flush(20.0, client).delivered == 1
        server.vanish()
        server.listen()
    assert [(receipt.status, receipt.attempts) for receipt in receipts] == [(202, 1)] * 3


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


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (b"200 OK", b"Content-Type: text/html; charset=utf-8\r\n"),
        (b"203 Portal", b"Content-Type: application/xhtml+xml\r\n"),
        (b"200 OK", b""),
    ],
)
def test_a_web_page_is_no_answer_of_launchdarklys(client_of, status, kind):
    """A captive portal says 200 to everything: the payload is kept, and sent again with its id."""
    page = b"\n<!DOCTYPE html><html>Please log in</html>"
    head = b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n"
    receipts: list[Receipt] = []
    raw = Raw(head % (status, kind, len(page)) + page)
    client = client_of(raw, on_receipt=receipts.append)
    client.track("a", CONTEXT)
    assert _until(lambda: flush(1.0, client) and ledger.stats().events.delivered == 1)
    assert [(receipt.status, receipt.error) for receipt in receipts] == [(0, "WebPage"), (202, "")]
    assert len({receipt.payload_id for receipt in receipts}) == 1
    raw.close()


def test_no_redirect_is_followed(client_of, server):
    """Events and the SDK key go to the address that was given, and to no other."""
    location = f"Location: {server.url}/bulk\r\n".encode()
    raw = Raw(b"HTTP/1.1 307 Elsewhere\r\n" + location + b"Content-Length: 0\r\n\r\n")
    receipts: list[Receipt] = []
    client = client_of(raw, on_receipt=receipts.append)
    client.track("a", CONTEXT)
    assert _until(lambda: flush(1.0, client) and ledger.stats().events.delivered == 1)
    assert [receipt.status for receipt in receipts] == [307, 202]
    assert server.posts == []
    raw.close()


_CODEC = """
import sys
sys.path[:0] = [{here!r}]
import faults
from ldclient import LDClient
before = "encodings.idna" in sys.modules
client = LDClient(faults.config("http://127.0.0.1:9", flush_interval=3600))
assert not before
assert "encodings.idna" in sys.modules
"""


def test_what_name_resolution_needs_is_there_before_a_thread_resolves():
    """A fork while a posting thread imports the codec would leave the child with its lock."""
    program = [sys.executable, "-c", _CODEC.format(here=str(faults.HERE))]
    done = subprocess.run(program, timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


_NO_CODEC = """
import sys
class Missing:
    found = False
    def find_spec(self, name, path=None, target=None):
        if name == "encodings.idna" and not self.found:
            raise ImportError("too many open files")
missing = Missing()
sys.meta_path.insert(0, missing)
sys.path[:0] = [{here!r}]
import faults
import ldinstrument as ld
from ldclient import LDClient
client = LDClient(faults.config({url!r}, flush_interval=3600))
client.track("a", faults.CONTEXT)
report = ld.flush(0.5, client)
assert (report.delivered, report.ok) == (0, False), report
missing.found = True
while not (report := ld.flush(1.0, client)).ok:
    pass
assert report.delivered == 1, report
"""


def test_a_codec_that_could_not_be_loaded_once(server):
    """Name resolution needs it; Python never tries again by itself, and nothing would leave."""
    url = server.url.replace("127.0.0.1", "localhost")
    done = subprocess.run(
        [sys.executable, "-c", _NO_CODEC.format(here=str(faults.HERE), url=url)],
        env=faults._environment(),
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert server.keys() == {"a": 1}


def test_the_headers_have_the_key_of_the_moment():
    """`ldclient.set_config` may bring another key; what is compressed is called so."""
    config = Config("sdk-first")
    headers = PostHeaders(config)
    first = headers.of("p-1", zipped=False)
    config._Config__sdk_key = "sdk-second"
    second = headers.of("p-2", zipped=True)

    assert (first["Authorization"], first[PAYLOAD_ID]) == ("sdk-first", "p-1")
    assert (second["Authorization"], second[PAYLOAD_ID]) == ("sdk-second", "p-2")
    assert (first.get("Content-Encoding"), second["Content-Encoding"]) == (None, "gzip")
