"""Run a shop under real servers, stop them in several ways, and count the sessions that are lost.

`make servers` installs those that install, and writes the table of docs/web.md. Each cell is one
run: 40 requests of four users over eight threads, a client that sends nothing by itself
(`flush_interval=300`), and then the end. What clients had an answer to is compared with what the
local LaunchDarkly has.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import httpx

from ldinstrument.devserver import LocalLaunchDarkly

ROOT = Path(__file__).parents[1]
SHOP = ROOT / "tests" / "integrations"
DOCS = ROOT / "docs" / "web.md"
BEGIN, END = "<!-- servers: begin (make servers) -->", "<!-- servers: end -->"
PATHS = ("/buy", "/stream", "/boom", "/buy", "/buy")
USERS = ("ada", "bob", "eve", "joe")
WSGI, ASGI = "served_shop:application", "served_shop:asgi"


@dataclass(frozen=True)
class Server:
    """One way to serve.

    Args:
        name: in the table.
        package: must be installed.
        command: its arguments; `{port}` and `{folder}` are filled in.
        needs: what the table says that it needs.
    """

    name: str
    package: str
    command: tuple[str, ...]
    needs: str = "nothing"

    @property
    def installed(self) -> bool:
        """Whether it can be run here."""
        if self.package == "uwsgi":
            return shutil.which("uwsgi", path=os.fspath(Path(sys.executable).parent)) is not None
        return importlib.util.find_spec(self.package) is not None


def gunicorn(name: str, *options: str, needs: str = "nothing", package: str = "gunicorn") -> Server:
    """Return gunicorn with two workers."""
    bind = ("--bind", "127.0.0.1:{port}", "--workers", "2", "--log-level", "critical")
    app = ASGI if any("uvicorn" in option for option in options) else WSGI
    return Server(name, package, ("-m", "gunicorn", *bind, *options, app), needs)


def uwsgi(name: str, *options: str) -> Server:
    """Return uWSGI with two workers of two threads."""
    serving = ("--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2")
    always = ("--enable-threads", "--threads", "2", "--die-on-term", "--disable-logging")
    venv = ("--virtualenv", sys.prefix)
    needs = "`" + " ".join(["--enable-threads", "--die-on-term", *options]) + "`"
    command = (*serving, *always, *options, *venv, "--module", WSGI)
    return Server(name, "uwsgi", ("uwsgi", *command), needs)


HOOKS = ("--config", "{folder}/hooks.py", "--preload")
HOOKS_NEEDED = "`post_fork` and `worker_exit` of `integrations.gunicorn` in `gunicorn.conf.py`"
LIFESPAN = "`asgi.SessionMiddleware`, whose lifespan delivers"
WAITRESS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
from served_shop import application
import waitress
waitress.serve(application, host="127.0.0.1", port={port}, threads=8, _quiet=True)
"""
WERKZEUG = """
import signal, sys, logging
logging.getLogger("werkzeug").disabled = True
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
from served_shop import application
from werkzeug.serving import run_simple
run_simple("127.0.0.1", {port}, application, threaded=True)
"""
EVENTLET = """
import eventlet
eventlet.monkey_patch()
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
from served_shop import application
from eventlet import wsgi
wsgi.server(eventlet.listen(("127.0.0.1", {port})), application, log_output=False)
"""
HANDLER = "a handler of SIGTERM: `signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))`"

SERVERS = (
    gunicorn("gunicorn sync"),
    gunicorn("gunicorn gthread", "--threads", "4"),
    gunicorn("gunicorn gthread `--preload`", "--threads", "4", *HOOKS, needs=HOOKS_NEEDED),
    gunicorn("gunicorn gevent", "--worker-class", "gevent", package="gevent"),
    gunicorn(
        "gunicorn with uvicorn's worker",
        "--worker-class",
        "uvicorn_worker.UvicornWorker",
        needs=LIFESPAN,
        package="uvicorn_worker",
    ),
    Server(
        "uvicorn",
        "uvicorn",
        ("-m", "uvicorn", "--port", "{port}", "--log-level", "critical", ASGI),
        LIFESPAN,
    ),
    Server(
        "uvicorn, two workers",
        "uvicorn",
        ("-m", "uvicorn", "--port", "{port}", "--workers", "2", "--log-level", "critical", ASGI),
        LIFESPAN,
    ),
    Server(
        "Hypercorn",
        "hypercorn",
        ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", ASGI),
        LIFESPAN,
    ),
    Server(
        "Hypercorn, two workers",
        "hypercorn",
        ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", "--workers", "2", ASGI),
        LIFESPAN,
    ),
    Server("Daphne", "daphne", ("-m", "daphne", "-p", "{port}", "-v", "0", ASGI)),
    uwsgi("uWSGI", "--lazy-apps"),
    uwsgi("uWSGI without `--lazy-apps`"),
    Server("waitress", "waitress", ("-c", WAITRESS), HANDLER),
    Server("eventlet", "eventlet", ("-c", EVENTLET), HANDLER),
    Server("Werkzeug", "werkzeug", ("-c", WERKZEUG), HANDLER),
)


