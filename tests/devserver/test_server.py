"""Life of a local LaunchDarkly: start, stop, restart, persistence, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import requests

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag, serve, simple_flag

from .served_events import EVENT, HEADERS, note_threads_of_others, ours, send


@pytest.fixture(autouse=True)
def _servers_of_other_tests() -> None:
    note_threads_of_others()


def test_it_listens_on_loopback_and_leaves_no_thread():
    """After its end nothing listens."""
    with LocalLaunchDarkly() as ld:
        assert ld.url == f"http://127.0.0.1:{ld.port}"
        assert send(ld, EVENT).status_code == 202
        assert ours()
    assert not ours()
    with pytest.raises(requests.ConnectionError):
        send(ld, EVENT)


def test_what_arrived_can_be_read_after_the_end():
    """Tests assert after the block."""
    with LocalLaunchDarkly() as ld:
        send(ld, EVENT)
    assert ld.custom_events() == [EVENT]


def test_it_comes_back_on_the_same_port_with_what_it_knew(free_port):
    """How a test makes LaunchDarkly vanish and return."""
    ld = LocalLaunchDarkly(free_port(), flags=[experiment_flag("exp")])
    with ld:
        send(ld, EVENT)
        port = ld.port
    with ld:
        assert ld.port == port
        send(ld, {**EVENT, "key": "later"})
        assert [event["key"] for event in ld.custom_events()] == ["k", "later"]


def test_a_database_file_survives_the_process(tmp_path):
    """Events, flags and their versions."""
    path = tmp_path / "ld.db"
    first = LocalLaunchDarkly(db=path, flags=[experiment_flag("exp")])
    with first:
        send(first, EVENT)
        version = requests.get(first.url + "/sdk/latest-all", headers=HEADERS, timeout=60).json()[
            "flags"
        ]["exp"]["version"]
    first.close()
    second = LocalLaunchDarkly(db=path, flags=[experiment_flag("exp")])
    with second:
        assert second.custom_events() == [EVENT]
        flags = requests.get(second.url + "/sdk/latest-all", headers=HEADERS, timeout=60).json()[
            "flags"
        ]
        assert flags["exp"]["version"] == version
    second.close()


def test_two_servers_do_not_share_anything():
    """Each has its own port and its own events."""
    with LocalLaunchDarkly() as one, LocalLaunchDarkly() as other:
        send(one, EVENT)
        assert one.port != other.port
        assert (len(one.events()), len(other.events())) == (1, 0)


def test_a_taken_port_is_an_error_of_the_start():
    """The one of the operating system."""
    with LocalLaunchDarkly() as ld, pytest.raises(OSError):
        LocalLaunchDarkly(port=ld.port).start()


def test_reset_forgets_traffic_metrics_and_faults_and_restores_flags():
    """The flags are those of the start."""
    with LocalLaunchDarkly(flags=[simple_flag("kept")]) as ld:
        ld.fault("/bulk", status=500, times=None)
        ld.set_flag(simple_flag("extra"))
        ld.set_flag(simple_flag("kept", serve=1))
        body = {"key": "m", "kind": "custom", "eventKey": "m", "isNumeric": False}
        token = {"Authorization": "api-t"}
        assert (
            requests.post(
                ld.url + "/api/v2/metrics/default", json=body, headers=token, timeout=60
            ).status_code
            == 201
        )
        ld.reset()
        assert send(ld, EVENT).status_code == 202
        assert ld.custom_events() == [EVENT]
        assert (
            requests.get(ld.url + "/api/v2/metrics/default", headers=token, timeout=60).json()[
                "totalCount"
            ]
            == 0
        )
        flags = requests.get(ld.url + "/sdk/latest-all", headers=HEADERS, timeout=60).json()[
            "flags"
        ]
        assert list(flags) == ["kept"]
        assert flags["kept"]["fallthrough"] == {"variation": 0}
        assert flags["kept"]["version"] == 3


def test_wait_for_says_what_had_arrived():
    """When it waited in vain."""
    with LocalLaunchDarkly() as ld:
        send(ld, EVENT)
        assert ld.wait_for(lambda: ld.custom_events("k")) == [EVENT]
        with pytest.raises(TimeoutError, match="1 posts, 1 events"):
            ld.wait_for(lambda: False, timeout=0.05)


def test_serve_runs_until_it_is_told_to_end(tmp_path):
    """The command line's way: a file with flags, a callback with the address."""
    flags = tmp_path / "flags.json"
    flags.write_text(
        '{"flags": {"f": {"key": "f", "variations": [1, 2], "on": true, '
        '"fallthrough": {"variation": 1}}}}'
    )
    until, seen = threading.Event(), []

    def ready(ld: LocalLaunchDarkly) -> None:
        seen.append(
            requests.get(ld.url + "/sdk/latest-all", headers=HEADERS, timeout=60).json()["flags"][
                "f"
            ]["variations"]
        )
        until.set()

    serve(port=0, flags=flags, ready=ready, until=until)
    assert seen == [[1, 2]]
    assert not ours()


