"""One command for everything: a local LaunchDarkly, a local OpenAI-compatible server, and the shop under gunicorn.

`python examples/flask_app/run.py [--port 8000] [--launchdarkly-port 8030] [--workers 2]`; Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

from fake_openai import FakeOpenAI

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag

HERE = Path(__file__).resolve().parent


def main() -> int:
    options = parsed()
    flag = experiment_flag("assistant-prompt", ["brief", "friendly"])
    with LocalLaunchDarkly(options.launchdarkly_port, flags=[flag]) as launchdarkly, FakeOpenAI() as openai:
        port = options.port or free_port()
        shop = subprocess.Popen(gunicorn(port, options.workers), env=environment(launchdarkly.url, openai.url))
        print(f"The shop:         http://127.0.0.1:{port}")
        print(f"LaunchDarkly has: {launchdarkly.url}", flush=True)
        try:
            return shop.wait()
        except KeyboardInterrupt:
            shop.terminate()
            return shop.wait()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=8000, help="of the shop; 0 takes a free one")
    parser.add_argument(
        "--launchdarkly-port", type=int, default=8030, help="of the local LaunchDarkly; 0 takes a free one"
    )
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def gunicorn(port: int, workers: int) -> list[str]:
    bind = ["--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--threads", "4"]
    return [sys.executable, "-m", "gunicorn", "--chdir", str(HERE), *bind, "--log-level", "warning", "app:create_app()"]


def environment(launchdarkly: str, openai: str) -> dict[str, str]:
    return {**os.environ, "LDINSTRUMENT_URL": launchdarkly, "OPENAI_BASE_URL": openai, "no_proxy": "127.0.0.1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
