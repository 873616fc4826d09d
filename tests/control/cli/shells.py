"""The command line in a process of its own, and a program for it to read."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from ldinstrument.metrics.metric import Metric

ROOT = Path(__file__).resolve().parents[3]


SUM = Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum")


APP = """
    import ldinstrument as ld

    print("imported")
    ld.bootstrap(wait=False)  # must not create anything when the code is only looked at
    ld.catalog.add(ld.Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum"))

    @ld.track_task("checkout.total")
    def total(s: ld.Session):
        s.record("cart.value", 3)
"""


# A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ldinstrument.cli import main, plans, terminal
sys.exit(main())
"""


COMMAND = [sys.executable, "-c", PROGRAM]


KEYS = {"cart.value", "checkout.total.duration", "checkout.total.success_rate"}


class Ran:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


NOISY = """
import atexit, os, subprocess, threading
import ldinstrument as ld
print("from print")
os.write(1, b"from a write\\n")
subprocess.run(["echo", "from a child"], check=True)
atexit.register(print, "from an exit hook")
heard = threading.Event()
def later():
    while not heard.wait(0.001):
        print("from a thread")
threading.Thread(target=later, daemon=True).start()
@ld.track_task("noisy")
def f(): ...
"""


class Sitting:
    """Somebody at a terminal, who answers the question that a command asks."""

    def __init__(self, url: str, arguments: tuple[str, ...], answer: str) -> None:
        mine, theirs = pty.openpty()
        command = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "LDINSTRUMENT_URL": url, "COLUMNS": "200"},
        )
        os.close(theirs)
        self.seen = ""
        try:
            while piece := os.read(mine, 1000):
                self.seen += piece.decode(errors="replace")
                if "[y/N]" in self.seen and answer:
                    os.write(mine, answer.encode() + b"\n")
                    answer = ""
        except OSError:
            pass  # how a terminal says that the other side has gone
        self.code = command.wait(60)
        os.close(mine)

    @property
    def asked(self) -> bool:
        return "[y/N]" in self.seen