def main() -> int:
    """Print the table, and write it into the docs when asked."""
    options = parsed()
    chosen = [server for server in SERVERS if not options.only or options.only in server.name]
    rows = []
    for server in chosen:
        if not server.installed:
            print(f"{server.name}: not installed", flush=True)
            continue
        cells = [lost(server, end) for end in ENDS]
        rows.append(f"| {server.name} | {server.needs} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    if options.write:
        write("\n".join([*heading(), *rows]))
    return 0


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="servers with this in their name")
    parser.add_argument("--write", action="store_true", help="write the table into docs/web.md")
    return parser.parse_args()


def heading() -> list[str]:
    """Return the first lines of the table, and the versions that it was made with."""
    packages = sorted({server.package for server in SERVERS if server.installed})
    versions = []
    for package in packages:
        try:
            name = package.replace("_", "-")
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    python = ".".join(map(str, sys.version_info[:3]))
    return [
        f"Python {python}, {', '.join(versions)}:",
        "",
        "| server | what it needs | lost: SIGTERM, idle | SIGTERM, busy | SIGTERM to all its "
        "processes | SIGKILL |",
        "| --- | --- | --- | --- | --- | --- |",
    ]


# -- one run ---------------------------------------------------------------------------------------


def idle(process: subprocess.Popen[str], address: str) -> int:
    """Stop an idle server in order."""
    process.send_signal(signal.SIGTERM)
    return 0


def busy(process: subprocess.Popen[str], address: str) -> int:
    """Stop it while it serves two requests; tell how many of them were answered."""

    def ask(user: str) -> int:
        try:
            answer = httpx.get(
                f"{address}/slow", headers={"X-User": user}, timeout=30, trust_env=False
            )
        except httpx.HTTPError:
            return 0
        return int(answer.status_code == 200)

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, user) for user in USERS[:2]]
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        return sum(answer.result() for answer in waiting)


def everybody(process: subprocess.Popen[str], address: str) -> int:
    """Stop every process of the server at once, as systemd does."""
    os.killpg(process.pid, signal.SIGTERM)
    return 0


def killed(process: subprocess.Popen[str], address: str) -> int:
    """Kill it, with everything that it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    return 0


ENDS: tuple[Callable[[subprocess.Popen[str], str], int], ...] = (idle, busy, everybody, killed)


def lost(server: Server, end: Callable[[subprocess.Popen[str], str], int]) -> str:
    """Return how many sessions of requests that were answered did not arrive."""
    with LocalLaunchDarkly() as launchdarkly, tempfile.TemporaryDirectory() as folder:
        process, address = start(server, launchdarkly.url, Path(folder))
        try:
            answered = traffic(address)
            answered += end(process, address)
            process.wait(30)
        except subprocess.TimeoutExpired:
            return "does not end in 30 s"
        except httpx.HTTPError as error:
            return type(error).__name__
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0.5)
        arrived = launchdarkly.custom_events("request.interactions")
        ids = {event["data"]["sessionId"] for event in arrived}
        twice = len(arrived) - len(ids)
        missing = max(0, answered - len(ids))
    return f"{missing} of {answered}" + (f", {twice} twice" if twice else "")


def start(server: Server, launchdarkly: str, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server, and wait until it answers a health check, which leaves no trace."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hooks = "from ldinstrument.integrations.gunicorn import post_fork, worker_exit\n"
    (folder / "hooks.py").write_text(hooks)
    filled = [
        part.replace("{port}", str(port)).replace("{folder}", str(folder))
        for part in server.command
    ]
    program = [str(Path(sys.executable).parent / "uwsgi"), *filled[1:]]
    command = program if filled[0] == "uwsgi" else [sys.executable, *filled]
    environment = {
        **os.environ,
        "LDINSTRUMENT_URL": launchdarkly,
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join([str(SHOP), str(ROOT)]),
    }
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{address}/health", timeout=30, trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return process, address
    os.killpg(process.pid, signal.SIGKILL)
    raise SystemExit(f"{server.name} did not start: {' '.join(command)}")


def traffic(address: str) -> int:
    """Send forty requests over eight threads; return how many were answered."""
    jobs = [(user, path) for user in USERS for path in PATHS * 2]

    def ask(job: tuple[str, str]) -> int:
        user, path = job
        answer = httpx.get(address + path, headers={"X-User": user}, timeout=60, trust_env=False)
        return int(answer.status_code in (200, 500))

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(ask, jobs))


def write(table: str) -> None:
    """Put the table into its place in the docs."""
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    DOCS.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
