"""Prefork servers with a client made before the fork: gunicorn `--preload`, multiprocessing,
Celery's prefork pool.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ldinstrument import testing
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.integrations import gunicorn as hooks
from ldinstrument.sessions.scopes import open_session

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
ROOT = Path(__file__).parent.parent.parent
_spec = importlib.util.spec_from_file_location(
    "event_server", ROOT / "tests" / "delivery" / "event_server.py"
)
assert _spec is not None
assert _spec.loader is not None
event_server: Any = sys.modules.setdefault("event_server", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(event_server)

APPLICATION = """
import os, threading
import ldclient
from ldinstrument.delivery import launchdarkly_config
from ldinstrument.sessions.scopes import open_session

ldclient.set_config(launchdarkly_config("sdk-key", events_only=True, flush_interval=3600))
client = ldclient.get()
context = ldclient.Context.create("u-1")
client.track(f"preload.{os.getpid()}", context)

def app(environ, start_response):
    client.track("request." + environ["QUERY_STRING"], context)
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""


@pytest.fixture(name="server")
def _server() -> Iterator[Any]:
    with event_server.EventServer() as server:
        yield server


def _environment(url: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "LDINSTRUMENT_URL": url, "no_proxy": "*"}


@pytest.mark.parametrize("hooks", [True, False], ids=["with our hooks", "without"])
def test_gunicorn_preload(server, tmp_path, hooks):
    """Every request's event arrives once, the preloaded one once, and the workers end in time."""
    pytest.importorskip("gunicorn")
    (tmp_path / "application.py").write_text(APPLICATION)
    line = (
        "from ldinstrument.integrations.gunicorn import post_fork, worker_exit\n" if hooks else ""
    )
    (tmp_path / "conf.py").write_text(line)
    # Bound and listening before gunicorn starts: no port to lose, and a request that comes early
    # waits in the backlog.
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as listening,
        (tmp_path / "log").open("w") as log,
    ):
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        program = [
            sys.executable,
            "-m",
            "gunicorn",
            "--preload",
            "-w",
            "2",
            "-b",
            f"fd://{listening.fileno()}",
            "-c",
            "conf.py",
            "--timeout",
            "100",
            "--graceful-timeout",
            "60",
            "application:app",
        ]
        gunicorn = subprocess.Popen(
            program,
            cwd=tmp_path,
            env=_environment(server.url),
            stderr=log,
            pass_fds=[listening.fileno()],
        )
        try:
            for number in range(40):
                _get(f"{address}/?{number}")
        finally:
            gunicorn.send_signal(signal.SIGTERM)
            code = gunicorn.wait(100)
    assert code == 0, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    keys = server.keys()
    assert {key: count for key, count in keys.items() if key.startswith("request.")} == {
        f"request.{number}": 1 for number in range(40)
    }
    assert keys[f"preload.{gunicorn.pid}"] == 1


