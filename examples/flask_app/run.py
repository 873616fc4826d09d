"""One command for everything: a local LaunchDarkly, a local OpenAI-compatible server, and the shop
under gunicorn.

`python examples/flask_app/run.py [--port 8000] [--launchdarkly-port 8030] [--workers 2]`; Ctrl-C,
SIGTERM or the end of the terminal ends it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fake_openai import FakeOpenAI

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag

HERE = Path(__file__).resolve().parent
MEASURED = (
    "business.conversion",
    "user.satisfaction",
    "session.interactions",
    "session.duration",
    "assistant.answer.tokens.total",
)


class RunningShop(NamedTuple):
    """The shop and what it needs."""

    url: str
    launchdarkly: LocalLaunchDarkly
    openai: FakeOpenAI
    shop: subprocess.Popen[bytes]


@contextmanager
def serving(port: int = 0, launchdarkly_port: int = 0, workers: int = 2) -> Iterator[RunningShop]:
    """The shop and all that it needs, until the block ends; 0 takes a free port."""
    flag = experiment_flag("assistant-prompt", ["brief", "friendly"], metrics=MEASURED)
    port = port or free_port()
    with (
        LocalLaunchDarkly(launchdarkly_port, flags=[flag]) as launchdarkly,
        FakeOpenAI() as openai,
        TemporaryDirectory() as folder,
    ):
        environment = {
            **os.environ,
            "LDINSTRUMENT_URL": launchdarkly.url,
            "OPENAI_BASE_URL": openai.url,
            "SHOP_STORE": f"{folder}/visits.db",
            "no_proxy": "127.0.0.1",
        }
        shop = subprocess.Popen(gunicorn(port, workers), env=environment)
        try:
            wait_for_answer(port, shop)
            yield RunningShop(f"http://127.0.0.1:{port}", launchdarkly, openai, shop)
        finally:
            shop.terminate()
            shop.wait()


def main() -> int | str:
    options = parsed()
    # An exception out of the handler ends the shop and its servers in order, as Ctrl-C does. A
    # terminal that is closed sends SIGHUP, by which gunicorn itself would not end.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        with serving(options.port, options.launchdarkly_port, options.workers) as place:
            print(f"The shop:         {place.url}")
            print(f"LaunchDarkly has: {place.launchdarkly.url}")
            print("Ctrl-C ends it.", flush=True)
            return place.shop.wait()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        return f"error: {error.strerror}; try --port 0 --launchdarkly-port 0"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=8000, help="of the shop; 0 takes a free one")
    parser.add_argument(
        "--launchdarkly-port",
        type=int,
        default=8030,
        help="of the local LaunchDarkly; 0 takes a free one",
    )
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def gunicorn(port: int, workers: int) -> list[str]:
    bind = ["--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--threads", "4"]
    return [
        sys.executable,
        "-m",
        "gunicorn",
        "--chdir",
        str(HERE),
        *bind,
        "--log-level",
        "warning",
        "app:create_app()",
    ]


def wait_for_answer(port: int, shop: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while shop.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the shop did not start; see above")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
