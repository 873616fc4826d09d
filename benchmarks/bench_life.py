"""What a run costs whole: from the decorated call to delivered and confirmed bytes.

    python benchmarks/bench_life.py [--rounds 5] [--write]
                                    [--only life,instructions,calls,session,burst,turns,web,import,ways]

Prints each row of the table in docs/performance.md beside its wanted value. A "run" is one call of
a trivial `@track_task` function inside a session; it becomes two events. Each candidate has a
process of its own, whose CPU time is taken whole (our threads count) or of the calling thread,
where the row says so; rounds are interleaved, and its cost is the least of them, for what others do
on the machine only ever adds. The server is another process. Ratios are within this run. `--write`
puts the tables and the plot into docs/.

What is measured is in `life/`: whole lives in `candidates.py`, parts of one in `parts.py`, web
middleware in `middleware.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
os.environ["no_proxy"] = "*"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody imports from source twice

from life.candidates import CANDIDATES  # noqa: E402
from life.middleware import NAMES, OPENTELEMETRY, web  # noqa: E402
from life.page import RUNS, Lives, write_page  # noqa: E402
from life.parts import PARTS  # noqa: E402

TOTALS = {1: 2000, 10: 8000, 100: 40_000, 1000: 80_000}
"""How many runs are measured, by runs per session."""


def measure(name: str, *arguments: Any) -> Any:
    """Run one candidate or part in a process of its own; return what it returns."""
    done = subprocess.run(
        command(name, *arguments), stdout=subprocess.PIPE, text=True, check=True, env=environment()
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def command(name: str, *arguments: Any) -> list[str]:
    """Return the command that measures *name*."""
    return [sys.executable, __file__, "--measure", json.dumps([name, *arguments])]


def environment() -> dict[str, str]:
    """Return the environment of a process that is measured."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONHASHSEED": "0"}


def measured(name: str, arguments: list[Any]) -> Any:
    """Do what `measure` asked for, in this process."""
    return {**CANDIDATES, **PARTS, "web": web}[name](*arguments)


