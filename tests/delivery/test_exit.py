"""The end of a process delivers what was recorded, in silence."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import faults
import pytest
from ldclient import Context

CONTEXT = Context.create("u-1")


PROGRAM = """
import multiprocessing, sys
sys.path[:0] = [{here!r}]
import faults
from ldclient import LDClient


def work(client=None):
    client = client or LDClient(faults.config({url!r}, flush_interval=3600, close_timeout=60.0))
    client.track("child", faults.CONTEXT)


if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    given = LDClient(faults.config({url!r}, flush_interval=3600, close_timeout=60.0)) if {method!r} == "fork" else None
    child = context.Process(target=work, args=(given,))
    child.start()
    child.join(60)
    sys.exit(child.exitcode)
"""


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


def test_exit_delivers_and_is_silent(server, tmp_path):
    """A program that just ends has its events delivered by the exit hook, open sessions as
    abandoned.
    """
    program = tmp_path / "program.py"
    program.write_text(
        "import ldclient, sys\n"
        "from ldinstrument.delivery import launchdarkly_config\n"
        "from ldinstrument.sessions.scopes import open_session\n"
        "ldclient.set_config(launchdarkly_config('sdk-key', events_only=True))\n"
        "client = ldclient.get()\n"
        "session = open_session(ldclient.Context.create('u-1'), client=client)\n"
        "session.interaction(success=True)\n"
        "client.track('a', ldclient.Context.create('u-1'))\n"
    )
    root = str(faults.HERE.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "LDINSTRUMENT_URL": server.url}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert server.keys()["a"] == 1
    assert server.keys()["session.interactions"] == 1


_FROM_A_THREAD = """
import os, sys, threading
sys.path[:0] = [{here!r}]
import faults
import ldinstrument as ld
from ldclient import LDClient
client = LDClient(faults.config({url!r}, flush_interval=3600, close_timeout=60.0))
def fork():
    child = os.fork()
    if child:
        sys.exit(os.waitpid(child, 0)[1] != 0)
    client.track("child", faults.CONTEXT)
    ld.session("u-1", client=client).__enter__().conversion(49.0)
thread = threading.Thread(target=fork)
thread.start()
thread.join(60)
os._exit(thread.is_alive())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_child_forked_from_a_thread_ends_and_has_delivered(server, tmp_path):
    """It has no main thread and runs no `atexit`; it ends with the thread that it was forked in."""
    program = tmp_path / "program.py"
    program.write_text(_FROM_A_THREAD.format(here=str(faults.HERE), url=server.url))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program)],
        env=faults._environment(),
        timeout=100,
    )
    assert done.returncode == 0
    assert server.keys()["child"] == 1
    assert server.keys()["business.conversion"] == 1
