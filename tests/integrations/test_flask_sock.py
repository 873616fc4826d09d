"""Flask-Sock under gunicorn's threads: a websocket is one WSGI request that lasts for minutes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ldinstrument.devserver import LocalLaunchDarkly

pytest.importorskip("flask_sock")
simple_websocket = pytest.importorskip("simple_websocket")

PROGRAM = """
import ldclient, flask, flask_sock
import ldinstrument as ld
from ldinstrument.integrations.flask import instrument
ldclient.set_config(ld.launchdarkly_config("sdk-local", events_only=True, flush_interval=300))
ldclient.get()
application = flask.Flask("chat")
instrument(application, context="ada")
sock = flask_sock.Sock(application)
@sock.route("/chat")
def chat(socket):
    while (word := socket.receive()) != "bye":
        socket.send(word)
        ld.track_conversion(1.0)
"""


def test_a_websocket_is_one_interaction_of_its_own(
    free_port: Callable[[], int], launchdarkly: LocalLaunchDarkly, tmp_path: Path
) -> None:
    """A success when it is closed in order, whose life is not `request.duration`."""
    (tmp_path / "chat_program.py").write_text(PROGRAM)
    port = free_port()
    command = ["gunicorn", "--worker-class", "gthread", "--threads", "2", "--log-level", "critical"]
    server = subprocess.Popen(
        [sys.executable, "-m", *command, "--bind", f"127.0.0.1:{port}", "chat_program:application"],
        env={**os.environ, "LDINSTRUMENT_URL": launchdarkly.url, "no_proxy": "127.0.0.1"},
        cwd=tmp_path,
    )
    try:
        socket = connected(port)
        socket.send("hello")
        assert socket.receive(60) == "hello"
        socket.send("bye")
        with pytest.raises(simple_websocket.ConnectionClosed):
            socket.receive(60)
    finally:
        server.terminate()
        server.wait(60)

    (done,) = launchdarkly.custom_events("websocket.interactions")
    assert (done["data"]["successes"], done["data"]["route"]) == (1, "/chat")
    assert launchdarkly.custom_events("request.duration") == []
    assert len(launchdarkly.custom_events("business.conversion")) == 1


def connected(port: int) -> simple_websocket.Client:
    deadline = time.monotonic() + 60
    while True:
        try:
            return simple_websocket.Client(f"ws://127.0.0.1:{port}/chat")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