class Table:
    """The rows that were measured, each beside its wanted value."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def add(self, what: str, value: str, wanted: str) -> None:
        """Add a row and print it."""
        self.rows.append((what, value, wanted))
        print(f"{what}: {value} (wanted: {wanted})", flush=True)


def least_of(times: int, *wanted: tuple[Any, ...]) -> list[Any]:
    """Measure each of *wanted*, interleaved, *times* times; return the least of each.

    Of a dictionary, the least of each of its values.
    """
    least: list[Any] = [None] * len(wanted)
    for _ in range(times):
        for number, arguments in enumerate(wanted):
            least[number] = lesser(least[number], measure(*arguments))
    return least


def lesser(before: Any, now: Any) -> Any:
    """Return the smaller of two numbers; of two dictionaries, value by value."""
    if before is None:
        return now
    if isinstance(now, dict):
        return {name: min(before[name], value) for name, value in now.items()}
    return min(before, now)


# -- the rows --------------------------------------------------------------------------------------


def life(table: Table, url: str, rounds: int) -> Lives:
    """Compare whole lives; return CPU microseconds per run, by candidate and runs per session."""
    wanted = [
        (name, runs) for name in CANDIDATES for runs in (RUNS if name != "zipped" else (100,))
    ]
    least = least_of(rounds, *[(name, runs, TOTALS[runs], url) for name, runs in wanted])
    lives: Lives = {name: {} for name in CANDIDATES}
    for (name, runs), took in zip(wanted, least, strict=True):
        lives[name][runs] = took

    def times(other: str, *sizes: int) -> str:
        return " / ".join(f"{lives['ours'][runs] / lives[other][runs]:.2f}" for runs in sizes)

    table.add("whole life against the orjson floor, 100 / 1,000 runs per session",
              times("floor", 100, 1000), "<= 3 / 2")  # fmt: skip
    table.add("against prometheus_client, 100 / 1,000",
              times("prometheus", 100, 1000), "<= 1.3 / 1.0")  # fmt: skip
    table.add("against naive track x 2 on our event processor, 1 / 10 / 100",
              times("naive", 1, 10, 100), "<= 3 / 0.6 / 0.2")  # fmt: skip
    table.add("against naive track x 2 on the SDK's, unconfirmed, 1 / 10 / 100",
              times("naive_sdk", 1, 10, 100), "")  # fmt: skip
    added = lives["zipped"][100] - lives["ours"][100]
    table.add("gzip on, added CPU us per run", f"{added:.2f}", "<= 0.4")
    return lives


def instructions(table: Table, url: str) -> None:
    """Count instructions per run with callgrind, where valgrind is installed."""
    if shutil.which("valgrind") is None:
        print("instructions per run: no valgrind here (apt-get install valgrind)", flush=True)
        return
    measure("instructions", 1, url)  # compiles what is not compiled yet
    few, many = (count_instructions(sessions, url) for sessions in (10, 60))
    table.add("instructions per run at 100", f"{(many - few) / 5000:,.0f}", "<= 20,000")


def count_instructions(sessions: int, url: str) -> int:
    """Return how many instructions a process with so many sessions of 100 runs executes."""
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*tool, *command("instructions", sessions, url)],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def calls(table: Table, url: str) -> None:
    """Measure the longest decorated calls, and recording alone."""
    (found,) = least_of(3, ("calls", url))
    value = f"{found['p999']:.0f} / {found['most']:.0f}"
    table.add("a decorated call, CPU us of its thread, p99.9 / most", value, "<= 60 / 300")
    (found,) = least_of(2, ("recording",))
    table.add("recording alone against the smallest decorator with two clock reads",
              f"{found['tracked'] / found['clocks']:.2f}", "<= 1.2")  # fmt: skip
    table.add("recording alone against two clock reads written by hand",
              f"{found['tracked'] / found['written']:.2f}", "")  # fmt: skip


def session(table: Table, url: str) -> None:
    """Measure a session with nothing in it."""
    (found,) = least_of(3, ("empty_session", url))
    value = f"{found['cpu']:.0f} us / {found['bytes']:,.0f}"
    table.add("a session with nothing in it, CPU of its thread / bytes", value, "<= 20 us / 1,024")


def burst(table: Table, url: str) -> None:
    """Count what is dropped of a burst."""
    for sessions, runs in ((1000, 100), (10_000, 10)):
        found = measure("burst", url, sessions, runs)
        value = f"{found['dropped']} of {found['emitted']:,}"
        table.add(f"dropped of a burst of {sessions:,} x {runs}", value, "0")


def turns(table: Table, url: str) -> None:
    """Compare the turns that a host thread gets beside sessions and beside a bare loop."""
    got = {"loop": 0, "sessions": 0}
    for _ in range(2):
        for what in got:
            got[what] += measure("turns", url, what)
    ratio = got["sessions"] / got["loop"]
    table.add("turns of a host thread beside sessions, against a bare loop",
              f"{ratio:.2f}", ">= 0.9")  # fmt: skip


def middleware(table: Table, url: str) -> None:
    """Compare middleware, above the bare application."""
    names = [*NAMES]
    try:
        metadata.version("opentelemetry-instrumentation-wsgi")
        names += OPENTELEMETRY
    except metadata.PackageNotFoundError:
        print("opentelemetry-instrumentation-wsgi is not installed", flush=True)
    least = least_of(3, *[("web", url, name) for name in names])
    costs = dict(zip(names, least, strict=True))
    above = {
        name: took - costs["bare wsgi" if "wsgi" in name else "bare asgi"]
        for name, took in costs.items()
        if "bare" not in name
    }
    shown = ", ".join(f"{name} {took:.0f} us" for name, took in above.items())
    print(f"above the bare application: {shown}", flush=True)
    for name, wanted in zip(reversed(OPENTELEMETRY), ("<= 0.8", ""), strict=True):
        if name in above:
            ratio = f"{above['ours wsgi'] / above[name]:.2f}"
            table.add(f"WSGI middleware, delivered, against {name}", ratio, wanted)
    ratio = above["ours asgi memory"] / above["ours wsgi memory"]
    table.add('ASGI with store="memory:" against WSGI with it', f"{ratio:.2f}", "<= 1.1")


def imports(table: Table, url: str) -> None:
    """Compare our import and a first decoration with the import of the SDK, in CPU time."""
    program = [sys.executable, str(HERE / "life" / "imports.py")]
    printed = [
        subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True, env=environment())
        for _ in range(12)
    ]
    pairs = [
        [float(ms) for ms in done.stdout.split()] for done in printed[1:]
    ]  # the first compiles
    theirs, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
    value = f"{mine / theirs:.0%} ({mine:.1f} of {theirs:.0f} ms)"
    table.add("import plus first decoration on top of `import ldclient`", value, "<= 12%")


def ways(table: Table, url: str) -> None:
    """Count the functions and files that a value passes."""
    wanted = {"task": "< 60 / 12", "request": "< 90 / 15"}
    for name, (functions, files) in measure("ways").items():
        what = f"functions / files on the way of a {name} (trace_calls.py)"
        table.add(what, f"{functions} / {files}", wanted[name])


GROUPS: dict[str, Callable[[Table, str], None]] = {
    "instructions": instructions,
    "calls": calls,
    "session": session,
    "burst": burst,
    "turns": turns,
    "web": middleware,
    "import": imports,
    "ways": ways,
}


def main() -> None:
    """Print each row beside its wanted value."""
    from bench_delivery import serve

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(["life", *GROUPS]))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    print("This takes two to three minutes; on a busy machine, up to five.", flush=True)
    began = time.monotonic()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, 0.0), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    table, lives = Table(), {}
    try:
        for name in options.only.split(","):
            if name == "life":
                lives = life(table, url, options.rounds)
            else:
                GROUPS[name](table, url)
    finally:
        server.terminate()
        server.join()
    print(f"It took {time.monotonic() - began:.0f} s.", flush=True)
    if options.write:
        write_page(table.rows, lives)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        wanted_name, *wanted_arguments = json.loads(sys.argv[2])
        print(json.dumps(measured(wanted_name, wanted_arguments)))
    else:
        main()
