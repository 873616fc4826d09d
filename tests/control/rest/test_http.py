"""One request and its answer: time-outs, hostile answers, redirects, and a token that shows nowhere."""

from __future__ import annotations

import gzip
import io
import json
import logging
import socket
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

import ldinstrument
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import (
    ApiError,
    InvalidRequest,
    ServerError,
    Unreachable,
)
from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import MetricsAPI


def test_a_slow_body_ends_at_the_timeout(script: Any, token: str) -> None:
    """A byte now and then would keep a plain read timeout alive for ever."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
        )
        for _ in range(600):
            connection.sendall(b" ")
            time.sleep(0.05)

    server = script(drip)
    began = time.monotonic()
    with MetricsAPI("default", token=token, base_uri=server.url, timeout=0.5, budget=1) as api:
        with pytest.raises(Unreachable, match="within"):
            api.get("a.b")
    assert time.monotonic() - began < 15


def test_slow_headers_end_at_the_timeout(script: Any, token: str) -> None:
    """A byte of a header now and then comes before any read timeout; the next call has a connection
    of its own.
    """

    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(1200):
            connection.sendall(b"a")
            if over.wait(0.05):
                break

    server = script(drip)
    began = time.monotonic()
    try:
        with MetricsAPI(
            "default", token=token, base_uri=server.url, timeout=3.0, budget=3.1
        ) as api:
            held = api._calls._http._http
            with pytest.raises(Unreachable, match="within"):
                api.get("a.b")
            assert api._calls._http._http is not held
    finally:
        over.set()
    assert time.monotonic() - began < 30


def test_compressed_and_chunked_answers_are_read(script: Any, token: str) -> None:
    """gzip in chunks, as a proxy may send it."""
    packed = gzip.compress(json.dumps({"key": "a.b", "name": "A", "kind": "custom"}).encode())
    chunks = (
        b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (packed[:7], packed[7:]))
        + b"0\r\n\r\n"
    )
    server = script(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        + chunks
    )
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        assert api.get("a.b").name == "A"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>login</html>",
            "not JSON",
        ),
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{"key": ',
            "broke off",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]", "not a metric"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "not a metric"),
        (b"no HTTP at all\r\n\r\n", "broke"),
    ],
)
def test_answers_that_are_none(script: Any, token: str, answer: bytes, words: str) -> None:
    """HTML, half answers, other JSON, nothing: Unreachable, with what it was."""
    server = script(answer)
    with MetricsAPI(
        "default", token=token, base_uri=server.url, budget=5, sleep=lambda _: None
    ) as api:
        with pytest.raises(Unreachable, match=words):
            api.get("a.b")


def test_half_an_answer_is_noticed_without_the_librarys_help(
    script: Any, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """urllib3 1.26 does not compare what it read with what was announced."""
    monkeypatch.setattr("urllib3.response.HTTPResponse._init_length", lambda *_: None)
    server = script(
        b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{"key": "a.b"}'
    )
    with MetricsAPI(
        "default", token=token, base_uri=server.url, budget=5, sleep=lambda _: None
    ) as api:
        with pytest.raises(Unreachable, match="broke off"):
            api.get("a.b")


def test_an_answer_beyond_the_bound_is_not_read_to_its_end(
    script: Any, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte too many is too many."""
    monkeypatch.setattr("ldinstrument.rest.http._BODY_CAP", 99)
    server = script(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b" " * 100)
    with MetricsAPI("default", token=token, base_uri=server.url, budget=5) as api:
        with pytest.raises(Unreachable, match="too large"):
            api.get("a.b")


@pytest.mark.parametrize("errors", [7, {"a": 1}, [5, {"attribute": None}, None], "text"])
def test_errors_of_any_shape_stay_typed(script: Any, token: str, errors: Any) -> None:
    """What a proxy or a later LaunchDarkly calls `errors` need not be a list of objects."""
    body = json.dumps({"code": "invalid_request", "message": "bad", "errors": errors}).encode()
    server = script(
        b"HTTP/1.1 422 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with (
        MetricsAPI("default", token=token, base_uri=server.url) as api,
        pytest.raises(InvalidRequest) as caught,
    ):
        api.get("a.b")
    assert caught.value.message == "bad"