ATTACHED = """
import os
import ldinstrument as ld
from ldclient import Config, Context, LDClient

url = os.environ["LAUNCHDARKLY"]
client = LDClient(Config("sdk-local", base_uri=url, stream_uri=url, events_uri=url), start_wait=10)
ld.attach(client)

def app(environ, start_response):
    user = Context.create(environ["QUERY_STRING"])
    with ld.session(user, client=client) as s:
        s.conversion(40)
        s.conversion(2)
        client.variation("flag", user, None)
        s.conversion(3)
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""


def test_gunicorn_preload_of_a_client_that_is_attached(tmp_path):
    """A client of one's own, no singleton, with the SDK's event processor: our hook restarts it,
    and its exposures are seen in the worker.
    """
    pytest.importorskip("gunicorn")
    (tmp_path / "application.py").write_text(ATTACHED)
    (tmp_path / "conf.py").write_text(
        "from ldinstrument.integrations.gunicorn import post_fork, worker_exit\n"
    )
    with (
        LocalLaunchDarkly(flags=[experiment_flag("flag", ["a", "b"])]) as launchdarkly,
        socket.create_server(("127.0.0.1", 0), backlog=64) as listening,
        (tmp_path / "log").open("w") as log,
    ):
        bound = listening.fileno()
        arguments = f"--preload -w 2 -c conf.py -b fd://{bound} --timeout 100 application:app"
        gunicorn = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *arguments.split()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LAUNCHDARKLY": launchdarkly.url},
            stderr=log,
            pass_fds=[bound],
        )
        try:
            for number in range(10):
                _get(f"http://127.0.0.1:{listening.getsockname()[1]}/?u-{number}")
        finally:
            gunicorn.send_signal(signal.SIGTERM)
            gunicorn.wait(100)
        launchdarkly.wait_for(lambda: launchdarkly.count(key="session.duration") == 10)
        sums = launchdarkly.custom_events("business.conversion")
    assert sorted(event["metricValue"] for event in sums) == [3] * 10 + [42] * 10


def _get(url: str) -> None:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=100).read()


def _run(tmp_path: Path, server: Any, text: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, program],
        env=_environment(server.url),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr


def test_multiprocessing(server, tmp_path):
    """A pool of forked workers, each of which ends in its own way; nothing is sent twice and
    nothing hangs.
    """
    _run(
        tmp_path,
        server,
        APPLICATION
        + """
import multiprocessing
from ldinstrument.delivery import flush

def work(number):
    client.track(f"work.{number}", context)
    return flush(60.0).delivered

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(work, range(30), chunksize=1) == [1] * 30
    assert flush(60.0).delivered == 1
""",
    )
    keys = server.keys()
    assert {key: count for key, count in keys.items() if key.startswith("work.")} == {
        f"work.{number}": 1 for number in range(30)
    }
    assert sum(count for key, count in keys.items() if key.startswith("preload.")) == 1


def test_celery_prefork(server, redis_of_its_own, tmp_path):
    """Tasks in Celery's prefork pool, with a client made in the parent."""
    pytest.importorskip("celery")
    (tmp_path / "tasks.py").write_text(
        APPLICATION
        + f"""
from celery import Celery
from ldinstrument.delivery import flush

queue = Celery("tasks", broker="{redis_of_its_own.url}", backend="{redis_of_its_own.url}")
queue.conf.worker_hijack_root_logger = False

@queue.task
def work(number):
    client.track(f"work.{{number}}", context)
    return flush(60.0).delivered
"""
    )
    options = [
        "-P",
        "prefork",
        "-c",
        "2",
        "-l",
        "warning",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    program = [sys.executable, "-m", "celery", "-A", "tasks:queue", "worker", *options]
    log = (tmp_path / "log").open("w")
    worker = subprocess.Popen(
        program, cwd=tmp_path, env=_environment(server.url), stderr=log, stdout=log
    )
    try:
        _run(
            tmp_path,
            server,
            "import tasks\nresults = [tasks.work.delay(number) for number in range(10)]\n"
            "assert [result.get(timeout=100) for result in results] == [1] * 10\n",
        )
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(100)
        log.close()
    keys = server.keys()
    assert {key: count for key, count in keys.items() if key.startswith("work.")} == {
        f"work.{number}": 1 for number in range(10)
    }, (tmp_path / "log").read_text()


def test_what_the_hooks_do(monkeypatch):
    """The inherited client comes to life in the worker; at its end sessions end, and events are
    waited for.
    """
    seen: list[Any] = []
    inherited = SimpleNamespace(postfork=lambda start_wait: seen.append(("postfork", start_wait)))
    monkeypatch.setattr("ldinstrument.sdk.singleton_client", lambda: inherited)
    monkeypatch.setattr(hooks, "flush", lambda timeout: seen.append(("flush", timeout)))
    opened = open_session("ada", client=testing.RecordingClient())

    hooks.post_fork(None, None)
    hooks.worker_exit(None, None)

    (restarted, waits), flushed = seen
    assert (restarted, flushed) == ("postfork", ("flush", hooks.EXIT_TIMEOUT))
    assert 0 < waits <= hooks.START_SECONDS
    assert opened.ended
