"""One run of the server: up when it says so, and at its end at once, whatever is open."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import requests

from ldinstrument.devserver import LocalLaunchDarkly, simple_flag
from ldinstrument.devserver.server_run import ServerRun

from .served_events import EVENT, HEADERS, note_threads_of_others, ours, send


@pytest.fixture(autouse=True)
def _servers_of_other_tests() -> None:
    note_threads_of_others()


def test_it_stops_at_once_although_streams_are_open():
    """Ten held streams must not make anybody wait for the time-out of the graceful end."""
    with LocalLaunchDarkly() as ld:
        streams = [
            requests.get(ld.url + "/all", headers=HEADERS, stream=True, timeout=60)
            for _ in range(10)
        ]
        streams.append(requests.get(ld.url + "/dev/stream", stream=True, timeout=60))
        for stream in streams:
            assert next(stream.iter_lines())
        began = time.monotonic()
    assert time.monotonic() - began < 30
    assert not ours()
    for stream in streams:
        stream.close()


def test_it_stops_at_once_although_a_fault_holds_an_answer():
    """A black hole is a test's tool, not a reason to hang."""
    with LocalLaunchDarkly() as ld:
        ld.fault("/bulk", status=503, delay=600)

        def wait() -> None:
            with pytest.raises(requests.ConnectionError):
                send(ld, EVENT)

        waiting = threading.Thread(target=wait)
        waiting.start()
        ld.wait_for(lambda: ld.posts() and ld.posts()[0].fault == "503")
        began = time.monotonic()
    assert time.monotonic() - began < 30
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(caplog):
    """A worker that is killed while it posts must not fill the terminal with tracebacks."""
    with LocalLaunchDarkly() as ld:
        with socket.create_connection(("127.0.0.1", ld.port)) as connection:
            connection.sendall(b"POST /bulk HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: sdk\r\n")
            connection.sendall(b"Content-Length: 1000\r\n\r\n[")
            assert send(ld, EVENT).status_code == 202  # the server is at it
        assert send(ld, EVENT).status_code == 202
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_run_that_does_not_come_up_is_an_error_and_leaves_nothing(monkeypatch):
    """With what was wrong; no thread of it goes on."""

    async def broken(self: ServerRun) -> None:
        raise OSError("no loop")

    monkeypatch.setattr(ServerRun, "_serve", broken)
    with pytest.raises(RuntimeError, match="did not start") as failed, LocalLaunchDarkly():
        pass
    assert isinstance(failed.value.__cause__, OSError)
    assert not ours()


def test_a_changed_flag_is_on_the_open_streams_at_once():
    """Whichever thread has changed it."""
    with LocalLaunchDarkly() as ld:
        with requests.get(ld.url + "/all", headers=HEADERS, stream=True, timeout=60) as stream:
            lines = stream.iter_lines(decode_unicode=True)
            assert next(lines) == "event: put"
            changing = threading.Thread(target=ld.set_flag, args=(simple_flag("new"),))
            changing.start()
            changed = next(line for line in lines if line.startswith("event: patch"))
            assert changed
            assert '"new"' in next(lines)
            changing.join(20)


def test_a_faulted_post_is_recorded_as_one():
    """Of the intake alone."""
    with LocalLaunchDarkly() as ld:
        ld.fault("/bulk", status=503, times=1)
        ld.fault("/api/v2/metrics/default", status=503, times=1)
        assert send(ld, EVENT).status_code == 503
        url = ld.url + "/api/v2/metrics/default"
        assert requests.get(url, headers={"Authorization": "api-t"}, timeout=60).status_code == 503
        assert [(post.route, post.fault) for post in ld.posts()] == [("/bulk", "503")]
        assert ld.events() == []