def test_numbers_that_are_no_json_are_none(script: Any, token: str) -> None:
    """What was read is written again by --json, where NaN and Infinity would be refused."""
    body = b'{"key": "a.b", "one": NaN, "two": -Infinity, "three": 1e999, "four": 1.5}'
    server = script(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        assert api.get("a.b").raw == {
            "key": "a.b",
            "one": None,
            "two": None,
            "three": None,
            "four": 1.5,
        }


def test_an_html_error_page_is_a_server_error_without_the_html(script: Any, token: str) -> None:
    """A proxy's 502 page."""
    server = script(
        b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n<html><h1>oh</h1></html>"
    )
    with (
        MetricsAPI(
            "default", token=token, base_uri=server.url, budget=5, sleep=lambda _: None
        ) as api,
        pytest.raises(ServerError) as caught,
    ):
        api.get("a.b")
    assert "<" not in str(caught.value)
    assert caught.value.status == 502


def test_without_a_thread_it_asks_all_the_same(
    ld: LocalLaunchDarkly, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None can start while the interpreter ends, when `bootstrap(wait=False)` may be at work."""

    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "ldinstrument.rest":
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with MetricsAPI("default", token=token, base_uri=ld.url) as api:
        assert api.count() == 0


def test_nobody_listens(token: str) -> None:
    """A refused connection says so, and what to start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    waits: list[float] = []
    with MetricsAPI(
        "default", token=token, base_uri=f"http://127.0.0.1:{port}", sleep=waits.append
    ) as api:
        with pytest.raises(Unreachable, match=r"refused.*ldinstrument dev"):
            api.get("a.b")
    assert waits == []  # nobody will listen there because we ask again


def test_a_name_that_does_not_resolve_is_said_at_once(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a resolver that is out of order for a moment is asked again."""
    waits: list[float] = []
    errors = [socket.gaierror(socket.EAI_AGAIN, "again"), socket.gaierror(socket.EAI_NONAME, "no")]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(errors.pop(0))
    )
    with MetricsAPI(
        "default", token=token, base_uri="https://no-such-host.invalid", sleep=waits.append
    ) as api:
        with pytest.raises(Unreachable, match="does not resolve"):
            api.get("a.b")
    assert len(waits) == 1


def test_redirects_do_not_carry_the_token_elsewhere(script: Any, token: str) -> None:
    """A redirect is an error that names the other host; nobody there hears of the token."""
    elsewhere = script(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    server = script(
        f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        with pytest.raises(Unreachable, match="redirected"):
            api.get("a.b")
    assert token.encode() in server.requests[0]
    assert len(server.requests) == 1
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "location", [b"", b"Location: http://[bad\r\n", b"Location: /relative\r\n"]
)
def test_redirects_to_nowhere_are_typed_and_their_pages_not_read(
    script: Any, token: str, location: bytes
) -> None:
    """requests would parse the address and read the page, although it follows none."""

    def endless(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 301 Moved\r\n" + location + b"Content-Length: 100000000\r\n\r\n"
        )
        for _ in range(400):
            connection.sendall(b" ")
            time.sleep(0.05)

    server = script(endless)
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        with pytest.raises(Unreachable, match=r"redirected.*somewhere else"):
            api.get("a.b")
    assert len(server.requests) == 1


def test_a_token_that_is_echoed_is_blanked(script: Any, token: str) -> None:
    """A proxy that repeats the request in its error page, and a metric that somebody named after a
    token.
    """
    error = json.dumps({"code": token, "message": f"bad header: {token}", "id": token}).encode()
    metric = json.dumps({"key": "a.b", "name": token}).encode()
    answers = [
        b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
        % (status, len(body), body)
        for status, body in ((b"400 Bad", error), (b"200 OK", metric))
    ]
    server = script(*answers)
    with MetricsAPI("default", token=token, base_uri=server.url) as api:
        with pytest.raises(InvalidRequest) as caught:
            api.get("a.b")
        assert caught.value.message == "bad header: ***"
        assert token not in _frames(caught.value)
        assert api.get("a.b").name == "***"


def _frames(error: BaseException) -> str:
    """What an error tracker would record: the text, the chain, and the repr of every local of the
    library.
    """
    chain, seen = [error], ""
    for cause in chain:
        seen += (
            "".join(traceback.format_exception(cause))
            + repr(cause)
            + str(cause)
            + repr(vars(cause))
        )
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            if Path(ldinstrument.__file__).parent in Path(frame.f_code.co_filename).parents:
                seen += repr(frame.f_locals)
        chain += [under for under in (cause.__cause__, cause.__context__) if under is not None]
        assert len(chain) < 20
    return seen


def test_the_token_is_in_no_error_log_or_repr(
    ld: LocalLaunchDarkly,
    script: Any,
    token: str,
    latency: Metric,
    caplog: pytest.LogCaptureFixture,
    capsys: Any,
) -> None:
    """Every way to fail, with locals and chained exceptions; and debug logging of everything."""
    caplog.set_level(logging.DEBUG)
    broken = script(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{", b"nonsense\r\n\r\n"
    )
    told = io.StringIO()
    for host, fault in [
        (ld.url, {"status": 401}),
        (ld.url, {"status": 500}),
        (ld.url, {"status": 429}),
        (ld.url, {"drop": True}),
        (ld.url, {"truncate": True}),
        (broken.url, {}),
        ("http://127.0.0.1:9", {}),
    ]:
        if fault:
            ld.fault("*", times=None, **fault)  # type: ignore[arg-type]
        with MetricsAPI(
            "default", token=token, base_uri=host, budget=5, sleep=lambda _: None
        ) as api:
            told.write(
                repr(api)
                + repr(vars(api))
                + repr(api.token)
                + repr(api._calls)
                + repr(vars(api._calls))
            )
            client = api._calls._http
            told.write(
                repr(client)
                + repr(vars(client))
                + repr(client._http.headers)
                + repr(client._http.auth)
            )
            for call in (
                lambda: api.get("a.b"),
                lambda: api.create(latency),
                lambda: list(api.list()),
            ):
                with pytest.raises(ApiError) as caught:
                    call()
                assert caught.value.__cause__ is None
                told.write(_frames(caught.value))
        ld.clear_faults()
    told.write("".join(record.getMessage() + repr(vars(record)) for record in caplog.records))
    captured = capsys.readouterr()
    assert token not in told.getvalue() + captured.out + captured.err
    assert "very-secret" not in told.getvalue()
    assert len(told.getvalue()) > 10_000


def test_netrc_and_proxies_are_kept_out(
    ld: LocalLaunchDarkly, token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """~/.netrc does not replace the token, and a proxy does not come between us and this
    machine.
    """
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    seen: list[str] = []
    ld.fault(
        "*",
        status=500,
        times=None,
        when=lambda m, p, headers, b: bool(seen.append(headers["authorization"])),
    )
    with MetricsAPI("default", token=token, base_uri=ld.url) as api:
        list(api.list())
    assert seen == [token]


def test_what_is_sent_along(ld: LocalLaunchDarkly, api: MetricsAPI, token: str) -> None:
    """The bare token, the API version, and who we are."""
    seen: list[Any] = []
    ld.fault("*", status=500, times=None, when=lambda m, p, headers, b: bool(seen.append(headers)))
    list(api.list())
    assert seen[0]["authorization"] == token
    assert seen[0]["ld-api-version"] == "20240415"
    assert seen[0]["user-agent"].startswith("ldinstrument/")
