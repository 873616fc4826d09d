"""Real servers with several workers, the real client, and a count at the end: what clients did is
what arrived.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any

import httpx
import pytest

from ldinstrument import stores
from ldinstrument.devserver import LocalLaunchDarkly

HERE = Path(__file__).parent
HOOKS = "from ldinstrument.integrations.gunicorn import post_fork, worker_exit\n"
PATHS = ("/buy", "/stream", "/boom", "/buy", "/buy")
USERS = ("ada", "bob", "eve", "joe")


def gunicorn(*more: str) -> list[str]:
    return [
        "gunicorn",
        "--workers",
        "2",
        "--log-level",
        "critical",
        "--timeout",
        "100",
        "--graceful-timeout",
        "60",
        *more,
    ]


def uvicorn(workers: int) -> list[str]:
    return ["uvicorn", "--workers", str(workers), "--log-level", "critical"]


SERVERS = {
    "gunicorn sync": gunicorn(),
    "gunicorn sync, preloaded": gunicorn("--preload"),
    "gunicorn gthread": gunicorn("--threads", "4"),
    "gunicorn gthread, preloaded": gunicorn("--threads", "4", "--preload"),
    "uvicorn": uvicorn(1),
    "uvicorn, two workers": uvicorn(2),
}


Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture(name="start")
def _start(free_port: Callable[[], int], launchdarkly: LocalLaunchDarkly, tmp_path: Path) -> Start:
    """`start(command, **variables)`: a server that answers."""
    return functools.partial(started, free_port, launchdarkly, tmp_path)


def started(
    free_port: Callable[[], int],
    launchdarkly: LocalLaunchDarkly,
    folder: Path,
    command: list[str],
    **variables: str,
) -> tuple[subprocess.Popen[str], str]:
    """Start a server, and wait until it answers a health check, which leaves no trace."""
    port = free_port()
    environment = {
        **os.environ,
        **variables,
        "LDINSTRUMENT_URL": launchdarkly.url,
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    if command[0] == "gunicorn":
        (folder / "hooks.py").write_text(HOOKS)
        hooks = ["--config", str(folder / "hooks.py")] if "--preload" in command else []
        where = ["--bind", f"127.0.0.1:{port}", *hooks, "served_shop:application"]
    else:
        where = ["--host", "127.0.0.1", "--port", str(port), "served_shop:asgi"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *where],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{address}/health", timeout=60, trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return process, address
    process.kill()
    raise AssertionError(f"the server did not start: {process.communicate()[0]}")


def traffic(address: str) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Forty requests over eight threads: users by number of requests, and what they met."""
    jobs = [(user, path) for user in USERS for path in PATHS * 2]

    def ask(job: tuple[str, str]) -> tuple[str, str]:
        user, path = job
        answer = httpx.get(address + path, headers={"X-User": user}, timeout=100, trust_env=False)
        assert answer.status_code == (500 if path == "/boom" else 200)
        return job

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(ask, jobs))
    return Counter(user for user, _ in done), Counter((user, path) for user, path in done)


@pytest.mark.parametrize("name", SERVERS)
def test_what_clients_did_is_what_arrives(
    name: str, start: Start, launchdarkly: LocalLaunchDarkly
) -> None:
    """No session is missing and none is there twice, over several workers, after an ordinary end of
    the server.
    """
    process, address = start(SERVERS[name])
    try:
        requests, met = traffic(address)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=100)
    finally:
        process.kill()
        output = process.communicate()[0]

    found = launchdarkly.custom_events("request.interactions")
    assert requests == Counter(event["context"]["key"] for event in found), output
    assert len(found) == len({event["data"]["sessionId"] for event in found})
    failures = Counter(event["context"]["key"] for event in found if event["data"]["failures"])
    assert {user: met[user, "/boom"] for user in USERS} == failures
    spent = totals(launchdarkly.custom_events("business.conversion"))
    assert {user: 3.0 * (met[user, "/buy"] + met[user, "/stream"]) for user in USERS} == spent
    assert {"/buy", "/stream", "/boom"} == {event["data"]["route"] for event in found}


@pytest.mark.parametrize("name", ["gunicorn sync", "gunicorn gthread", "uvicorn"])
def test_a_client_that_leaves_is_noticed(
    name: str, start: Start, launchdarkly: LocalLaunchDarkly
) -> None:
    """In the middle of a stream of 8 MB: abandoned, neither success nor failure."""
    process, address = start(SERVERS[name])
    try:
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=100) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(b"GET /endless HTTP/1.1\r\nHost: shop\r\nX-User: ada\r\n\r\n")
            assert b"200" in connection.recv(1000)
        httpx.get(f"{address}/buy", headers={"X-User": "bob"}, timeout=100, trust_env=False)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=100)
    finally:
        process.kill()
        output = process.communicate()[0]

    found = {
        event["context"]["key"]: event
        for event in launchdarkly.custom_events("request.interactions")
    }
    assert {"ada": 0, "bob": 1} == {user: event["metricValue"] for user, event in found.items()}, (
        output
    )
    assert 1 == found["ada"]["data"]["abandoned"]


@pytest.mark.parametrize(
    "name", ["gunicorn sync", "gunicorn gthread, preloaded", "uvicorn, two workers"]
)
def test_visits_over_several_workers_are_counted_once(
    name: str, start: Start, launchdarkly: LocalLaunchDarkly, tmp_path: Path
) -> None:
    """Sixteen visitors at once, each request at whichever worker: nothing is missing and nothing
    there twice.

    A page may be brought in by its worker after another one has ended the visit with `/leave`; it
    then is a visit of its own, so the totals are by user.
    """
    address_of_store = f"sqlite:////{str(tmp_path / 'visits.db').lstrip('/')}"
    process, address = start(SERVERS[name], SHOP_STORE=address_of_store)
    chance = random.Random(6)
    plans = {
        f"user-{number}": chance.choices(PATHS, k=chance.randint(1, 9)) for number in range(16)
    }

    def visit(user: str) -> None:
        with httpx.Client(
            base_url=address, headers={"X-User": user}, timeout=100, trust_env=False
        ) as client:
            for path in [*plans[user], "/leave"]:
                # A new connection each time, but the same cookies: another worker may answer.
                client.get(path, headers={"Connection": "close"})

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(visit, plans))
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=100)
    finally:
        process.kill()
        output = process.communicate()[0]
    with stores.open_store(address_of_store, idle=2, sweep=False) as store:
        launchdarkly.wait_for(
            lambda: stores.sweep(store, sdk_key="sdk-local") and not any(astuple(store.holdings())),
            100,
        )

    found = launchdarkly.custom_events("session.interactions")
    assert len(found) == len({event["data"]["sessionId"] for event in found})
    assert {user: len(paths) + 1 for user, paths in plans.items()} == totals(found), output
    failures: Counter[str] = Counter()
    for event in found:
        failures[event["context"]["key"]] += event["data"]["failures"]
    assert {user: paths.count("/boom") for user, paths in plans.items()} == failures
    spent = totals(launchdarkly.custom_events("business.conversion"))
    assert {
        user: 3.0 * buys
        for user, paths in plans.items()
        if (buys := len(paths) - paths.count("/boom"))
    } == spent


def totals(events: Iterable[Any]) -> dict[str, float]:
    """The values by user."""
    found: Counter[str] = Counter()
    for event in events:
        found[event["context"]["key"]] += event["metricValue"]
    return dict(found)