def test_a_flag_file_that_is_none_is_named(tmp_path):
    """Before the server starts."""
    path = tmp_path / "flags.json"
    path.write_text('[{"variations": []}]')
    with pytest.raises(ValueError, match=r"flags\.json.*\"key\""):
        LocalLaunchDarkly(flags=path)


def test_importing_it_loads_no_web_framework():
    """`ldinstrument dev --help` must not need the extra."""
    names = ("starlette", "uvicorn", "jsonpatch")
    loaded = f"[name for name in {names} if name in sys.modules]"
    code = f"import sys, ldinstrument.devserver; print({loaded})"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_without_the_extra_the_error_is_the_command_to_type():
    """Instead of a missing module."""
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from ldinstrument.devserver import LocalLaunchDarkly\n"
        "try: LocalLaunchDarkly().start()\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "pip install 'ldinstrument[dev]'" in said


def test_experiment_weights_add_up_and_nonsense_is_refused():
    """To the hundred thousand of LaunchDarkly."""
    flag = experiment_flag("exp", ["a", "b", "c"], "request", [1, 1, 1])
    rollout = flag["fallthrough"]["rollout"]
    assert sum(part["weight"] for part in rollout["variations"]) == 100_000
    assert (rollout["kind"], rollout["contextKind"]) == ("experiment", "request")
    for bad in (
        {"variations": ["only"]},
        {"weights": [1]},
        {"weights": [0, 0]},
        {"weights": [-1, 2]},
    ):
        with pytest.raises(ValueError):
            experiment_flag("exp", **bad)


def test_a_forked_child_ends_although_the_server_is_busy():
    """The child inherits locks and no threads; leaving it must neither hang nor disturb the
    parent.
    """
    code = (
        "import os, sys, threading, requests\n"
        "from ldinstrument.devserver import LocalLaunchDarkly\n"
        "with LocalLaunchDarkly() as ld:\n"
        "    held, release = threading.Event(), threading.Event()\n"
        "    def hold():\n"
        "        with ld.database.locked():\n"
        "            held.set(); release.wait()\n"
        "    threading.Thread(target=hold).start()\n"
        "    held.wait()\n"
        "    pid = os.fork()\n"
        "    if pid == 0: sys.exit(0)\n"
        "    release.set()\n"
        "    code = os.waitpid(pid, 0)[1]\n"
        "    event = {'kind': 'custom', 'key': 'k', 'context': {'kind': 'user', 'key': 'u'}}\n"
        "    headers = {'Authorization': 'sdk'}\n"
        "    answer = requests.post(ld.url + '/bulk', json=[event], headers=headers, timeout=60)\n"
        "    print(code, answer.status_code, len(ld.events()))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["0", "202", "1"], "")
